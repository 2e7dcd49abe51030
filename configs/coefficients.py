"""Presets of ``experiments.coefficients``."""

from configs import compare, shared
from experiments.coefficients.config import CoefficientsConfig


def debug() -> CoefficientsConfig:
    """Seconds: a small random network and three toy tasks.

    python -m experiments.coefficients debug
    """
    return shared.analysis(CoefficientsConfig, shared.small(), parts=2, starts=1)


def packaged() -> CoefficientsConfig:
    """The eight packaged tasks, three seeds.

    python -m experiments.coefficients packaged --vectors runs/compare/packaged8

    Test accuracy in % after addition of all eight, linear: α on the grid 65.9 ± 3.0, one optimal α
    64.4 ± 3.1, one per task 67.4 ± 0.4, one per task and part 70.4 ± 0.6; test cross-entropy
    1.47 ± 0.37, 1.34 ± 0.32, 1.16 ± 0.15, 0.95 ± 0.19. About 15 minutes on two cores; ``--parts 0
    --split`` leaves out the parts, which cost up to 4 (1 + 2T) passes an example.
    """
    return shared.analysis(CoefficientsConfig, compare.packaged8(), validation=100, test=200)


PRESETS = {"debug": debug, "packaged": packaged, **shared.papers(CoefficientsConfig)}
