"""``python -m experiments.audit PRESET``."""

from experiments import running
from experiments.audit.run import run

running.launch("audit", run)
