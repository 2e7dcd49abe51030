"""Models as ``f(params, images)``, their packaged weights, and frozen heads on their features."""

from linearize.models.backbone import Backbone as Backbone
from linearize.models.backbone import WeightsError as WeightsError
from linearize.models.layers import stack as stack
from linearize.models.layers import unstack as unstack
from linearize.models.loading import MODELS as MODELS
from linearize.models.loading import load as load
