"""What training reached in each regime, beside the optimum of linear fine-tuning."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from linearize import evaluate, io, ntk
from linearize.config import CompareConfig
from linearize.methods import EXACT, LINEAR, NONLINEAR
from linearize.objectives import Classify
from linearize.study import Method, Study

Rows = dict[str, list[float]]


def training(study: Study, config: CompareConfig) -> dict[str, Rows]:
    """What training took and reached, a number a task: on the whole training split, α = 1.

    ``loss`` is the mean cross-entropy in the regime that trained the vector. In the linear regime
    ``objective`` and ``gradient_norm`` are those of the exact solver's objective, its optimum's
    and AdamW's alike.
    """
    found = {}
    for method in (NONLINEAR, LINEAR, EXACT):
        rows = [_row(study, config, method, task) for task in study.names]
        found[method.name] = {key: [row[key] for row in rows] for key in rows[0]}
    return found


def _row(study: Study, config: CompareConfig, method: Method, task: str) -> dict[str, Any]:
    tau, path = study.vectors(method)[task], study.store.path(method.name, task, "done.json")
    assert path is not None
    assert config.exact is not None
    done = io.read_json(path)
    row = {
        "seconds": done["seconds"],
        "steps": done["steps"],
        "norm": float(tau.norm()),
        "cosine": float(tau.cosine(study.vectors(EXACT)[task])),
    }
    examples, objective = study.split(task, "train"), study.alike[task]
    f, params0 = study.model.f, study.model.params
    if method is NONLINEAR:
        outputs = evaluate.outputs(f, tau.apply_to(params0), examples.inputs, study.batch_size)
        targets = {name: jnp.asarray(each) for name, each in examples.targets.items()}
        return row | {"loss": float(np.mean(objective.loss(outputs, targets)))}
    assert isinstance(objective, Classify)
    reached = ntk.linear_objective(
        f,
        params0,
        tau,
        examples.inputs,
        examples.labels,
        readout=objective.readout,
        l2=config.exact.l2,
        batch_size=config.exact.batch_size,
    )
    return row | {
        "loss": reached.loss,
        "objective": reached.objective,
        "gradient_norm": reached.gradient_norm,
    }
