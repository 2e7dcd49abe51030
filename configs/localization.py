"""Presets of ``experiments.localization``."""

from configs import compare
from linearize.config import DataConfig, HeadConfig, LocalizationConfig, MapConfig, ModelConfig


def debug() -> LocalizationConfig:
    """Seconds: a small random network and four tasks, every part of the job once.

    python -m experiments.localization debug
    """
    return LocalizationConfig(
        model=ModelConfig(name="mlp", blocks=None, image_size=14, pretrained=False),
        data=DataConfig(
            tasks=("mnist", "fashion_mnist", "animals", "digits"),
            control="landsat",
            train=300,
            validation=60,
            test=80,
        ),
        head=HeadConfig(shots=5),
        nonlinear=compare.recipe(1e-3, steps=20, batch_size=32, warmup=2),
        linear=compare.recipe(1e-3, steps=20, batch_size=32, warmup=2),
        points=12,
        random_tasks=("mnist", "fashion_mnist", "animals", "digits"),
        map=MapConfig(pairs=(("mnist", "digits"),), low=-1.0, high=1.0, points=5, n_eval=80),
        seeds=(0, 1),
    )


def packaged() -> LocalizationConfig:
    """The eight packaged tasks of ``experiments.compare packaged8``, all 28 pairs, three seeds.

    python -m experiments.localization packaged --vectors runs/compare/packaged8
    """
    whole = compare.packaged8()
    return LocalizationConfig(
        model=whole.model,
        data=whole.data,
        head=whole.head,
        nonlinear=whole.nonlinear,
        linear=whole.linear,
        points=32,
        random_tasks=("mnist", "letters", "animals", "fashion_mnist"),
        map=MapConfig(pairs=whole.map.pairs, low=-1.0, high=1.0, points=9, n_eval=300),
        seeds=whole.seeds,
    )
