"""``python -m experiments.learning_rate PRESET``."""

from experiments import running
from experiments.learning_rate.run import fine_tunings, run

running.launch("learning_rate", run, fine_tunings)
