"""Presets of ``experiments.toxicity``."""

from configs import compare
from experiments.toxicity.config import (
    FITTED,
    ControlConfig,
    DecodingConfig,
    LanguageConfig,
    TextsConfig,
    ToxicityConfig,
)


def debug() -> ToxicityConfig:
    """Seconds: a small random decoder, made-up words, every part of the job once.

    python -m experiments.toxicity debug
    """
    brief = compare.recipe(3e-3, steps=20, batch_size=16, warmup=2)
    return ToxicityConfig(
        model=LanguageConfig(name="toy_decoder", pretrained=False),
        texts=TextsConfig(kinds="toy_shop", positive=("negative",), control="toy_film"),
        scorers=(FITTED,),
        threshold=0.5,
        decoding=DecodingConfig(count=40, tokens=12, prompts="openings", opening=3, batch_size=20),
        control=ControlConfig(context=32, stride=16),
        tolerance=5.0,
        points_of_grid=5,
        points=(0.0, 1.0),
        swept=20,
        length=24,
        nonlinear=brief,
        linear=brief,
        seeds=(0, 1),
    )


def packaged() -> ToxicityConfig:
    """SmolLM2-135M forgets how to write spam: the harmless default, three seeds.

    python -m experiments.toxicity packaged

    Spam and ham of SpamAssassin; prompts are the first 12 tokens of spam that nothing is trained
    on. The last eight of 30 blocks are trained, on rows of 64 tokens.
    """
    return ToxicityConfig(
        texts=TextsConfig(
            train=150,
            validation=400,
            test=200,
            control_validation=1,
            control_test=2,
            words="spam",
            other_words="ham",
            control_words="Jane Austen’s novels",
        ),
        scorers=(FITTED,),
        threshold=0.8,
        decoding=DecodingConfig(count=96, tokens=40, prompts="openings"),
        control=ControlConfig(context=256, stride=192),
        swept=48,
        points=(0.0, 0.5, 1.0),
        length=64,
        nonlinear=compare.recipe(1e-4, steps=40, batch_size=8, warmup=4),
        linear=compare.recipe(1e-4, steps=40, batch_size=8, warmup=4),
        trainable=LAST_BLOCKS,
        seeds=(0, 1, 2),
    )


LAST_BLOCKS = r"^block_2[2-9]/"
"""Of SmolLM2-135M's 30 blocks the last eight: what two cores can afford."""

PRESETS = {"debug": debug, "packaged": packaged}
