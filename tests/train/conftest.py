"""A small two-layer network on data with structure, in float32."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linearize.train import FineTuned, OptimConfig, TrainConfig, fine_tune


@dataclasses.dataclass
class Problem:
    """A model, its θ0, and labelled data."""

    f: Callable
    params0: dict[str, Any]
    data: dict[str, np.ndarray]

    def run(self, regime: str = "linear", **overrides: Any) -> FineTuned:
        """Fine-tune with a short recipe; ``TrainConfig`` fields and arguments alike."""
        names = {f.name for f in dataclasses.fields(TrainConfig)}
        chosen = {k: overrides.pop(k) for k in list(overrides) if k in names}
        defaults = {
            "optim": OptimConfig(lr=1e-2, weight_decay=0.1, warmup=3),
            "steps": 20,
            "batch_size": 16,
            "log_every": 1,
            "tensorboard": False,
            "checkpoint_every": 5,
        }
        config = TrainConfig(**{**defaults, **chosen})
        arguments = {"data": self.data, "config": config, **overrides}
        return fine_tune(self.f, self.params0, regime=regime, **arguments)


def network(params: dict[str, Any], x: jax.Array) -> jax.Array:
    """``tanh(x W + b) V``, (B, 8) to (B, 4)."""
    hidden = jnp.tanh(x @ params["first"]["kernel"] + params["first"]["bias"][None])
    return hidden @ params["second"]["kernel"]


LONG = {"steps": 480, "steps_per_call": 4, "checkpoint_every": 4, "log_every": 8}
"""A run of a few seconds, most of them spent on its many checkpoints."""


@pytest.fixture(scope="module", autouse=True)
def compiled_quickly(quick_compilation: None) -> None:
    """Most of these tests' time is XLA's, and networks of 200 numbers do not need its best."""


@pytest.fixture(scope="session")
def long() -> dict[str, int]:
    return dict(LONG)


@pytest.fixture(scope="session")
def problem() -> Problem:
    return toy_problem()


def toy_problem() -> Problem:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(50, 8)).astype(np.float32)
    labels = (inputs @ rng.normal(size=(8, 4))).argmax(axis=1).astype(np.int32)
    params0 = {
        "first": {
            "kernel": rng.normal(size=(8, 16)).astype(np.float32) / 3,
            "bias": rng.normal(size=(16,)).astype(np.float32) / 3,
        },
        "second": {"kernel": rng.normal(size=(16, 4)).astype(np.float32) / 4},
    }
    return Problem(network, params0, {"inputs": inputs, "labels": labels})


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "run"
