"""Presets of ``experiments.learning_rate``."""

from configs import shared
from experiments.learning_rate.config import LearningRateConfig

RATES = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4)
"""About the papers' 1e-5."""


def debug() -> LearningRateConfig:
    """Seconds: a small random network and three toy tasks.

    python -m experiments.learning_rate debug
    """
    return LearningRateConfig(shared.short(), nonlinear=(1e-4, 1e-3), linear=(1e-4, 1e-3))


def packaged() -> LearningRateConfig:
    """The demo's four tasks, four learning rates a regime, three seeds.

    python -m experiments.learning_rate packaged

    Accuracy in % of a single task and of all four added, ± 95 % t interval, from the lowest rate to
    the highest: 65.5 ± 5.8, 80.6 ± 1.3, 84.9 ± 4.1, 80.1 ± 1.4 and 57.3 ± 2.0, 58.2 ± 1.7,
    57.2 ± 7.2, 53.3 ± 6.3 (non-linear); 70.6 ± 5.0, 79.2 ± 1.6, 81.6 ± 1.9, 80.3 ± 2.7 and
    58.9 ± 1.1, 62.3 ± 1.1, 63.2 ± 1.8, 61.8 ± 9.5 (linear). An hour on two cores, on a busy
    machine.
    """
    return LearningRateConfig(shared.four())


def vit_b32() -> LearningRateConfig:
    """The papers' eight tasks with CLIP ViT-B/32, five learning rates a regime.

    python -m experiments.prepare_data vit_b32
    python -m experiments.learning_rate vit_b32 --setting.seeds 0 1 2

    Not run yet. Ten times the fine-tuning of one regime: counted from ``experiments.budget``, 730
    PFLOP a seed, 31 minutes at 40 % of an H100's peak, and 2.3 hours of decoding with 16 workers.
    """
    return LearningRateConfig(shared.paper(), nonlinear=RATES, linear=RATES)


PRESETS = {"debug": debug, "packaged": packaged, "vit_b32": vit_b32}
