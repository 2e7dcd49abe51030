"""What presets of several experiments are made of."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from configs import compare
from linearize import config as configuration
from linearize.config import (
    CompareConfig,
    DataConfig,
    EditConfig,
    HeadConfig,
    MapConfig,
    ModelConfig,
    VectorsConfig,
)

C = TypeVar("C", bound=VectorsConfig)


def analysis(kind: type[C], whole: CompareConfig, **options: Any) -> C:
    """An analysis of the vectors that ``experiments.compare`` trains with a configuration."""
    return kind(**configuration.taken(kind, whole) | options)


def papers(kind: type[C], **options: Any) -> Mapping[str, Callable[[], C]]:
    """A preset for each of the papers' models: an analysis of what ``experiments.compare`` left.

    All validation and test examples; the vectors are those of ``runs/compare/vit_b32`` and so on.
    None was run yet.
    """
    experiment = kind.__name__.removesuffix("Config").lower()

    def preset(name: str, whole: Callable[[], CompareConfig]) -> Callable[[], C]:
        def build() -> C:
            return analysis(kind, whole(), vectors=f"runs/compare/{name}", **options)

        build.__doc__ = f"""After ``experiments.compare {name}``, of that run's task vectors.

        python -m experiments.{experiment} {name}

        Not run yet.
        """
        return build

    return {name: preset(name, whole) for name, whole in compare.PAPERS.items()}


def small() -> CompareConfig:
    """A small random network and three toy tasks."""
    return CompareConfig(
        model=ModelConfig(name="mlp", blocks=None, image_size=14, pretrained=False),
        data=DataConfig(
            tasks=("toy_a", "toy_b", "toy_c"),
            control="toy_e",
            image_size=14,
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


def without_maps(whole: CompareConfig, **options: Any) -> CompareConfig:
    """The same without error maps."""
    return dataclasses.replace(whole, map=dataclasses.replace(whole.map, pairs=()), **options)


def short() -> CompareConfig:
    """:func:`small` without baselines."""
    return dataclasses.replace(small(), baselines=())


def four() -> CompareConfig:
    """The demo's four tasks, 56 steps, three seeds, no maps: what the results pages are of."""
    return CompareConfig(
        data=compare.demo().data,
        nonlinear=compare.recipe(1e-5, steps=56, batch_size=32),
        linear=compare.recipe(2e-5, steps=56, batch_size=32),
        edit=EditConfig(points=11, sweep_test=False),
        map=MapConfig(pairs=()),
        seeds=(0, 1, 2),
    )


def paper() -> CompareConfig:
    """The papers' eight tasks with ViT-B/32, 2,000 steps each, no maps and no baselines."""
    return without_maps(compare.vit_b32(), baselines=(), epochs={})
