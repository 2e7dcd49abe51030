"""Presets of ``experiments.sentiment``."""

import dataclasses

from configs import compare
from experiments.sentiment.config import AskedConfig, SentimentConfig
from linearize.config import EditConfig, MapConfig

LAST_BLOCKS = r"^block_(2[6-9])/"
"""Of SmolLM2-135M's 30 blocks the last four: what two cores can afford."""


STAND_INS = f"{compare.STAND_INS}/sentiment"
"""What ``t5_debug`` reads."""


def debug() -> SentimentConfig:
    """A minute: a small random decoder, two domains of made-up reviews, two seeds.

    python -m experiments.sentiment debug
    """
    brief = compare.recipe(1e-2, steps=25, batch_size=16, warmup=2)
    return SentimentConfig(
        model=AskedConfig(name="toy_decoder", pretrained=False, blocks=1),
        domains=("toy_food", "toy_film"),
        train=120,
        validation=40,
        test=60,
        length=24,
        nonlinear=brief,
        linear=brief,
        regimes=("nonlinear", "linear"),
        edit=EditConfig(points=5),
        coarse=3,
        map=MapConfig(pairs=(("toy_food", "toy_film"),), low=-1, high=1, points=3),
        seeds=(0, 1),
    )


def packaged() -> SentimentConfig:
    """SmolLM2-135M on sentences about goods, films, restaurants and foods, three seeds.

    python -m experiments.sentiment packaged

    The last four of 30 blocks are trained, on texts of at most 40 tokens; the others are computed
    once. Learning rates were chosen on validation data of goods and restaurants, seed 100: 2e-4 of
    5e-5, 2e-4 (non-linear) and 3e-4 of 1e-4, 3e-4, 1e-3 (linear). Accuracy on the target in %, mean
    of four ± 95 % t interval: zero-shot 81.4, auxiliary 82.9 ± 1.6, two coefficients 83.1 ± 1.6,
    target 84.4 ± 2.8 (linear). 65 minutes of one core.
    """
    return SentimentConfig(
        model=AskedConfig(),
        domains=("sentiment_amazon", "sentiment_imdb", "sentiment_yelp", "sentiment_foods"),
        length=40,
        train=320,
        validation=60,
        test=200,
        nonlinear=compare.recipe(2e-4, steps=20, batch_size=16, warmup=3),
        linear=compare.recipe(3e-4, steps=20, batch_size=16, warmup=3),
        language=compare.recipe(2e-4, steps=20, batch_size=8, warmup=3),
        trainable=LAST_BLOCKS,
        coarse=4,
        map=MapConfig(
            pairs=(("sentiment_amazon", "sentiment_yelp"),), low=-1.5, high=1.5, points=7, n_eval=8
        ),
        seeds=(0, 1, 2),
        batch_size=20,
    )


def papers(name: str) -> SentimentConfig:
    """The paper's two domains: 20,000 reviews of each, of at most 256 tokens."""
    recipe = compare.recipe(1e-4, steps=1000, batch_size=32, warmup=100)
    return SentimentConfig(
        model=AskedConfig(name, weights=f"google-t5/{name.replace('_', '-')}"),
        domains=("amazon", "yelp"),
        length=256,
        train=20_000,
        validation=1_000,
        test=5_000,
        nonlinear=recipe,
        linear=recipe,
        seeds=(0, 1, 2),
        batch_size=64,
    )


def t5_small() -> SentimentConfig:
    """T5-small on reviews of Amazon and Yelp, which TFDS prepares; wants a GPU.

    python -m experiments.prepare_data yelp_polarity_reviews --data-dir DATA
    python -m experiments.sentiment t5_small --data-dir DATA

    Not run yet. *Editing Models with Task Arithmetic* (table 4) has, auxiliary, analogy and target:
    Yelp 88.6, 89.9, 91.1; Amazon 87.9, 89.0, 90.2. Its Amazon reviews are those of McAuley and
    Leskovec; here they are TFDS's of mobile electronics, whose source has closed: prepare them from
    a copy. 61 M parameters, 0.24 GB a copy: θ0, τ, its gradient and AdamW's two moments are five in
    training, θ0 and eight vectors nine in evaluation; activations come on top.
    A linear step of 32 x 256 tokens takes about 3 TFLOP, so the 24 fine-tunings of three seeds
    about 50 PFLOP: minutes on one H100; the 121 points of non-linear grids take longer.
    """
    return papers("t5_small")


def t5_base() -> SentimentConfig:
    """T5-base on reviews of Amazon and Yelp, which TFDS prepares; wants a GPU.

    python -m experiments.sentiment t5_base --data-dir DATA

    Not run yet. As :func:`t5_small`; the paper's Yelp 92.3, 93.0, 93.4; Amazon 90.8, 92.7, 93.2.
    223 M parameters, 0.9 GB a copy, so 4.5 GB and 8 GB; about four times the work.
    """
    return papers("t5_base")


def t5_large() -> SentimentConfig:
    """T5-large on reviews of Amazon and Yelp, which TFDS prepares; wants a GPU.

    python -m experiments.sentiment t5_large --data-dir DATA

    Not run yet. As :func:`t5_small`; the paper's Yelp 95.0, 95.1, 95.5; Amazon 94.8, 95.2, 95.5.
    738 M parameters, 3 GB a copy, so 15 GB and 27 GB; about twelve times the work. Where
    activations do not fit beside, ``--model.remat dots``.
    """
    return papers("t5_large")


def t5_debug() -> SentimentConfig:
    """A rehearsal of the paper's presets on a small random T5 and stand-in reviews, made first.

    python -m experiments.sentiment t5_debug

    Weights as transformers saves them and data as TFDS prepares them, read by what reads the real
    ones; the numbers say nothing of T5.
    """
    whole, brief = papers("t5_small"), compare.recipe(3e-3, steps=30, batch_size=16, warmup=3)
    return dataclasses.replace(
        whole,
        model=dataclasses.replace(whole.model, name="t5", weights=f"{STAND_INS}/t5", blocks=1),
        data_dir=f"{STAND_INS}/data",
        length=32,
        train=120,
        validation=40,
        test=60,
        nonlinear=brief,
        linear=brief,
        edit=EditConfig(points=5),
        coarse=3,
        seeds=(0,),
        batch_size=20,
    )


PRESETS = {
    "debug": debug,
    "packaged": packaged,
    "t5_debug": t5_debug,
    "t5_small": t5_small,
    "t5_base": t5_base,
    "t5_large": t5_large,
}
