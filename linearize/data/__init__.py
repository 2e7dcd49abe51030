"""Tasks: packaged ones, the papers', a user's images, folder or arrays of any kind, and TFDS."""

from linearize.data.arrays import split_task as split_task
from linearize.data.loader import Loader as Loader
from linearize.data.loader import for_training as for_training
from linearize.data.packaged import TASKS as TASKS
from linearize.data.packaged import PackagedTask as PackagedTask
from linearize.data.packaged import load_task as load_task
from linearize.data.packaged import prefetch as prefetch
from linearize.data.paper import Reading as Reading
from linearize.data.paper import load_vision as load_vision
from linearize.data.records import DataError as DataError
from linearize.data.records import Limits as Limits
from linearize.data.records import Split as Split  # deprecated
from linearize.data.records import Task as Task
from linearize.data.stored import StoredImages as StoredImages
from linearize.data.tfds import from_tfds as from_tfds
from linearize.data.user import from_arrays as from_arrays
from linearize.data.user import from_folder as from_folder
from linearize.data.vision import VISION as VISION
from linearize.data.vision import VisionSet as VisionSet
