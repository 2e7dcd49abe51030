"""Which task vectors will harm each other's tasks, and where, before any merge is evaluated."""

from linearize.interference.auditor import Audit as Audit
from linearize.interference.auditor import audit as audit
