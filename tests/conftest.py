"""Quick compilation where mathematics is checked; one finished run of each experiment a session."""

import contextlib
import fcntl
import importlib
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import pytest

COMPILED = (
    "models",
    "ntk",
    "test_bench.py",
    "test_compiled.py",
    "test_cost.py",
    "test_disentangle.py",
    "test_readme.py",
)
"""Rooms and files whose subject is what XLA makes of a program, equal bits, or others' numbers."""


@pytest.fixture(scope="module", autouse=True)
def quick_compilation(request: pytest.FixtureRequest) -> Iterator[None]:
    """Without most of XLA's optimizations, which are what these tests' time goes to.

    They check what is computed, in which order and from what, at shapes that need no speed. The
    rooms of ``COMPILED`` are compiled as users' programs are, and so is all that ``-m`` picks: with
    ``-m slow``, each room's larger members.
    """
    place = request.path.relative_to(Path(__file__).parent).parts[0]
    if place in COMPILED or request.config.option.markexpr:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:  # processes that a test starts do as it does
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        jax.config.update("jax_disable_most_optimizations", True)
        yield
        jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def debug_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``debug_run(experiment)``: the directory of its ``debug`` preset's run, not to be changed."""
    from configs import PRESETS
    from linearize.evaluate import kept

    base = tmp_path_factory.getbasetemp()
    runs = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "debug_runs"
    runs.mkdir(exist_ok=True)
    place = kept.terms_path

    def run(experiment: str) -> Path:
        run_dir, done = runs / experiment, runs / f"{experiment}.done"
        with (runs / f"{experiment}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                module = importlib.import_module(f"experiments.{experiment}")
                with (
                    pytest.MonkeyPatch.context() as patch
                ):  # kept beside the runs, not in the cache
                    patch.setattr(kept, "terms_path", lambda *a: runs / "terms" / place(*a).name)
                    module.run(PRESETS[experiment]["debug"](), run_dir, "debug")
                done.touch()
        return run_dir

    return run


@pytest.fixture
def largest_file() -> Callable[[int], contextlib.AbstractContextManager[None]]:
    """A context in which no file may grow beyond so many bytes, as on a full disk."""

    @contextlib.contextmanager
    def limited(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited
