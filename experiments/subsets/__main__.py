"""``python -m experiments.subsets PRESET``."""

from experiments import running, vectors
from experiments.subsets.run import run

running.launch("subsets", run, vectors.fine_tunings, vectors.resolve)
