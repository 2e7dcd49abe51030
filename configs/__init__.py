"""Presets by experiment: functions that return a configuration; docstrings are the notebook."""

from configs import compare, kernel_behavior, localization, width

COMPARE = {
    "debug": compare.debug,
    "demo": compare.demo,
    "exact": compare.exact,
    "packaged8": compare.packaged8,
    "clip_debug": compare.clip_debug,
    "vit_b32": compare.vit_b32,
    "vit_b16": compare.vit_b16,
    "vit_l14": compare.vit_l14,
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
