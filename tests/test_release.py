"""What belongs to a release says one version, and nothing that is not so."""

import re
import tomllib
from importlib.metadata import version as installed
from pathlib import Path

import pytest

import linearize as lz
from linearize.command import main

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_every_file_says_the_same_version(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out == f"linearize {lz.__version__}\n"
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text("utf-8"), re.MULTILINE)
    assert cited is not None
    assert cited[1] == lz.__version__
    assert installed("linearize") == lz.__version__


def test_the_changelog_begins_with_what_is_not_released() -> None:
    versions = re.findall(r"^## \[?([^\]\s]+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert versions[0] == "Unreleased"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in versions[1:])


def test_the_pythons_that_are_named_are_those_that_are_taken() -> None:
    low, high = map(int, re.findall(r"3\.(\d+)", PROJECT["requires-python"]))
    prefix = "Programming Language :: Python :: 3."
    named = [c.removeprefix(prefix) for c in PROJECT["classifiers"] if c.startswith(prefix)]
    assert named == [str(minor) for minor in range(low, high)]


def test_every_dependency_has_an_upper_bound() -> None:
    extras = PROJECT["optional-dependencies"]
    users = [extras[name] for name in extras if name != "dev"]
    wanted = [each for some in (PROJECT["dependencies"], *users) for each in some]
    assert [each for each in wanted if "<" not in each and "==" not in each] == []
