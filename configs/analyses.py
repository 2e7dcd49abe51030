"""Presets of the analyses that reuse task vectors: subsets, coefficients, ensembling."""

from typing import Any

from configs import compare
from linearize.config import (
    CoefficientsConfig,
    CompareConfig,
    DataConfig,
    EditConfig,
    EnsemblingConfig,
    HeadConfig,
    ModelConfig,
    SubsetsConfig,
)


def setting(whole: CompareConfig) -> dict[str, Any]:
    """The fields that an analysis has in common with ``experiments.compare``."""
    names = ("model", "data", "head", "nonlinear", "linear", "trainable", "edit", "seeds")
    return {name: getattr(whole, name) for name in names}


def small() -> CompareConfig:
    """A small random network and three tasks."""
    return CompareConfig(
        model=ModelConfig(name="mlp", blocks=None, image_size=14, pretrained=False),
        data=DataConfig(
            tasks=("mnist", "landsat", "digits"),
            control="animals",
            train=300,
            validation=60,
            test=80,
        ),
        head=HeadConfig(shots=5),
        nonlinear=compare.recipe(1e-3, steps=20, batch_size=32, warmup=2),
        linear=compare.recipe(1e-3, steps=20, batch_size=32, warmup=2),
        edit=EditConfig(points=6),
        seeds=(0, 1),
    )


def subsets_debug() -> SubsetsConfig:
    """Seconds: a small random network and three tasks.

    python -m experiments.subsets debug
    """
    return SubsetsConfig(**setting(small()), grid=(0.4, 1.0), sample=2)


def subsets() -> SubsetsConfig:
    """All 255 subsets of the eight packaged tasks, three seeds.

    python -m experiments.subsets packaged --vectors runs/compare/packaged8
    """
    return SubsetsConfig(**setting(compare.packaged8()), validation=100, test=200)


def coefficients_debug() -> CoefficientsConfig:
    """Seconds: a small random network and three tasks.

    python -m experiments.coefficients debug
    """
    return CoefficientsConfig(**setting(small()), parts=2, starts=1)


def coefficients() -> CoefficientsConfig:
    """The eight packaged tasks, three seeds.

    python -m experiments.coefficients packaged --vectors runs/compare/packaged8
    """
    return CoefficientsConfig(**setting(compare.packaged8()), validation=100, test=200)


def ensembling_debug() -> EnsemblingConfig:
    """Seconds: a small random network and three tasks.

    python -m experiments.ensembling debug
    """
    return EnsemblingConfig(**setting(small()))


def ensembling() -> EnsemblingConfig:
    """The 28 pairs of the eight packaged tasks, and three seeds of each.

    python -m experiments.ensembling packaged --vectors runs/compare/packaged8
    """
    return EnsemblingConfig(**setting(compare.packaged8()), validation=100, test=200)
