"""``python -m experiments.merging PRESET``."""

from experiments import running
from experiments.merging.run import run

running.launch("merging", run)
