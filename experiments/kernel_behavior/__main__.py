"""``python -m experiments.kernel_behavior PRESET``."""

from experiments import running
from experiments.kernel_behavior.run import run

running.launch("kernel_behavior", run)
