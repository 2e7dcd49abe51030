"""Presets by experiment: functions that return a configuration; docstrings are the notebook."""

from configs import compare

COMPARE = {
    "debug": compare.debug,
    "demo": compare.demo,
    "packaged8": compare.packaged8,
}
