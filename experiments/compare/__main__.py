"""``python -m experiments.compare PRESET``."""

from experiments import running
from experiments.compare.run import fine_tunings, run

running.launch("compare", run, fine_tunings)
