"""Pages want result files and no framework: they are drawn where none can be imported."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments import listed

ROOT = Path(__file__).parents[2]
ABSENT = ("jax", "flax", "optax", "orbax", "tensorflow_datasets", "torch")


def without_frameworks(script: str, *arguments: object) -> None:
    """Run a script in a process that finds none of them."""
    head = f"import sys; sys.modules.update(dict.fromkeys({ABSENT}))\n"
    command = [sys.executable, "-c", head + script, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_page_is_imported() -> None:
    script = "import importlib\nfor name in sys.argv[1:]:\n    importlib.import_module(name)"
    without_frameworks(script, *(f"experiments.{name}.page" for name in listed()))


@pytest.mark.slow
def test_every_page_is_drawn(debug_run: Callable[[str], Path], tmp_path: Path) -> None:
    drawn = {name: tmp_path / name for name in listed()}
    for name, run_dir in drawn.items():
        shutil.copytree(debug_run(name), run_dir)
        (run_dir / "report.html").unlink()
    script = (
        "from experiments import report\nfrom linearize.report import drawn\n"
        "drawn._png = lambda figure: b''\n"
        "for run in sys.argv[1:]:\n    report.write_all(run)"
    )  # the page has no bitmaps
    without_frameworks(script, *drawn.values())
    for name, run_dir in drawn.items():
        page = (run_dir / "report.html").read_bytes()
        assert page == (debug_run(name) / "report.html").read_bytes(), name
