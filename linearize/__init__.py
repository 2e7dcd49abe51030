"""Fine-tune pretrained models in their tangent space.

What takes long says so to the logger ``linearize``: ``logging.basicConfig(level=logging.INFO)``
shows it. Warnings are shown in any case, as Python does where logging is not configured.
"""

from typing import TYPE_CHECKING

from linearize.later import offered

if TYPE_CHECKING:
    from linearize import curvature as curvature
    from linearize import data as data
    from linearize import edit as edit
    from linearize import evaluate as evaluate
    from linearize import io as io
    from linearize import ntk as ntk
    from linearize import plot as plot
    from linearize import tree as tree
    from linearize.comparison import Plan as Plan
    from linearize.comparison import compare as compare
    from linearize.data import Task as Task
    from linearize.disentangle import ErrorMap as ErrorMap
    from linearize.disentangle import disentanglement_error as disentanglement_error
    from linearize.examples import Examples as Examples
    from linearize.functional import from_linen as from_linen
    from linearize.functional import from_nnx as from_nnx
    from linearize.functional import update_nnx as update_nnx
    from linearize.interference import Audit as Audit
    from linearize.interference import audit as audit
    from linearize.merge import MERGES as MERGES
    from linearize.merge import Merge as Merge
    from linearize.methods import METHODS as METHODS
    from linearize.models import Model as Model
    from linearize.models.language import generate as generate
    from linearize.objectives import Classify as Classify
    from linearize.study import Method as Method
    from linearize.study import Store as Store
    from linearize.study import Study as Study
    from linearize.task_vector import TaskVector as TaskVector
    from linearize.taylor import affine_terms as affine_terms
    from linearize.taylor import displaced as displaced
    from linearize.taylor import linearize as linearize
    from linearize.taylor import tangent as tangent
    from linearize.taylor import taylor_expand as taylor_expand

__version__ = "0.1.0"

__getattr__ = offered(
    __name__,
    {
        "Examples": "examples",
        "Model": "models",
        "generate": "models.language",
        "Task": "data",
        "TaskVector": "task_vector",
        "Classify": "objectives",
        **dict.fromkeys(("Method", "Store", "Study"), "study"),
        "METHODS": "methods",
        **dict.fromkeys(("MERGES", "Merge"), "merge"),
        **dict.fromkeys(("Plan", "compare"), "comparison"),
        **dict.fromkeys(("Audit", "audit"), "interference"),
        **dict.fromkeys(("ErrorMap", "disentanglement_error"), "disentangle"),
        **dict.fromkeys(("from_linen", "from_nnx", "update_nnx"), "functional"),
        **dict.fromkeys(
            ("affine_terms", "displaced", "linearize", "tangent", "taylor_expand"), "taylor"
        ),
    },
)
