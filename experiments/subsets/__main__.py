"""``python -m experiments.subsets PRESET``."""

from experiments import running
from experiments.subsets.run import run

running.launch("subsets", run)
