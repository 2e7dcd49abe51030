"""The kernel tutorial runs as it is written."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from linearize import data

pytestmark = pytest.mark.network

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorials" / "kernel.py"


@pytest.mark.slow
def test_the_tutorial_runs_and_its_numbers_make_sense(tmp_path):
    data.prefetch(["digits"], 16)
    ran = subprocess.run(
        [sys.executable, "-W", "error", TUTORIAL, tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    said = re.search(r"kernel prediction: ([0-9.]+)%", ran.stdout)
    assert said is not None
    assert float(said[1]) > 60  # of ten digits, from 200 examples
    gap = re.search(r"logits differ by ([0-9.e+-]+)", ran.stdout)
    assert gap is not None
    assert float(gap[1]) < 1e-2  # of logits of order 10
    assert (tmp_path / "kernel.png").stat().st_size > 10_000
