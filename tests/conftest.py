"""One finished run of each experiment, made once for all tests of a session; a full disk."""

import contextlib
import fcntl
import importlib
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# a command's own folder is for users, not for tests
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", "")


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
                module = importlib.import_module(f"experiments.{experiment}.run")
                # kept beside the runs, not in the cache
                with quickly(), pytest.MonkeyPatch.context() as patch:
                    patch.setattr(kept, "terms_path", lambda *a: runs / "terms" / place(*a).name)
                    module.run(PRESETS[experiment]["debug"](), run_dir, "debug")
                done.touch()
        return run_dir

    return run


NEWER_EMITTER = "xla_cpu_use_fusion_emitters"


@contextlib.contextmanager
def quickly() -> Iterator[None]:
    """Programs that are compiled with few optimizations, also of processes that are started."""
    import jax
    from jax._src import compiler

    if jax.config.read("jax_disable_most_optimizations"):
        yield
        return
    jax.clear_caches()  # such programs round otherwise
    jax.devices()  # XLA reads its flags now, once and for all, before those of other processes
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
            given = os.environ.get("XLA_FLAGS", "")
            patch.setenv("XLA_FLAGS", f"{given} --{NEWER_EMITTER}=false")
            patch.setattr(compiler, "get_compile_options", _cheaply(compiler.get_compile_options))
            yield
    finally:
        jax.config.update("jax_disable_most_optimizations", False)
        jax.clear_caches()


def _cheaply(options: Callable[..., Any]) -> Callable[..., Any]:
    """XLA's options, and that its older emitter writes the loops: in two fifths of the time."""

    def cheap(*args: Any, **given: Any) -> Any:
        told = given.get("env_options_overrides") or {}
        return options(*args, **{**given, "env_options_overrides": {NEWER_EMITTER: False} | told})

    return cheap


@pytest.fixture(scope="module")
def quick_compilation() -> Iterator[None]:
    """:func:`quickly` for a file's tests, of small numbers."""
    with quickly():
        yield


@pytest.fixture
def quick() -> Iterator[None]:
    """The same for one test of a file whose others measure what is compiled."""
    with quickly():
        yield


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
