"""Linear fine-tuning to its optimum, as a method.

The directory of a vector is that of any fine-tuning (:mod:`linearize.train.rundir`): a finished one
is reused, one that was killed is begun again.
"""

import dataclasses
import logging
import time
from pathlib import Path
from typing import Any

import jax

from linearize import identity, io, ntk, tree
from linearize.models.heads import Head
from linearize.objectives import Classify
from linearize.objectives.readout import Readout, as_readout
from linearize.study import Method, Study
from linearize.task_vector import TaskVector
from linearize.train.identity import data_fingerprint
from linearize.train.rundir import open_run
from linearize.types import Apply

log = logging.getLogger(__name__)


def fine_tune_exactly(study: Study, task: str) -> TaskVector:
    """One task's vector at the optimum of linear fine-tuning under its frozen head.

    Raises:
        ValueError: the study has no recipe for it, or the objective is not classification, or has
            smoothing.
        NotConvergedError: the solver did not come to its tolerance.
        RunMismatchError: its directory holds another vector, such as one under another head.
        UnidentifiedError: nothing says what f or the readout computes, and there is a directory.
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
    model, readout = study.model, objective.readout
    functions = {"f": identity.of(model.f, model.params, *examples.alone, derivative=True)}
    if readout is not None and not _before_readouts(path, readout):
        outputs = jax.eval_shape(model.f, model.params, *examples.alone)
        functions["readout"] = _identity_of(readout, outputs)
    decided_by: dict[str, Any] = {
        "config": solve,
        "regime": "exact",
        "base": tree.fingerprint(model.params),
        "data": data_fingerprint(examples.arrays()),
        "trainable": study.trainable,
        "functions": functions,
        "arrays": tree.fingerprint(readout),
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


def _identity_of(readout: Readout, outputs: Any) -> str:
    """Of what it computes; its arrays are noted beside it."""
    read: Apply = as_readout(readout)
    return identity.stated(read) or identity.of(read, outputs, derivative=True)


def _before_readouts(path: Path, readout: Readout) -> bool:
    """Whether a vector under a head is there, of a version that noted the head's arrays alone."""
    try:
        there = io.read_json(path / "config.json")["identity"]["functions"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if "readout" in there or not isinstance(readout, Head):
        return False
    log.warning(
        "%s is of an earlier version, which did not note whether the head normalises; it is taken "
        "for one of this head. If that was another, choose another directory",
        path,
    )
    return True


EXACT = Method(
    "exact",
    "Exact linear",
    "tangent",
    fine_tune_exactly,
    about="The optimum of linear fine-tuning, of cross-entropy and a squared norm, by Newton’s "
    "method.",
)
"""The optimum of linear fine-tuning, by Newton's method."""
