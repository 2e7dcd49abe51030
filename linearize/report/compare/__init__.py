"""The report of the main job: what is special to three regimes of task arithmetic."""

from typing import TYPE_CHECKING

from linearize.later import offered

if TYPE_CHECKING:
    from linearize.report.compare.page import read as read

__getattr__ = offered(__name__, {"read": "page"})
