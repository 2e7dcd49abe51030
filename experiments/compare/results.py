"""What a run of ``experiments.compare`` measures: what :func:`linearize.compare` does."""

from linearize.report.compare.results import Results as Results
