"""Gradient ascent on the task's loss, the baseline of negation (*Editing Models*, §3)."""

from functools import partial

from linearize.methods.fine_tuning import fine_tune
from linearize.study import Method

GRADIENT_ASCENT = Method(
    "gradient_ascent",
    "Gradient ascent",
    "displaced",
    partial(fine_tune, regime="nonlinear", method="gradient_ascent", direction="ascend"),
    stands="negation",
    about="Non-linear fine-tuning that climbs a task’s loss: forgetting without a task vector to "
    "negate.",
)
"""Non-linear fine-tuning that climbs the loss: forgetting without a task vector to negate."""
