"""``python -m experiments.trajectory PRESET``."""

from experiments import running
from experiments.trajectory.run import fine_tunings, run

running.launch("trajectory", run, fine_tunings)
