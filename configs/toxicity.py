"""Presets of ``experiments.toxicity``."""

from configs import compare
from experiments.toxicity.config import (
    FITTED,
    ControlConfig,
    DecodingConfig,
    ToxicityConfig,
)


def debug() -> ToxicityConfig:
    """Seconds: a small random decoder, made-up words, every part of the job once.

    python -m experiments.toxicity debug
    """
    brief = compare.recipe(3e-3, steps=20, batch_size=16, warmup=2)
    return ToxicityConfig(
        scorers=(FITTED,),
        threshold=0.5,
        decoding=DecodingConfig(count=40, tokens=12, prompts="openings", opening=3),
        control=ControlConfig(context=32, stride=16),
        points_of_grid=5,
        points=(0.0, 1.0),
        swept=20,
        length=24,
        nonlinear=brief,
        linear=brief,
        seeds=(0, 1),
    )


PRESETS = {"debug": debug}
