"""Each tutorial runs as it is written, and prints what its page says."""

import re
import runpy
import sys
from pathlib import Path
from unittest import mock

import matplotlib.pyplot as plt
import pytest

import linearize as lz
from linearize import data

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]

TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorials"
NUMBER = re.compile(r"\d[\d.,]*(?:e[-+]?\d+)?")


def without_numbers(text: str) -> list[str]:
    """Words alone: what is measured differs a little from one machine to another."""
    return [NUMBER.sub("#", " ".join(line.split())) for line in text.splitlines()]


@pytest.mark.parametrize(
    "name",
    [
        "three_regimes",
        "error_maps",
        "methods_and_merges",
        "several_hosts",
        pytest.param("kernel", marks=pytest.mark.network),
    ],
)
def test_a_tutorial_runs_and_prints_what_its_page_says(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if name == "kernel":
        data.prefetch(["digits"], 16)
    monkeypatch.setattr(sys, "argv", [name, str(tmp_path)])
    with mock.patch.dict(lz.METHODS), mock.patch.dict(lz.MERGES):
        seen = runpy.run_path(str(TUTORIALS / f"{name}.py"), run_name="__main__")
    plt.close("all")
    printed = (TUTORIALS / f"{name}.txt").read_text("utf-8")
    assert without_numbers(capsys.readouterr().out) == without_numbers(printed)
    if f"]({name}.png)" in (TUTORIALS / f"{name}.py").read_text("utf-8"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
    CHECKS[name](seen)


def check_three_regimes(seen: dict) -> None:
    found = seen["found"]
    assert found.single["linear"].mean() > found.pretrained.mean() + 0.1
    assert found.addition["linear"].accuracy.mean() > found.pretrained.mean()


def check_error_maps(seen: dict) -> None:
    maps = seen["maps"]
    assert maps["linear"].total.mean() < 0.5
    assert maps["linear"].passes < maps["nonlinear"].passes / 10


def check_methods_and_merges(seen: dict) -> None:
    found = seen["found"]
    assert {"median_linear", "ties_tau_jp", "head_only"} <= set(found.addition)
    assert all(found.single[method].mean() > 0.8 for method in ("linear", "tau_jp"))


def check_several_hosts(seen: dict) -> None:
    one, two = (tau.delta for tau in seen["taus"].values())
    assert all((one[name] == two[name]).all() for name in one)


def check_kernel(seen: dict) -> None:
    accuracy = (seen["predicted"].argmax(1) == seen["y_test"]).mean()
    assert accuracy > 0.6  # of ten digits, from 200 examples
    assert abs(seen["linear"] - seen["predicted"]).max() < 1e-2  # of logits of order 10


CHECKS = {
    "three_regimes": check_three_regimes,
    "error_maps": check_error_maps,
    "methods_and_merges": check_methods_and_merges,
    "several_hosts": check_several_hosts,
    "kernel": check_kernel,
}


def test_every_tutorial_is_run() -> None:
    assert set(CHECKS) == {path.stem for path in TUTORIALS.glob("*.py")}
