"""Models as ``f(params, images)``, their packaged weights, and frozen heads on their features."""

from linearize.models import axes as axes
from linearize.models import prompts as prompts
from linearize.models import released as released
from linearize.models.backbone import Backbone as Backbone
from linearize.models.backbone import WeightsError as WeightsError
from linearize.models.fine_tuned import task_vector as task_vector
from linearize.models.hf.export import export as export
from linearize.models.layers import stack as stack
from linearize.models.layers import unstack as unstack
from linearize.models.loading import MODELS as MODELS
from linearize.models.loading import load as load
from linearize.models.loading import open_model as open_model
from linearize.models.lora import Adapter as Adapter
from linearize.models.lora import export_adapter as export_adapter
from linearize.models.model import Model as Model
from linearize.models.prompts import PromptError as PromptError
from linearize.models.text import TextEncoder as TextEncoder
from linearize.models.text import load_text as load_text
from linearize.models.text import text_features as text_features
from linearize.models.tokenizer import Tokenizer as Tokenizer
from linearize.models.tokenizer import TokenizerError as TokenizerError
from linearize.models.tokenizer import load_tokenizer as load_tokenizer
from linearize.models.zero_shot import text_head as text_head
from linearize.models.zero_shot import zero_shot_head as zero_shot_head
