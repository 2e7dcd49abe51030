"""Presets of ``experiments.nli``."""

from configs import compare
from experiments.nli.config import LanguageConfig, NliConfig
from linearize.config import EditConfig
from linearize.train import TrainConfig


def debug() -> NliConfig:
    """Seconds: a small random encoder–decoder, three domains of made-up reviews, two seeds.

    python -m experiments.nli debug
    """
    brief = compare.recipe(1e-2, steps=30, batch_size=16, warmup=2)
    return NliConfig(
        model=LanguageConfig(name="toy_t5", read="answers", pretrained=False),
        length=24,
        train=120,
        validation=40,
        test=60,
        nonlinear=brief,
        linear=brief,
        edit=EditConfig(points=5),
        coarse=3,
        seeds=(0, 1),
        batch_size=20,
    )


def packaged() -> NliConfig:
    """Six packaged tasks, MiniLM's features under heads of ten examples a class, three seeds.

    python -m experiments.nli packaged

    Not run yet.
    """

    def recipe(lr: float) -> TrainConfig:
        return compare.recipe(lr, steps=60, batch_size=16, warmup=6)

    return NliConfig(
        model=LanguageConfig(name="minilm_l6", read="features"),
        tasks=(
            "sentiment_film_sentences",
            "sentiment_amazon",
            "news",
            "spam",
            "uncertainty",
            "reuters",
        ),
        length=48,
        train=1000,
        validation=100,
        test=300,
        nonlinear=recipe(2e-5),
        linear=recipe(5e-5),
        coarse=5,
        sample=2,
        seeds=(0, 1, 2),
        batch_size=64,
    )


PRESETS = {"debug": debug, "packaged": packaged}
