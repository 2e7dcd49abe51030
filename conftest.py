"""Eight virtual devices, no silent broadcasting between ranks, one compilation cache, `slow`."""

import atexit
import os
import shutil
import sys
import tempfile
from typing import Any

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


MAY_SKIP = {
    "root may write anywhere": True,
    "network namespaces": True,
    "'torch'": sys.version_info >= (3, 12),
}
"""What a reason to skip may hold where CI=true, and whether it may; any other fails there."""


def _not_skipped(report: Any) -> Any:
    """The report, failed where a test that CI has to run has skipped itself."""
    if not report.skipped or hasattr(report, "wasxfail") or os.environ.get("CI") != "true":
        return report
    *_, reason = report.longrepr
    if not any(may and words in reason for words, may in MAY_SKIP.items()):
        report.outcome, report.longrepr = "failed", f"where CI=true this must not skip: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """A ``network`` test that cannot fetch skips itself; in CI no test skips for want of anything.

    Where a test without the mark fetches, it fails: marks are exact.
    """
    from linearize.assets import ClientMissingError, RegistryError

    report = yield
    error = call.excinfo and call.excinfo.value
    if isinstance(error, ClientMissingError | RegistryError) and "network" in item.keywords:
        path, line, _ = item.location
        report.outcome, report.longrepr = "skipped", (path, line or 0, f"Skipped: {error}")
    return _not_skipped(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Any:
    """Nor does a file."""
    return _not_skipped((yield))


def pytest_itemcollected(item: pytest.Item) -> None:
    """``slow(but=[...])`` over a matrix leaves its members of these ids unmarked."""
    for mark in list(item.own_markers):
        if mark.name == "slow" and _id(item) in mark.kwargs.get("but", ()):
            item.own_markers.remove(mark)


def _id(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[2].removesuffix("]")


def _check_ids(items: list[pytest.Item]) -> None:
    """Each test that is slow but for some members has these members."""
    found: dict[str, set[str]] = {}
    for item in items:
        found.setdefault(item.nodeid.partition("[")[0], set()).add(_id(item))
    for item in items:
        for mark in item.iter_markers("slow"):
            test = item.nodeid.partition("[")[0]
            if absent := set(mark.kwargs.get("but", ())) - found[test]:
                raise pytest.UsageError(f"{test} is slow but for {sorted(absent)}: no such ids")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Any:
    """Leave out what is ``slow``, unless ``-m`` asks for it or a test is named, ``file::test``."""
    if not any("[" in argument for argument in config.args):
        _check_ids(items)
    yield
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
        return item.get_closest_marker("slow") is not None and not is_named

    config.hook.pytest_deselected(items=[item for item in items if left_out(item)])
    items[:] = [item for item in items if not left_out(item)]
