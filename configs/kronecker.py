"""Presets of ``experiments.kronecker``."""

import dataclasses

from configs import compare, shared
from experiments.kronecker.config import KroneckerConfig
from linearize.config import ModelConfig


def debug() -> KroneckerConfig:
    """Seconds: a small random network and three toy tasks.

    python -m experiments.kronecker debug
    """
    return KroneckerConfig(shared.short(), steps=(5, 10), examples=64, exact=20, probes=(1, 4))


def packaged() -> KroneckerConfig:
    """The demo's four tasks, three blocks, vectors of linear fine-tuning and of TAK, three seeds.

    python -m experiments.kronecker packaged
    """
    setting = dataclasses.replace(
        shared.demo(), model=ModelConfig(blocks=3), linear=compare.recipe(4e-5, 24, batch_size=32)
    )
    return KroneckerConfig(setting, steps=(3, 8), probes=(1, 4), exact=16)


PRESETS = {"debug": debug, "packaged": packaged}
