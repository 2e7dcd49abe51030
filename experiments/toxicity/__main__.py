"""``python -m experiments.toxicity PRESET``."""

from experiments import running
from experiments.toxicity.run import fine_tunings, run

running.launch("toxicity", run, fine_tunings)
