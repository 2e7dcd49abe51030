"""``python -m experiments.analogies PRESET``."""

from experiments import running
from experiments.analogies.run import run

running.launch("analogies", run)
