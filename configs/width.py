"""Presets of ``experiments.width``."""

from linearize.config import WidthConfig


def debug() -> WidthConfig:
    """Seconds: two narrow networks of two hidden layers, few small images, two seeds.

    python -m experiments.width debug
    """
    return WidthConfig(
        task="landsat",
        image_size=6,
        train=8,
        test=7,
        depth=2,
        widths=(32, 64),
        fit_from=32,
        rate=0.1,
        steps=(2, 16),
        seeds=(0, 1),
    )


def mlp() -> WidthConfig:
    """Three hidden ReLU layers, 128 to 2,048 units, 128 MNIST digits, ten seeds.

    python -m experiments.width mlp
    """
    return WidthConfig()
