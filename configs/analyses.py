"""Presets of the analyses that reuse task vectors: subsets, coefficients, ensembling."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

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
    VectorsConfig,
)

C = TypeVar("C", bound=VectorsConfig)


def analysis(kind: type[C], whole: CompareConfig, **options: Any) -> C:
    """An analysis of the vectors that ``experiments.compare`` trains with a configuration."""
    names = {field.name for field in dataclasses.fields(kind)}
    common = [f.name for f in dataclasses.fields(whole) if f.name in names]
    return kind(**{name: getattr(whole, name) for name in common} | options)


def papers(kind: type[C]) -> Mapping[str, Callable[[], C]]:
    """A preset for each of the papers' models: an analysis of what ``experiments.compare`` left.

    All validation and test examples; the vectors are those of ``runs/compare/vit_b32`` and so on.
    None was run yet.
    """
    experiment = kind.__name__.removesuffix("Config").lower()

    def preset(name: str, whole: Callable[[], CompareConfig]) -> Callable[[], C]:
        def build() -> C:
            return analysis(kind, whole(), vectors=f"runs/compare/{name}")

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


def subsets_debug() -> SubsetsConfig:
    """Seconds: a small random network and three toy tasks.

    python -m experiments.subsets debug
    """
    return analysis(SubsetsConfig, small(), grid=(0.4, 1.0), sample=2)


def subsets() -> SubsetsConfig:
    """All 255 subsets of the eight packaged tasks, three seeds.

    python -m experiments.subsets packaged --vectors runs/compare/packaged8

    Normalized accuracy in % on the subset's own tasks, ± 95 % t interval: pairs 90.1 ± 3.0
    (non-linear), 96.3 ± 7.8 (post-hoc), 91.6 ± 1.4 (linear); all eight 73.3 ± 3.8, 86.8 ± 8.7 and
    76.4 ± 2.8. About 20 minutes on two cores; ``--regimes posthoc linear`` leaves out the
    non-linear one, whose 52 sampled subsets are about 160,000 forward passes a seed.
    """
    return analysis(SubsetsConfig, compare.packaged8(), validation=100, test=200)


def coefficients_debug() -> CoefficientsConfig:
    """Seconds: a small random network and three toy tasks.

    python -m experiments.coefficients debug
    """
    return analysis(CoefficientsConfig, small(), parts=2, starts=1)


def coefficients() -> CoefficientsConfig:
    """The eight packaged tasks, three seeds.

    python -m experiments.coefficients packaged --vectors runs/compare/packaged8

    Test accuracy in % after addition of all eight, linear: α on the grid 65.9 ± 3.0, one optimal α
    64.4 ± 3.1, one per task 67.4 ± 0.4, one per task and part 70.4 ± 0.6; test cross-entropy
    1.47 ± 0.37, 1.34 ± 0.32, 1.16 ± 0.15, 0.95 ± 0.19. About 15 minutes on two cores; ``--parts 0
    --split`` leaves out the parts, which cost up to 4 (1 + 2T) passes an example.
    """
    return analysis(CoefficientsConfig, compare.packaged8(), validation=100, test=200)


def ensembling_debug() -> EnsemblingConfig:
    """Seconds: a small random network and three toy tasks.

    python -m experiments.ensembling debug
    """
    return analysis(EnsemblingConfig, small())


def ensembling() -> EnsemblingConfig:
    """The 28 pairs of the eight packaged tasks, and three seeds of each.

    python -m experiments.ensembling packaged --vectors runs/compare/packaged8

    Accuracy in % on one of two tasks, mean of pairs ± 95 % t interval, averaged weights and
    ensemble: 75.5 ± 2.3 and 74.4 ± 2.9 (non-linear), 69.1 ± 6.4 and 69.2 ± 3.3 (post-hoc),
    77.5 ± 2.0 and 74.6 ± 2.0 (linear). About 12 minutes on two cores on a busy machine.
    """
    return analysis(EnsemblingConfig, compare.packaged8(), validation=100, test=200)
