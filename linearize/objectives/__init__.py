"""What a number is: loss, metric and distance of a task, in one object."""

from typing import TYPE_CHECKING

from linearize.later import offered

if TYPE_CHECKING:
    from linearize.objectives.causal_lm import CausalLM as CausalLM
    from linearize.objectives.classify import Classify as Classify
    from linearize.objectives.distances import DISTANCES as DISTANCES
    from linearize.objectives.distances import Distance as Distance
    from linearize.objectives.metric import ACCURACY as ACCURACY
    from linearize.objectives.metric import PERPLEXITY as PERPLEXITY
    from linearize.objectives.metric import SQUARED_ERROR as SQUARED_ERROR
    from linearize.objectives.metric import Control as Control
    from linearize.objectives.metric import Metric as Metric
    from linearize.objectives.objective import Objective as Objective
    from linearize.objectives.objective import Targets as Targets
    from linearize.objectives.readout import columns as columns
    from linearize.objectives.seq2seq import Seq2Seq as Seq2Seq
    from linearize.objectives.squared import Squared as Squared

__getattr__ = offered(
    __name__,
    {
        "CausalLM": "causal_lm",
        "Classify": "classify",
        **dict.fromkeys(("DISTANCES", "Distance"), "distances"),
        **dict.fromkeys(("ACCURACY", "PERPLEXITY", "SQUARED_ERROR", "Control", "Metric"), "metric"),
        **dict.fromkeys(("Objective", "Targets"), "objective"),
        "columns": "readout",
        "Seq2Seq": "seq2seq",
        "Squared": "squared",
    },
)
