"""The report of the main job: what is special to three regimes of task arithmetic."""

from linearize.report.compare.page import read as read
