"""Image classification tasks: packaged ones, a user's folder or arrays, and TFDS."""

from linearize.data.packaged import TASKS as TASKS
from linearize.data.packaged import PackagedTask as PackagedTask
from linearize.data.packaged import load_task as load_task
from linearize.data.packaged import prefetch as prefetch
from linearize.data.records import DataError as DataError
from linearize.data.records import Limits as Limits
from linearize.data.records import Split as Split
from linearize.data.records import Task as Task
from linearize.data.tfds import from_tfds as from_tfds
from linearize.data.user import from_arrays as from_arrays
from linearize.data.user import from_folder as from_folder
