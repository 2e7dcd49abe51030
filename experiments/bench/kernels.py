"""The empirical NTK beside neural-tangents: the same functions, weights and inputs on both sides.

The rival runs in its own environment (:mod:`experiments.bench.rival`), in a process that answers
when it is asked, so that the two are timed in turns; memory is that of a process each. Without
``LINEARIZE_NT_PYTHON``, the path of its Python, only our own numbers are told.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.bench import kernel_models, measure, memory
from experiments.bench.measure import Row
from experiments.bench.workload import Size
from linearize import ntk, tree

CASE = "kernel"
RIVAL = "LINEARIZE_NT_PYTHON"
MEMORY_RUNS = 3
AGREEMENT = 1e-5

Ask = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """A full kernel of ``n`` examples with themselves, or with as many others.

    Attributes:
        name: for the table.
        network: a function of :mod:`experiments.bench.kernel_models`.
        options: its arguments.
        n: examples a side.
        memory: the goal for the ratio of memories, or none.
        two: whether the second side has examples of its own.
        rivals: the implementations of neural-tangents that are tried.
    """

    name: str
    network: str
    options: Mapping[str, Any]
    n: int
    memory: float | None = 0.5
    two: bool = False
    rivals: tuple[str, ...] = ("jacobian", "structured")

    def request(self, **more: Any) -> dict[str, Any]:
        """What either side has to know, as JSON."""
        return asdict(self) | more


CASES: dict[str, tuple[Case, ...]] = {
    "full": (
        Case("CNN, 32 px, 64 x 64", "cnn", {"side": 32}, 64),
        Case("ViT, 32 px, 64 x 64", "vit", {"side": 32}, 64),
        Case("CNN, 64 px, 16 x 16", "cnn", {"side": 64}, 16),
        Case("ViT, 64 px, 16 x 16", "vit", {"side": 64}, 16),
        Case("MLP, 3 x 1024, 32 x 32", "mlp", {"width": 1024, "depth": 3}, 32, memory=None),
    ),
    "tiny": (
        Case("CNN, 8 px, 3 x 3", "cnn", {"side": 8, "widths": [4, 4]}, 3),
        Case("MLP, 2 x 8, 3 x 3", "mlp", {"width": 8, "depth": 2}, 3, memory=None, two=True),
    ),
}
"""NTK-vector products are not among the rivals: in NUMERICS' table they take 7 to 20 times as long
as the other two, and 14.4 GB for the first case."""


def rows(size: Size) -> list[Row]:
    """Agreement, ratio of times and ratio of memories, case by case."""
    return [row for case in CASES[size.kernels] for row in _rows(case, size.repeats)]


def _rows(case: Case, repeats: int) -> list[Row]:
    ours = kernel_call(case)
    python = os.environ.get(RIVAL)
    if python is None:
        return _alone(case, ours, repeats)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        asks, seconds = {}, {}
        for name in case.rivals:
            ask = asks[name] = stack.enter_context(_process(python, "rival"))
            ask(case.request(do="prepare", implementation=name, out=str(folder / f"{name}.npy")))
            seconds[name] = min(ask({"do": "run"})["seconds"] for _ in range(2))
        best = min(seconds, key=lambda name: seconds[name])
        found, expected = ours(), np.load(folder / f"{best}.npy")
        times = measure.in_turns(ours, lambda: asks[best]({"do": "run"}), repeats)
    others = ", ".join(f"{name} {seconds[name]:.3g} s" for name in case.rivals)
    first, second = times.medians
    out = [
        Row(
            CASE,
            f"{case.name}: largest difference to neural-tangents",
            float(np.abs(found - expected).max() / np.abs(expected).max()),
            "",
            ("<=", AGREEMENT),
            note="of the largest entry, float32",
        ),
        Row(
            CASE,
            f"{case.name}: time, ours / neural-tangents",
            times.ratio,
            "x",
            ("<=", 1.0),
            times.spread,
            f"{first:.3f} s / {second:.3f} s; full kernel, C = {found.shape[-1]}, compiled before; "
            f"its best is {best} ({others})",
        ),
    ]
    return out + (_memory(case, python, best) if memory.available() else [])


def _alone(case: Case, ours: Callable[[], np.ndarray], repeats: int) -> list[Row]:
    implementations = [kernel_call(case, name)() for name in ("jacobian", "structured")]
    scale = np.abs(implementations[0]).max()
    times = measure.in_turns(ours, ours, repeats)
    return [
        Row(
            CASE,
            f"{case.name}: largest difference between our implementations",
            float(np.abs(implementations[0] - implementations[1]).max() / scale),
            "",
            ("<=", AGREEMENT),
            note=f"{times.medians[0]:.3f} s a kernel; neural-tangents was not run: {RIVAL} does "
            "not name its Python (experiments/bench/rival.py)",
        )
    ]


def _memory(case: Case, python: str, best: str) -> list[Row]:
    with _process(python, "rival") as ask:
        theirs = ask(case.request(do="memory", implementation=best, steps=MEMORY_RUNS))
    with _process(sys.executable, "kernels") as ask:
        ours = ask(case.request(steps=MEMORY_RUNS))
    mega = 1e6
    return [
        Row(
            CASE,
            f"{case.name}: memory, ours / neural-tangents",
            ours["extra"] / theirs["extra"],
            "x",
            None if case.memory is None else ("<=", case.memory),
            None,
            f"{ours['extra'] / mega:.0f} MB / {theirs['extra'] / mega:.0f} MB ({best}): peak "
            "resident memory in steady state less that after import, each in its own process",
        )
    ]


def kernel_call(case: Case, implementation: Any = "auto") -> Callable[[], np.ndarray]:
    """Our kernel of a case, as a call; what it compiles is kept between calls."""
    build: Callable[..., kernel_models.Network] = getattr(kernel_models, case.network)
    network = build(**case.options)
    params = kernel_models.cast(network.params, jnp.float32)
    tree.check_finite(params, what=case.name)
    x1 = network.draw(case.n, 0).astype(np.float32)
    x2 = network.draw(case.n, 1).astype(np.float32) if case.two else None
    return lambda: ntk.kernel(network.f, params, x1, x2, implementation=implementation)


@contextmanager
def _process(python: str, module: str) -> Iterator[Ask]:
    """A module of this package in another process, which answers JSON with JSON."""
    root = Path(__file__).parents[2]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [python, "-m", f"experiments.bench.{module}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=root,
            env=os.environ | {"PYTHONPATH": str(root), "TF_CPP_MIN_LOG_LEVEL": "3"},
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None

        def ask(request: dict[str, Any]) -> dict[str, Any]:
            print(json.dumps(request), file=process.stdin, flush=True)
            answer = process.stdout.readline()  # type: ignore[union-attr]
            if not answer:
                errors.seek(0)
                raise RuntimeError(f"experiments.bench.{module} failed:\n{errors.read()[-4000:]}")
            return json.loads(answer)

        try:
            yield ask
        finally:
            process.stdin.close()


def main(request: dict[str, Any]) -> dict[str, float]:
    """Steady-state memory of our kernel, in a process that has done nothing else."""
    fields = Case.__dataclass_fields__
    case = Case(**{name: value for name, value in request.items() if name in fields})
    return memory.steady_peak(lambda: kernel_call(case), request["steps"])


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.stdin.readline()))))
