"""``python -m experiments.kronecker PRESET``."""

from experiments import running
from experiments.kronecker.run import run

running.launch("kronecker", run)
