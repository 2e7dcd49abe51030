"""``python -m experiments.sentiment PRESET``."""

from experiments import running
from experiments.sentiment.run import fine_tunings, run

running.launch("sentiment", run, fine_tunings)
