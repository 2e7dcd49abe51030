"""``python -m experiments.ensembling PRESET``."""

from experiments import running
from experiments.ensembling.run import run

running.launch("ensembling", run)
