"""Presets by experiment: functions that return a configuration; docstrings are the notebook."""

from configs import compare, width

COMPARE = {
    "debug": compare.debug,
    "demo": compare.demo,
    "packaged8": compare.packaged8,
}
"""Presets of ``experiments.compare``, the three regimes side by side."""

WIDTH = {
    "debug": width.debug,
    "mlp": width.mlp,
}
"""Presets of ``experiments.width``, kernel behaviour against width."""
