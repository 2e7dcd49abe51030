"""``python -m experiments.kronecker PRESET``."""

from experiments import running
from experiments.kronecker.run import fine_tunings, run

running.launch("kronecker", run, fine_tunings)
