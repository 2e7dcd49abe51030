"""The report of the auditor: which vectors move which tasks' outputs, and where."""

from typing import TYPE_CHECKING

from linearize.later import offered

if TYPE_CHECKING:
    from linearize.report.audit.page import read as read

__getattr__ = offered(__name__, {"read": "page"})
