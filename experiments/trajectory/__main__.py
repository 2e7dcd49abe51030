"""``python -m experiments.trajectory PRESET``."""

from experiments import running
from experiments.trajectory.run import run

running.launch("trajectory", run)
