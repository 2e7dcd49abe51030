"""Presets of ``experiments.ensembling``."""

from configs import compare, shared
from experiments.ensembling.config import EnsemblingConfig


def debug() -> EnsemblingConfig:
    """Seconds: a small random network and three toy tasks.

    python -m experiments.ensembling debug
    """
    return shared.analysis(EnsemblingConfig, shared.small())


def packaged() -> EnsemblingConfig:
    """The 28 pairs of the eight packaged tasks, and three seeds of each.

    python -m experiments.ensembling packaged --vectors runs/compare/packaged8

    Accuracy in % on one of two tasks, mean of pairs ± 95 % t interval, averaged weights and
    ensemble: 75.5 ± 2.3 and 74.4 ± 2.9 (non-linear), 69.1 ± 6.4 and 69.2 ± 3.3 (post-hoc),
    77.5 ± 2.0 and 74.6 ± 2.0 (linear). About 12 minutes on two cores on a busy machine.
    """
    return shared.analysis(EnsemblingConfig, compare.packaged8(), validation=100, test=200)


PRESETS = {"debug": debug, "packaged": packaged, **shared.papers(EnsemblingConfig)}
