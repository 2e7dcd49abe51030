"""Presets by experiment: functions that return a configuration; docstrings are the notebook."""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

_FILES = {
    file.name: importlib.import_module(f"configs.{file.name}")
    for file in pkgutil.iter_modules(__path__)
}

PRESETS: Mapping[str, Mapping[str, Callable[[], Any]]] = {
    name: file.PRESETS for name, file in _FILES.items() if hasattr(file, "PRESETS")
}
"""All presets, by experiment: one file each."""
