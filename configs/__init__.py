"""Presets by experiment: functions that return a configuration; docstrings are the notebook."""

from configs import compare, kernel_behavior

COMPARE = {
    "debug": compare.debug,
    "demo": compare.demo,
    "exact": compare.exact,
    "packaged8": compare.packaged8,
}

KERNEL_BEHAVIOR = {
    "debug": kernel_behavior.debug,
    "packaged": kernel_behavior.packaged,
}
