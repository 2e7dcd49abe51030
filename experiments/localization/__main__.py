"""``python -m experiments.localization PRESET``."""

from experiments import running
from experiments.localization.run import run

running.launch("localization", run)
