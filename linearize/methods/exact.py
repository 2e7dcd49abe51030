"""Linear fine-tuning to its optimum, as a method.

The directory of a vector is that of any fine-tuning (:mod:`linearize.train.rundir`): a finished one
is reused, one that was killed is begun again.
"""

import dataclasses
import time
from typing import Any

from linearize import identity, io, ntk, tree
from linearize.objectives import Classify
from linearize.study import Method, Study
from linearize.task_vector import TaskVector
from linearize.train.identity import data_fingerprint
from linearize.train.rundir import open_run


def fine_tune_exactly(study: Study, task: str) -> TaskVector:
    """One task's vector at the optimum of linear fine-tuning under its frozen head.

    Raises:
        ValueError: the study has no recipe for it, or the objective is not classification, or has
            smoothing.
        NotConvergedError: the solver did not come to its tolerance.
    """
    config = study.recipe("exact", None)
    if config is None:
        raise ValueError("the study has no recipe for 'exact': recipes={'exact': ExactConfig(...)}")
    examples = study.split(task, "train")
    objectives = study.alike if config.solver == "gauss_newton" else study.objectives
    objective = objectives[task]
    if not isinstance(objective, Classify):
        raise ValueError(
            f"objectives[{task!r}] is {type(objective).__name__}; the exact optimum is of "
            "cross-entropy, so give Classify"
        )
    if objective.smoothing:
        raise ValueError(
            f"objectives[{task!r}] has smoothing={objective.smoothing}, and the exact optimum is "
            "of cross-entropy with the labels; leave out 'exact', or the smoothing"
        )
    solve = dataclasses.asdict(config)
    arguments = {
        "readout": objective.readout,
        "trainable": study.trainable,
        "meta": {"task": task, **study.meta},
        **solve,
    }

    def found() -> ntk.Optimum:
        return ntk.fine_tune_exactly(
            study.model.f, study.model.params, examples.inputs, examples.labels, **arguments
        )

    path = study.store.path("exact", task)
    if path is None:
        return found().tau
    decided_by: dict[str, Any] = {
        "config": solve,
        "regime": "exact",
        "base": tree.fingerprint(study.model.params),
        "data": data_fingerprint(examples.arrays()),
        "trainable": study.trainable,
        "functions": {
            "f": identity.of(study.model.f, study.model.params, *examples.alone, derivative=True)
        },
        "arrays": tree.fingerprint(objective.readout),
    }
    record = {"seed": study.seed, "meta": arguments["meta"], "versions": io.versions()}
    needs = sum(leaf.nbytes for leaf in tree.zeros(study.model.params).values())
    with open_run(path, decided_by, record, needs) as run:
        done = run.finished()
        if done is not None:
            return done[0]
        started = time.perf_counter()
        optimum = found()
        seconds = round(time.perf_counter() - started, 3)
        reached = dataclasses.asdict(optimum.reached)
        facts = {"solver": optimum.solver, "products": optimum.products, **reached}
        run.finish(optimum.tau, {"steps": optimum.iterations, "seconds": seconds, **facts})
        return optimum.tau


EXACT = Method(
    "exact",
    "Exact linear",
    "tangent",
    fine_tune_exactly,
    about="The optimum of linear fine-tuning, of cross-entropy and a squared norm, by Newton’s "
    "method.",
)
"""The optimum of linear fine-tuning, by Newton's method."""
