"""The house's floors, as import-linter's contracts in pyproject.toml."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def lint_imports(directory: Path) -> subprocess.CompletedProcess[str]:
    script = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=directory,
        env={"PYTHONPATH": str(directory), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    skip = shutil.ignore_patterns("__pycache__")
    for package in ("linearize", "experiments", "configs"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=skip)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_contracts_hold(copy: Path) -> None:
    result = lint_imports(copy)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("linearize/tree.py", "from linearize import taylor", "a file imports only from"),
        ("linearize/taylor.py", "import experiments", "knows nothing of experiments"),
        ("linearize/report/added.py", "import jax", "the report reads result files"),
        ("linearize/added.py", "", "a file imports only from"),
    ],
)
def test_a_breach_is_found(copy: Path, file: str, line: str, contract: str) -> None:
    path = copy / file
    path.write_text((path.read_text() if path.exists() else "") + f"\n{line}\n")
    result = lint_imports(copy)
    assert result.returncode != 0
    assert contract in result.stdout
    assert "BROKEN" in result.stdout or "missing" in result.stdout


def test_every_breach_between_experiments_is_found(copy: Path) -> None:
    """A folder that is added is known without a word of it in the contracts."""
    breaches = {
        "added/run.py": ("from experiments import width", "experiments.added", "experiments.width"),
        "subsets/run.py": (
            "from experiments.added import run",
            "experiments.subsets",
            "experiments.added",
        ),
        "running.py": ("import experiments.added.run", "experiments.running", "experiments.added"),
        "width/config.py": (
            "from experiments import budget",
            "experiments.width",
            "experiments.budget",
        ),
        "vectors.py": (
            "from experiments.bench import step",
            "experiments.vectors",
            "experiments.bench",
        ),
        "budget.py": (
            "from experiments.bench import step",
            "experiments.budget",
            "experiments.bench",
        ),
        "bench/maps.py": (
            "import experiments.compare.run",
            "experiments.bench",
            "experiments.compare",
        ),
        "added/results.py": ("import flax", "experiments.added.results", "flax"),
        "ensembling/page.py": ("import jax", "experiments.ensembling.page", "jax"),
        "protocol.py": ("import torch", "experiments", "torch"),
    }
    (copy / "experiments" / "added").mkdir()
    (copy / "experiments" / "added" / "__init__.py").touch()
    for file, (line, *_) in breaches.items():
        with (copy / "experiments" / file).open("a") as module:
            module.write(f"\n{line}\n")
    result = lint_imports(copy)
    assert result.returncode != 0
    told = " ".join(result.stdout.split())
    for _, importer, imported in breaches.values():
        assert f"{importer} is not allowed to import {imported}:" in told
