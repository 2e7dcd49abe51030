"""What packages offer when it is asked for is what type checkers are told of."""

import ast
import importlib
from pathlib import Path

import pytest

import linearize as lz


@pytest.mark.parametrize("package", ["linearize", "linearize.report", "linearize.objectives"])
def test_what_type_checkers_are_told_of_is_there(package: str) -> None:
    module = importlib.import_module(package)
    (told,) = (
        e for e in ast.parse(Path(module.__file__).read_text()).body if isinstance(e, ast.If)
    )
    imports = [each for each in told.body if isinstance(each, ast.ImportFrom)]
    assert len(imports) == len(told.body) > 5
    for each in imports:
        (name,) = (alias.name for alias in each.names)
        assert getattr(module, name) is getattr(importlib.import_module(each.module), name)


def test_modules_are_there_without_an_import_of_their_own() -> None:
    assert lz.train.fine_tune.__module__.startswith("linearize.train")
    assert lz.models.heads.Head.__name__ == "Head"


@pytest.mark.parametrize("name", ["nothing", "_taylor", "__wrapped__"])
def test_what_is_not_offered_is_no_attribute(name: str) -> None:
    with pytest.raises(AttributeError, match=f"module 'linearize' has no attribute '{name}'"):
        getattr(lz, name)
