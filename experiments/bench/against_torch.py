"""The same step in torch, beside ours: time in turns, memory in a process of its own."""

import dataclasses
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import measure, memory, torch_models
from experiments.bench.measure import Goal, Row
from experiments.bench.step import operations
from experiments.bench.workload import OPTIM, Size, Workload, displacement, train_step, workload
from linearize import taylor
from linearize.compiled import jit

CASE = "torch"
OURS: dict[str, Any] = {"scan": True, "remat": "dots"}
"""The form of our model that is compared: scanned blocks, matrix products kept."""

MEMORY_STEPS = 3


@dataclasses.dataclass(frozen=True)
class Contest:
    """One step of ours beside torch's.

    Attributes:
        case: of the rows.
        size: which model and batch.
        options: further arguments of :func:`linearize.models.load`.
        step: what the rows call it.
        regime: ``"linear"`` or ``"nonlinear"``.
        time: the largest ratio of times that is wanted, if any.
        memory: likewise of memories.
    """

    case: str
    size: Size
    options: Mapping[str, Any]
    step: str = "a step"
    regime: str = "linear"
    time: float | None = 0.6
    memory: float | None = 0.6

    @property
    def pixels(self) -> str:
        """The end of a row's name."""
        return f"{self.size.image_size} px"

    def workload(self) -> Workload:
        """Ours."""
        return workload(self.size, **self.options)

    def torch_arguments(self, ours: Workload) -> dict[str, Any]:
        """Arguments of :class:`experiments.bench.torch_step.Step`, weights apart."""
        return {
            "model": torch_models.TWINS[self.size.model].model,
            "shape": torch_models.shape(self.size),
            "temperature": float(ours.head.scale),
            "learning_rate": OPTIM.lr,
            "regime": self.regime,
        }


def rows(size: Size) -> list[Row]:
    """Parity, ratio of times, ratio of memories; at both image sizes."""
    sizes = {size.image_size: size.repeats}
    sizes.setdefault(size.large_image_size, max(2, size.repeats // 3))
    out = []
    for image_size, repeats in sizes.items():
        here = dataclasses.replace(size, image_size=image_size, repeats=repeats)
        contest = Contest(CASE, here, OURS)
        ours = contest.workload()
        theirs = torch_twin(contest, ours)
        out += [parity(contest, ours, theirs), *time_rows(contest, ours, theirs)]
        out += memory_rows(contest, ours, [OURS])
    return out


def torch_twin(contest: Contest, ours: Workload) -> Any:
    """A :class:`experiments.bench.torch_step.Step` at the same weights."""
    from experiments.bench import torch_step

    weights = torch_models.weights(ours.backbone.params, contest.size)
    return torch_step.Step(weights=weights | head_arrays(ours), **contest.torch_arguments(ours))


def parity(contest: Contest, ours: Workload, theirs: Any) -> Row:
    """The largest difference of features in the linear regime, at a random τ."""
    params0 = ours.backbone.params
    tau = displacement(params0, seed=0)
    theirs.begin(torch_models.weights(tau, contest.size))
    expected = theirs.features(np.asarray(ours.images))
    got = jax.jit(taylor.tangent(ours.backbone.f))(params0, tau, ours.images)
    error = float(np.abs(np.asarray(got) - expected).max() / np.abs(expected).max())
    return Row(
        contest.case,
        f"largest difference of f_lin to torch's, {contest.pixels}",
        error,
        "",
        ("<=", 1e-4),
        None,
        "f0 + J tau at a random tau, relative to the largest feature; the same weights and images",
    )


def time_rows(contest: Contest, ours: Workload, theirs: Any) -> list[Row]:
    """Steps in turns, and the least that their ratio can be."""
    from experiments.bench import torch_step

    size = contest.size
    images, labels = np.asarray(ours.images), np.asarray(ours.labels)
    theirs.begin()
    step = train_step(ours, contest.regime)
    times = measure.in_turns(step, lambda: theirs(images, labels), size.repeats)
    rate, own = torch_step.matmul_rate(), matmul_rate()
    least = operations(step) / rate
    how = torch_models.TWINS[size.model].about
    how += ", AdamW(fused)" if contest.regime == "nonlinear" else " + torch.func.jvp, AdamW(fused)"
    return [
        Row(
            contest.case,
            f"time of {contest.step}, ours / torch, {contest.pixels}",
            times.ratio,
            "x",
            _at_most(contest.time),
            times.spread,
            f"{times.medians[0]:.3f} s / {times.medians[1]:.3f} s; {torch_models.tokens(size)} "
            f"tokens, batch {size.batch}; {how}, clipping, all cores; one process, in turns",
        ),
        Row(
            contest.case,
            f"least that this ratio can be, {contest.pixels}",
            least / times.medians[1],
            "x",
            note=f"the step's matrix products at torch's own best rate, {rate / 1e9:.0f} GFLOP/s, "
            "and nothing else",
        ),
        Row(
            contest.case,
            f"time of {contest.step} / least of its matrix products, {contest.pixels}",
            times.medians[0] * max(rate, own) / operations(step),
            "x",
            ("<=", 1.3) if contest.regime == "linear" else None,
            note=f"the median above, over its {operations(step) / 1e9:.1f} GFLOP at the best rate "
            f"of a square product in the same process: torch {rate / 1e9:.0f} GFLOP/s, XLA "
            f"{own / 1e9:.0f} GFLOP/s",
        ),
    ]


def matmul_rate(side: int = 1536, repeats: int = 5) -> float:
    """The best of several products of square matrices by XLA, in operations a second."""
    a = jnp.ones((side, side))
    product = jit(jnp.matmul).lower(a, a).compile()
    best = math.inf
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(product(a, a))
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def memory_rows(contest: Contest, ours: Workload, forms: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Steps in processes of their own, one after the other.

    Args:
        contest: its own options do not matter here.
        ours: its workload: weights and batch.
        forms: of our model, as options; the first has the contest's goal.
    """
    if not memory.available():
        return []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "torch.npz")
        batch = {"images": np.asarray(ours.images), "labels": np.asarray(ours.labels)}
        weights = torch_models.weights(ours.backbone.params, contest.size)
        arrays: dict[str, Any] = weights | head_arrays(ours) | batch
        np.savez(path, **arrays)
        del weights, arrays
        torch_side = in_process(
            "torch_step",
            {
                "weights": str(path),
                "step": contest.torch_arguments(ours),
                "threads": os.cpu_count() or 1,
                "steps": MEMORY_STEPS,
            },
        )
    out = []
    for index, form in enumerate(forms):
        known = dataclasses.asdict(dataclasses.replace(contest, options=dict(form)))
        side = in_process("against_torch", {"contest": known, "steps": MEMORY_STEPS})
        which = f", remat={form['remat']!r}" if len(forms) > 1 else ""
        goal = _at_most(contest.memory) if index == 0 else None
        out += _memory_rows(contest, which, goal, side, torch_side)
    return out


def _memory_rows(
    contest: Contest,
    which: str,
    goal: Goal | None,
    ours: Mapping[str, float],
    theirs: Mapping[str, float],
) -> list[Row]:
    state = "tau" if contest.regime == "linear" else "what is trained"
    return [
        Row(
            contest.case,
            f"memory of {contest.step}, ours / torch, {contest.pixels}{which}",
            ours["extra"] / theirs["extra"],
            "x",
            goal,
            None,
            f"{ours['extra'] / 1e6:.0f} MB / {theirs['extra'] / 1e6:.0f} MB: peak resident memory "
            "in steady state less that after import and weights, each in its own process; "
            f"{state} and two moments included",
        ),
        Row(
            contest.case,
            f"whole resident peak, ours / torch, {contest.pixels}{which}",
            ours["peak"] / theirs["peak"],
            "x",
            note=f"{ours['peak'] / 1e6:.0f} MB / {theirs['peak'] / 1e6:.0f} MB, "
            "framework and weights included",
        ),
    ]


def _at_most(bound: float | None) -> Goal | None:
    return None if bound is None else ("<=", bound)


def in_process(module: str, request: Mapping[str, Any]) -> dict[str, float]:
    """What ``python -m experiments.bench.MODULE`` answers to a request, both as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.bench.{module}"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    if done.returncode:
        raise RuntimeError(f"experiments.bench.{module} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def head_arrays(workload: Workload) -> dict[str, np.ndarray]:
    """The frozen head as the torch step wants it."""
    return {
        "head/center": np.asarray(workload.head.center),
        "head/kernel": np.asarray(workload.head.kernel),
    }


def main(request: Mapping[str, Any]) -> dict[str, float]:
    """Steady-state memory of our step, in a process that has done nothing else."""
    contest = Contest(**request["contest"] | {"size": Size(**request["contest"]["size"])})
    ours = contest.workload()

    def begin() -> Callable[[], object]:
        step = train_step(ours, contest.regime)
        return lambda: jax.block_until_ready(step())

    return memory.steady_peak(begin, request["steps"])


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
