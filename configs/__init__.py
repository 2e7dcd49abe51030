"""Presets by experiment: functions that return a configuration; docstrings are the notebook."""

from configs import compare, localization

COMPARE = {
    "debug": compare.debug,
    "demo": compare.demo,
    "packaged8": compare.packaged8,
}

LOCALIZATION = {
    "debug": localization.debug,
    "packaged": localization.packaged,
}
"""Presets of ``experiments.localization``, eigenfunctions of the kernel and the error beside."""
