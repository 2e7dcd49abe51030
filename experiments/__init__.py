"""The experiments: one folder each, of what it is told, what it measures, its results, its page."""

import pkgutil
from pathlib import Path


def listed() -> tuple[str, ...]:
    """Their names: the folders that have a page."""
    here = Path(__path__[0])
    folders = (each.name for each in pkgutil.iter_modules(__path__) if each.ispkg)
    return tuple(name for name in folders if (here / name / "page.py").exists())
