"""``python -m experiments.sentiment PRESET``."""

from experiments import running
from experiments.sentiment.run import run

running.launch("sentiment", run)
