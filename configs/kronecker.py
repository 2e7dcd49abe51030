"""Presets of ``experiments.kronecker``."""

from configs import shared
from experiments.kronecker.config import KroneckerConfig


def debug() -> KroneckerConfig:
    """Seconds: a small random network and three toy tasks.

    python -m experiments.kronecker debug
    """
    return KroneckerConfig(shared.short(), steps=(5, 10), examples=64, exact=20, probes=(1, 4))


def packaged() -> KroneckerConfig:
    """The demo's four tasks, vectors of linear fine-tuning and of TAK, three seeds.

    python -m experiments.kronecker packaged
    """
    return KroneckerConfig(shared.demo(), steps=(7, 14, 28))


PRESETS = {"debug": debug, "packaged": packaged}
