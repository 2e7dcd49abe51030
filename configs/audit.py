"""Presets of ``experiments.audit``."""

import dataclasses

from configs import compare, shared
from experiments.audit.config import AuditConfig


def debug() -> AuditConfig:
    """Seconds: a small random network and three toy tasks.

    python -m experiments.audit debug
    """
    return shared.analysis(
        AuditConfig, shared.small(), regimes=("nonlinear", "linear"), examples=12
    )


def packaged() -> AuditConfig:
    """The 56 ordered pairs of the eight packaged tasks, non-linear and linear, three seeds.

    python -m experiments.audit packaged

    Spearman's ρ with the accuracy lost: exact movement in units of the own 0.81 [0.53, 1.00]
    (non-linear), 0.82 [0.64, 1.00] (linear); Kronecker estimate 0.76, 0.80; ξ 0.85, 0.86; cosine
    0.27, 0.32. Seven and a half minutes a seed on one core.
    """
    whole = compare.packaged8()
    setting = dataclasses.replace(
        whole,
        model=dataclasses.replace(whole.model, blocks=4),
        data=dataclasses.replace(whole.data, validation=64, test=200),
        nonlinear=compare.recipe(2e-5, steps=40, batch_size=32),
        linear=compare.recipe(4e-5, steps=40, batch_size=32),
    )
    return shared.analysis(AuditConfig, setting, regimes=("nonlinear", "linear"), examples=48)


PRESETS = {"debug": debug, "packaged": packaged, **shared.papers(AuditConfig)}
