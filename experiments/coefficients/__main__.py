"""``python -m experiments.coefficients PRESET``."""

from experiments import running
from experiments.coefficients.run import run

running.launch("coefficients", run)
