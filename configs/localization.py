"""Presets of ``experiments.localization``."""

import dataclasses

from configs import compare, shared
from experiments.localization.config import LocalizationConfig
from linearize.config import MapConfig


def debug() -> LocalizationConfig:
    """Seconds: a small random network and four toy tasks, every part of the job once.

    python -m experiments.localization debug
    """
    whole, tasks = shared.small(), ("toy_a", "toy_b", "toy_c", "toy_d")
    return shared.analysis(
        LocalizationConfig,
        whole,
        data=dataclasses.replace(whole.data, tasks=tasks, control="toy_e"),
        points=12,
        random_tasks=tasks,
        map=MapConfig(pairs=(("toy_a", "toy_b"),), low=-1.0, high=1.0, points=5, n_eval=80),
    )


def packaged() -> LocalizationConfig:
    """The eight packaged tasks of ``experiments.compare packaged8``, all 28 pairs, three seeds.

    python -m experiments.localization packaged --vectors runs/compare/packaged8

    Energy on the control (1 is everywhere), mean of 56 ordered pairs: 0.311 ± 0.019; of 12 pairs
    0.399 ± 0.041 and, at random weights, 0.442 ± 0.019. Spearman's ρ with ξ over 28 pairs, linear
    regime: 0.52 [-0.30, 1.00]. About 25 minutes on two cores, on a busy machine; without
    ``--vectors`` the tasks are fine-tuned first.
    """
    whole = compare.packaged8()
    return shared.analysis(
        LocalizationConfig,
        whole,
        points=32,
        random_tasks=("mnist", "letters", "animals", "fashion_mnist"),
        map=MapConfig(pairs=whole.map.pairs, low=-1.0, high=1.0, points=9, n_eval=300),
    )


def clip_pair(first: str, second: str) -> LocalizationConfig:
    """One of the pairs of *Task Arithmetic in the Tangent Space* (§5) with CLIP ViT-B/32."""
    whole = compare.vit_b32()
    pair = (first, second)
    return shared.analysis(
        LocalizationConfig,
        whole,
        model=dataclasses.replace(whole.model, dtype="float32"),
        data=dataclasses.replace(whole.data, tasks=pair),
        epochs={task: compare.PAPER_EPOCHS[task] for task in pair},
        points=200,
        random_tasks=pair,
        map=MapConfig(pairs=(pair,), low=-1.0, high=1.0, points=9, n_eval=500),
        regimes=("linear", "posthoc", "nonlinear"),
        memory=16 * 1024**3,
    )


def resisc45_cars() -> LocalizationConfig:
    """Scenes from above and cars: CLIP ViT-B/32 on a GPU, real data.

    python -m experiments.localization resisc45_cars

    With ``--vectors runs/compare/vit_b32`` all eight tasks of that run are taken, and its vectors.
    """
    return clip_pair("resisc45", "cars")


def eurosat_svhn() -> LocalizationConfig:
    """Land from space and house numbers: CLIP ViT-B/32 on a GPU, real data.

    python -m experiments.localization eurosat_svhn
    """
    return clip_pair("eurosat", "svhn")


def dtd_sun397() -> LocalizationConfig:
    """Textures and scenes: CLIP ViT-B/32 on a GPU, real data.

    python -m experiments.localization dtd_sun397
    """
    return clip_pair("dtd", "sun397")


PRESETS = {
    "debug": debug,
    "packaged": packaged,
    "resisc45_cars": resisc45_cars,
    "eurosat_svhn": eurosat_svhn,
    "dtd_sun397": dtd_sun397,
}
