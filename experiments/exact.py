"""Exact linear fine-tuning as a regime, and what training reached in each of them.

The directory of a vector is that of any fine-tuning (:mod:`linearize.train.rundir`): a finished one
is reused, one that was killed is begun again.
"""

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.protocol import Regime, Setting
from linearize import config as configuration
from linearize import evaluate, identity, io, ntk, tree
from linearize.config import ExactConfig
from linearize.models.heads import apply_head
from linearize.task_vector import TaskVector
from linearize.train import losses
from linearize.train.rundir import data_fingerprint, open_run

Rows = dict[str, list[float]]


def task_vectors(setting: Setting, config: ExactConfig, run_dir: Path) -> dict[str, TaskVector]:
    """Every task's optimum; vectors that a finished run left are reused."""
    return {
        name: fine_tune(setting, config, name, run_dir / "exact" / name) for name in setting.names
    }


def fine_tune(setting: Setting, config: ExactConfig, task: str, run_dir: Path) -> TaskVector:
    """One task's vector at the optimum of linear fine-tuning under its frozen head."""
    split = setting.split(task, "train")
    heads = setting.padded if config.solver == "gauss_newton" else setting.heads
    example = jax.ShapeDtypeStruct((1, *split.images.shape[1:]), split.images.dtype)
    decided_by = {
        "config": dataclasses.asdict(config),
        "regime": "exact",
        "base": tree.fingerprint(setting.params0),
        "data": data_fingerprint({"inputs": split.images, "labels": split.labels}),
        "trainable": setting.config.trainable,
        "functions": {"f": identity.of(setting.f, setting.params0, example, derivative=True)},
        "arrays": tree.fingerprint(heads[task]),
    }
    meta = {"task": task, "config": configuration.to_dict(setting.config)}
    needs = sum(leaf.nbytes for leaf in tree.zeros(setting.params0).values())
    record = {"seed": setting.seed, "meta": meta, "versions": io.versions()}
    with open_run(run_dir, decided_by, record, needs) as run:
        done = run.finished()
        if done is not None:
            return done[0]
        started = time.perf_counter()
        found = ntk.fine_tune_exactly(
            setting.f,
            setting.params0,
            split.images,
            split.labels,
            readout=heads[task],
            trainable=setting.config.trainable,
            meta=meta,
            **dataclasses.asdict(config),
        )
        seconds = round(time.perf_counter() - started, 3)
        reached = dataclasses.asdict(found.reached)
        facts = {"solver": found.solver, "products": found.products, **reached}
        run.finish(found.tau, {"steps": found.iterations, "seconds": seconds, **facts})
        return found.tau


def training(
    setting: Setting, vectors: Mapping[Regime, Mapping[str, TaskVector]], run_dir: Path
) -> dict[Regime, Rows]:
    """What training took and reached, a number a task: on the whole training split, α = 1.

    ``loss`` is the mean cross-entropy in the regime that trained the vector. In the linear regime
    ``objective`` and ``gradient_norm`` are those of the exact solver's objective, its optimum's
    and AdamW's alike.
    """
    found = {}
    for regime in vectors:
        rows = [_row(setting, regime, vectors, task, run_dir) for task in setting.names]
        found[regime] = {key: [row[key] for row in rows] for key in rows[0]}
    return found


def _row(
    setting: Setting,
    regime: Regime,
    vectors: Mapping[Regime, Mapping[str, TaskVector]],
    task: str,
    run_dir: Path,
) -> dict[str, float]:
    tau, config = vectors[regime][task], setting.config
    split, head = setting.split(task, "train"), setting.padded[task]
    done = io.read_json(run_dir / regime / task / "done.json")
    row: dict[str, Any] = {
        "seconds": done["seconds"],
        "steps": done["steps"],
        "norm": float(tau.norm()),
        "cosine": float(tau.cosine(vectors["exact"][task])),
    }
    if regime == "nonlinear":
        outputs = evaluate.outputs(
            setting.f, tau.apply_to(setting.params0), split.images, config.batch_size
        )
        logits = apply_head(head, outputs)
        return row | {
            "loss": float(np.mean(losses.cross_entropy(logits, jnp.asarray(split.labels))))
        }
    assert config.exact is not None
    reached = ntk.linear_objective(
        setting.f,
        setting.params0,
        tau,
        split.images,
        split.labels,
        readout=head,
        l2=config.exact.l2,
        batch_size=config.exact.batch_size,
    )
    return row | {
        "loss": reached.loss,
        "objective": reached.objective,
        "gradient_norm": reached.gradient_norm,
    }
