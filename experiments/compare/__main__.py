"""``python -m experiments.compare PRESET``."""

from experiments import running
from experiments.compare.run import run

running.launch("compare", run)
