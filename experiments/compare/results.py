"""What a run of ``experiments.compare`` measures: the library's own."""

from linearize.report.compare.results import PairMap as PairMap
from linearize.report.compare.results import Results as Results
