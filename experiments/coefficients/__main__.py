"""``python -m experiments.coefficients PRESET``."""

from experiments import running, vectors
from experiments.coefficients.run import run

running.launch("coefficients", run, vectors.fine_tunings, vectors.resolve)
