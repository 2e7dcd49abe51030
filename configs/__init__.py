"""Presets by experiment: functions that return a configuration, whose docstrings are its notebook."""

from configs import compare

COMPARE = {
    "debug": compare.debug,
    "demo": compare.demo,
    "packaged8": compare.packaged8,
}
