"""``python -m experiments.audit PRESET``."""

from experiments import running, vectors
from experiments.audit.run import fine_tunings, run

running.launch("audit", run, fine_tunings, vectors.resolve)
