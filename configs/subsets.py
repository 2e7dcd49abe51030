"""Presets of ``experiments.subsets``."""

from configs import compare, shared
from experiments.subsets.config import SubsetsConfig


def debug() -> SubsetsConfig:
    """Seconds: a small random network and three toy tasks.

    python -m experiments.subsets debug
    """
    return shared.analysis(SubsetsConfig, shared.small(), grid=(0.4, 1.0), sample=2)


def packaged() -> SubsetsConfig:
    """All 255 subsets of the eight packaged tasks, three seeds.

    python -m experiments.subsets packaged --vectors runs/compare/packaged8

    Normalized accuracy in % on the subset's own tasks, ± 95 % t interval: pairs 90.1 ± 3.0
    (non-linear), 96.3 ± 7.8 (post-hoc), 91.6 ± 1.4 (linear); all eight 73.3 ± 3.8, 86.8 ± 8.7 and
    76.4 ± 2.8. About 20 minutes on two cores; ``--regimes posthoc linear`` leaves out the
    non-linear one, whose 52 sampled subsets are about 160,000 forward passes a seed.
    """
    return shared.analysis(SubsetsConfig, compare.packaged8(), validation=100, test=200)


PRESETS = {"debug": debug, "packaged": packaged, **shared.papers(SubsetsConfig)}
