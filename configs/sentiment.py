"""Presets of ``experiments.sentiment``."""

import dataclasses

from configs import compare
from experiments.sentiment.config import LanguageConfig, SentimentConfig
from linearize.config import EditConfig, MapConfig

LAST_BLOCKS = r"^block_(2[6-9])/"
"""Of SmolLM2-135M's 30 blocks the last four: what two cores can afford."""


def debug() -> SentimentConfig:
    """Half a minute: a small random decoder, two domains of made-up reviews, two seeds.

    python -m experiments.sentiment debug
    """
    brief = compare.recipe(1e-2, steps=25, batch_size=16, warmup=2)
    return SentimentConfig(
        model=LanguageConfig(name="toy_decoder", pretrained=False, blocks=1),
        domains=("toy_food", "toy_film"),
        train=120,
        validation=40,
        test=60,
        length=24,
        nonlinear=brief,
        linear=brief,
        edit=EditConfig(points=5),
        coarse=3,
        map=MapConfig(pairs=(("toy_food", "toy_film"),), low=-1, high=1, points=3),
        seeds=(0, 1),
    )


def packaged() -> SentimentConfig:
    """SmolLM2-135M on sentences about goods, films, restaurants and foods, three seeds.

    python -m experiments.sentiment packaged

    The last four of 30 blocks are trained, on texts of at most 40 tokens. Not run yet.
    """
    return SentimentConfig(
        model=LanguageConfig(),
        domains=("sentiment_amazon", "sentiment_imdb", "sentiment_yelp", "sentiment_foods"),
        length=40,
        train=400,
        validation=60,
        test=200,
        nonlinear=compare.recipe(1e-4, steps=25, batch_size=16, warmup=3),
        linear=compare.recipe(2e-4, steps=25, batch_size=16, warmup=3),
        trainable=LAST_BLOCKS,
        coarse=5,
        map=MapConfig(
            pairs=(("sentiment_amazon", "sentiment_yelp"),), low=-1.5, high=1.5, points=7, n_eval=8
        ),
        seeds=(0, 1, 2),
        batch_size=20,
    )


def t5_debug() -> SentimentConfig:
    """Seconds: a small random T5 that answers in words, and learns text by span corruption.

    python -m experiments.sentiment t5_debug
    """
    return dataclasses.replace(
        debug(), model=LanguageConfig(name="toy_t5", pretrained=False, blocks=1), seeds=(0,)
    )


PRESETS = {"debug": debug, "packaged": packaged, "t5_debug": t5_debug}
