"""``python -m experiments.nli PRESET``."""

from experiments import running
from experiments.nli.run import run

running.launch("nli", run)
