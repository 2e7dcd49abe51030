"""``python -m experiments.nli PRESET``."""

from experiments import running
from experiments.nli.run import fine_tunings, run

running.launch("nli", run, fine_tunings)
