"""Presets by experiment: functions that return a configuration; docstrings are the notebook."""

from collections.abc import Callable, Mapping
from typing import Any

from configs import (
    analogies,
    analyses,
    compare,
    kernel_behavior,
    localization,
    sweeps,
    width,
)
from linearize.config import CoefficientsConfig, EnsemblingConfig, SubsetsConfig

COMPARE = {
    "debug": compare.debug,
    "demo": compare.demo,
    "exact": compare.exact,
    "packaged8": compare.packaged8,
    "clip_debug": compare.clip_debug,
    **compare.PAPERS,
}
"""Presets of ``experiments.compare``, the three regimes side by side."""

KERNEL_BEHAVIOR = {
    "debug": kernel_behavior.debug,
    "packaged": kernel_behavior.packaged,
}
"""Presets of ``experiments.kernel_behavior``, the kernel along a fine-tuning."""

WIDTH = {
    "debug": width.debug,
    "mlp": width.mlp,
}
"""Presets of ``experiments.width``, kernel behaviour against width."""

LOCALIZATION = {
    "debug": localization.debug,
    "packaged": localization.packaged,
    "resisc45_cars": localization.resisc45_cars,
    "eurosat_svhn": localization.eurosat_svhn,
    "dtd_sun397": localization.dtd_sun397,
}
"""Presets of ``experiments.localization``, eigenfunctions of the kernel and the error beside."""

SUBSETS = {
    "debug": analyses.subsets_debug,
    "packaged": analyses.subsets,
    **analyses.papers(SubsetsConfig),
}
"""Presets of ``experiments.subsets``, addition of every subset of the tasks."""

COEFFICIENTS = {
    "debug": analyses.coefficients_debug,
    "packaged": analyses.coefficients,
    **analyses.papers(CoefficientsConfig),
}
"""Presets of ``experiments.coefficients``, globally optimal scaling coefficients."""

ENSEMBLING = {
    "debug": analyses.ensembling_debug,
    "packaged": analyses.ensembling,
    **analyses.papers(EnsemblingConfig),
}
"""Presets of ``experiments.ensembling``, averaged weights against averaged logits."""

ANALOGIES = {
    "debug": analogies.debug,
    "packaged": analogies.packaged,
    "sketches": analogies.sketches,
}
"""Presets of ``experiments.analogies``, sub-populations and single classes."""

LEARNING_RATE = {
    "debug": sweeps.learning_rate_debug,
    "packaged": sweeps.learning_rate,
    "vit_b32": sweeps.learning_rate_paper,
}
"""Presets of ``experiments.learning_rate``, single-task and merged accuracy by learning rate."""

TRAJECTORY = {
    "debug": sweeps.trajectory_debug,
    "packaged": sweeps.trajectory,
    "vit_b32": sweeps.trajectory_paper,
}
"""Presets of ``experiments.trajectory``, task vectors along training."""

PRESETS: Mapping[str, Mapping[str, Callable[[], Any]]] = {
    "compare": COMPARE,
    "kernel_behavior": KERNEL_BEHAVIOR,
    "width": WIDTH,
    "localization": LOCALIZATION,
    "subsets": SUBSETS,
    "coefficients": COEFFICIENTS,
    "ensembling": ENSEMBLING,
    "analogies": ANALOGIES,
    "learning_rate": LEARNING_RATE,
    "trajectory": TRAJECTORY,
}
"""All presets, by experiment."""
