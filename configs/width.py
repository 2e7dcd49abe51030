"""Presets of ``experiments.width``."""

from experiments.width.config import WidthConfig


def debug() -> WidthConfig:
    """Seconds: two narrow networks of two hidden layers, few small toy images, two seeds.

    python -m experiments.width debug
    """
    return WidthConfig(
        task="toy_e",
        image_size=6,
        train=8,
        test=7,
        depth=2,
        widths=(32, 64),
        fit_from=32,
        rate=0.1,
        steps=(2, 16),
        seeds=(0, 1),
        draws=3,
    )


def mlp() -> WidthConfig:
    """Three hidden ReLU layers, 128 to 2,048 units, 128 MNIST digits, ten seeds.

    python -m experiments.width mlp

    Exponents in the width from 256 on, mean ± 95 % t interval over ten seeds: drift of the NTK
    −0.88 ± 0.10; gap to f_lin −0.53 ± 0.04; movement of input, hidden and output weights −0.45 ±
    0.01, −0.96 ± 0.02, −0.51 ± 0.02; at θ0 over 32 draws, NTK and NNGP against the analytic ones
    −0.52 ± 0.07 and −0.49 ± 0.09. A seed took 34 to 43 s on two cores that were mostly free and 93
    to 105 s beside other work, the first 143 s with part of its compilation cached; the ten, 11
    minutes. The draws, two minutes of processor time, were measured apart, so the page gives no
    total time. They were the ten seeds' at first, whose intervals were too wide to decide.

    How it came about: norm √D (``scale=1``) was stopped after two seeds. Outputs at θ0 of variance
    2 were most of what training unlearned there, and test accuracy stayed near 40 % or below. With
    smaller inputs the kernel first moves away and then part of the way back, so that slopes take
    the largest value over the steps, as the theorems do. Float64 from the same weights (width 256,
    scale 1, one seed) changed no quantity by more than 2e-4 of itself.
    """
    return WidthConfig()


PRESETS = {
    "debug": debug,
    "mlp": mlp,
}
