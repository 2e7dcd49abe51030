"""Eight virtual devices, no silent broadcasting between ranks, one compilation cache, `slow`."""

import atexit
import os
import shutil
import tempfile

import pytest

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# The workers of pytest-xdist and the processes that tests start inherit the environment: what one
# has compiled, the others read.
if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
    _compiled = tempfile.mkdtemp(prefix="linearize-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    atexit.register(shutil.rmtree, _compiled, ignore_errors=True)

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is ``slow``, unless ``-m`` asks for it or a test is named, ``file::test``."""
    if config.option.markexpr:
        return
    files_and_tests = [argument.split("::", 1) for argument in config.args if "::" in argument]
    named = [
        (config.invocation_params.dir.joinpath(file).resolve(), test.split("[")[0])
        for file, test in files_and_tests
    ]

    def left_out(item: pytest.Item) -> bool:
        test = item.nodeid.partition("::")[2]
        is_named = any(item.path == file and test.startswith(name) for file, name in named)
        return "slow" in item.keywords and not is_named

    config.hook.pytest_deselected(items=[item for item in items if left_out(item)])
    items[:] = [item for item in items if not left_out(item)]
