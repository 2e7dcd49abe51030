"""``python -m experiments.toxicity PRESET``."""

from experiments import running
from experiments.toxicity.run import run

running.launch("toxicity", run)
