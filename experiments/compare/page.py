"""The page of ``experiments.compare``: the library's own."""

from linearize.report.compare import read as read
