"""``python -m experiments.ensembling PRESET``."""

from experiments import running, vectors
from experiments.ensembling.run import run

running.launch("ensembling", run, vectors.fine_tunings, vectors.resolve)
