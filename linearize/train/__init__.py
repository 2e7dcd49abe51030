"""Fine-tuning: one loop for both regimes, on one device or many, resumable at any instant."""

from linearize.losses import cross_entropy as cross_entropy
from linearize.train.config import TrainConfig as TrainConfig
from linearize.train.errors import CheckpointError as CheckpointError
from linearize.train.errors import NonFiniteLossError as NonFiniteLossError
from linearize.train.errors import RunDirectoryError as RunDirectoryError
from linearize.train.errors import RunLockedError as RunLockedError
from linearize.train.errors import RunMismatchError as RunMismatchError
from linearize.train.interrupt import REQUEUE as REQUEUE
from linearize.train.interrupt import Terminated as Terminated
from linearize.train.loop import FineTuned as FineTuned
from linearize.train.loop import fine_tune as fine_tune
from linearize.train.mesh import MeshConfig as MeshConfig
from linearize.train.optim import OptimConfig as OptimConfig
from linearize.train.optim import optimizers as optimizers
from linearize.train.penalty import Penalty as Penalty
from linearize.train.penalty import Stream as Stream
