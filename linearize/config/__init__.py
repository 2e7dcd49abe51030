"""What an experiment is told: one frozen dataclass a component, validated where it is made.

The training room keeps its own (:class:`linearize.train.TrainConfig`); here are the others, and
the way of a whole configuration to JSON and back.
"""

from linearize.config.compare import REGIMES as REGIMES
from linearize.config.compare import Baseline as Baseline
from linearize.config.compare import CompareConfig as CompareConfig
from linearize.config.compare import EditConfig as EditConfig
from linearize.config.compare import ExactConfig as ExactConfig
from linearize.config.compare import MapConfig as MapConfig
from linearize.config.files import ConfigError as ConfigError
from linearize.config.files import completed as completed
from linearize.config.files import differences as differences
from linearize.config.files import from_dict as from_dict
from linearize.config.files import hindrances as hindrances
from linearize.config.files import load_config as load_config
from linearize.config.files import said_as_configuration as said_as_configuration
from linearize.config.files import taken as taken
from linearize.config.files import to_dict as to_dict
from linearize.config.language import LanguageModelConfig as LanguageModelConfig
from linearize.config.language import TextDataConfig as TextDataConfig
from linearize.config.study import DataConfig as DataConfig
from linearize.config.study import HeadConfig as HeadConfig
from linearize.config.study import ModelConfig as ModelConfig
from linearize.config.study import StudyConfig as StudyConfig
from linearize.config.vectors import AnalysisConfig as AnalysisConfig
from linearize.config.vectors import VectorsConfig as VectorsConfig
