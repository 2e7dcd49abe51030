"""Presets of ``experiments.learning_rate`` and ``experiments.trajectory``."""

import dataclasses
from typing import Any

from configs import analyses, compare
from linearize.config import CompareConfig, LearningRateConfig, TrajectoryConfig


def _without_maps(whole: CompareConfig, **options: Any) -> CompareConfig:
    return dataclasses.replace(whole, map=dataclasses.replace(whole.map, pairs=()), **options)


def _demo() -> CompareConfig:
    """The demo's four tasks, three seeds, no maps."""
    return _without_maps(compare.demo(), seeds=(0, 1, 2))


def _small() -> CompareConfig:
    return dataclasses.replace(analyses.small(), baselines=())


def learning_rate_debug() -> LearningRateConfig:
    """Seconds: a small random network and three toy tasks.

    python -m experiments.learning_rate debug
    """
    return LearningRateConfig(_small(), nonlinear=(1e-4, 1e-3), linear=(1e-4, 1e-3))


def learning_rate() -> LearningRateConfig:
    """The demo's four tasks, four learning rates a regime, three seeds.

    python -m experiments.learning_rate packaged

    Accuracy in % of a single task and of all four added, ± 95 % t interval, from the lowest rate to
    the highest: 65.5 ± 5.8, 80.6 ± 1.3, 84.9 ± 4.1, 80.1 ± 1.4 and 57.3 ± 2.0, 58.2 ± 1.7,
    57.2 ± 7.2, 53.3 ± 6.3 (non-linear); 70.6 ± 5.0, 79.2 ± 1.6, 81.6 ± 1.9, 80.3 ± 2.7 and
    58.9 ± 1.1, 62.3 ± 1.1, 63.2 ± 1.8, 61.8 ± 9.5 (linear). An hour on two cores, on a busy
    machine.
    """
    return LearningRateConfig(_demo())


def trajectory_debug() -> TrajectoryConfig:
    """Seconds: a small random network and three toy tasks.

    python -m experiments.trajectory debug
    """
    return TrajectoryConfig(_small(), steps=(5, 10))


def trajectory() -> TrajectoryConfig:
    """The demo's four tasks, vectors after 7, 14, 28, 42 and 56 steps, three seeds.

    python -m experiments.trajectory packaged

    After half of the steps the cosine to the final vector is 0.974 ± 0.004 (non-linear) and
    0.972 ± 0.003 (linear), accuracy after addition 57.5 ± 1.6 and 59.9 ± 5.0 %, at the
    end 58.2 ± 1.7 and 62.3 ± 1.1 %. 44 minutes on two cores, on a busy machine.
    """
    return TrajectoryConfig(_demo(), steps=(7, 14, 28, 42))


RATES = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4)
"""About the papers' 1e-5."""


def _paper() -> CompareConfig:
    """The papers' eight tasks with ViT-B/32, 2,000 steps each, no maps and no baselines."""
    return _without_maps(compare.vit_b32(), baselines=(), epochs={})


def learning_rate_paper() -> LearningRateConfig:
    """The papers' eight tasks with CLIP ViT-B/32, five learning rates a regime.

    python -m experiments.prepare_data vit_b32
    python -m experiments.learning_rate vit_b32 --setting.seeds 0 1 2

    Not run yet. Ten times the fine-tuning of one regime: counted from ``experiments.budget``, 730
    PFLOP a seed, 31 minutes at 40 % of an H100's peak, and 2.3 hours of decoding with 16 workers.
    """
    return LearningRateConfig(_paper(), nonlinear=RATES, linear=RATES)


def trajectory_paper() -> TrajectoryConfig:
    """The papers' eight tasks with CLIP ViT-B/32, vectors after 250 to 2,000 steps.

    python -m experiments.prepare_data vit_b32
    python -m experiments.trajectory vit_b32 --setting.seeds 0 1 2

    Not run yet. Fine-tuning costs what it does in ``experiments.compare vit_b32``.
    """
    return TrajectoryConfig(_paper(), steps=(250, 500, 1000, 1500))
