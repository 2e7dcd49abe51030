"""Presets of ``experiments.analogies``."""

import dataclasses

from configs import analyses, compare
from linearize.config import AnalogiesConfig, CompareConfig, DataConfig, EditConfig

EMOJI = DataConfig(tasks=("emoji", "emoji_google"), control="emoji_twitter")
"""Two vendors' drawings of the same nine categories."""


def debug() -> AnalogiesConfig:
    """Seconds: a small random network, two styles of emoji, every part of the job once.

    python -m experiments.analogies debug
    """
    brief = compare.recipe(1e-3, steps=15, batch_size=16, warmup=2)
    return AnalogiesConfig(
        setting=dataclasses.replace(
            analyses.small(),
            data=dataclasses.replace(EMOJI, train=300, validation=90, test=120),
            nonlinear=brief,
            linear=brief,
            edit=EditConfig(points=5),
        ),
        examples=(10,),
        curve=compare.recipe(1e-3, steps=5, batch_size=10, warmup=2),
        quadruples=((1, 3),),
        single_steps=8,
    )


def packaged() -> AnalogiesConfig:
    """Emoji in two vendors' drawings, halves of nine categories, three seeds.

    python -m experiments.analogies packaged
    """
    whole = compare.packaged8()
    return AnalogiesConfig(
        setting=CompareConfig(
            model=whole.model,
            data=dataclasses.replace(EMOJI, train=2000, validation=300, test=600),
            head=whole.head,
            nonlinear=compare.recipe(1e-5, steps=60, batch_size=32),
            linear=compare.recipe(2e-5, steps=60, batch_size=32),
            edit=EditConfig(points=11),
            seeds=whole.seeds,
        ),
        examples=(10, 30, 100),
        curve=compare.recipe(1e-5, steps=30, batch_size=10, warmup=5),
        quadruples=((1, 3), (5, 6), (3, 8)),
        single_steps=20,
    )
