"""``python -m experiments.localization PRESET``."""

from experiments import running, vectors
from experiments.localization.run import fine_tunings, run

running.launch("localization", run, fine_tunings, vectors.resolve)
