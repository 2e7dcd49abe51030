"""How far labelled examples of a target help, from θ0 and from the model that analogy edits."""

import logging

from experiments.analogies.config import AnalogiesConfig
from linearize import evaluate
from linearize.methods import NONLINEAR, fine_tuning
from linearize.study import Study
from linearize.study.store import Record
from linearize.task_vector import TaskVector
from linearize.types import Params

log = logging.getLogger(__name__)


def of(config: AnalogiesConfig, study: Study, target: str, tau: TaskVector) -> Record:
    """Test accuracy by number of the target's labelled examples, from θ0 and from θ0 + τ."""
    starts = {"pretrained": study.model.params, "edited": tau.apply_to(study.model.params)}
    return {
        name: [
            learned(config, study, target, start, count, f"{name}_{count}")
            for count in (0, *config.examples)
        ]
        for name, start in starts.items()
    }


def learned(
    config: AnalogiesConfig, study: Study, target: str, start: Params, count: int, name: str
) -> float:
    """Test accuracy after fine-tuning on the target's first training examples."""
    objective, test = study.alike[target], study.split(target, "test")
    if count:
        rows = study.split(target, "train").take(slice(count))
        log.info("seed %d: %d examples of %s", study.seed, len(rows), target)
        start = fine_tuning.run(
            study,
            rows.arrays(),
            config.curve,
            ("curve", name, target),
            {"task": target},
            start=start,
            regime=NONLINEAR.name,
            **objective.training(),
        ).tau.apply_to(start)
    outputs = evaluate.outputs(study.model.f, start, test.inputs, study.batch_size)
    return objective.measure(outputs, test.targets)[objective.primary.name]
