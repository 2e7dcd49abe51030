"""``python -m experiments.merging PRESET``."""

from experiments import running, vectors
from experiments.merging.run import fine_tunings, run

running.launch("merging", run, fine_tunings, vectors.resolve)
