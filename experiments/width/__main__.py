"""``python -m experiments.width PRESET``."""

from experiments import running
from experiments.width.run import run

running.launch("width", run)
