"""From task vectors to directions in weight space: one file a merge, a row in :data:`MERGES`.

A merge says where to go, a scaling coefficient that validation data choose how far, and a view
evaluates the points: so every merge runs under every view.
"""

from linearize.merge.merge import Merge as Merge
from linearize.merge.random import RANDOM as RANDOM
from linearize.merge.sum import SUM as SUM
from linearize.merge.ties import TIES as TIES

MERGES: dict[str, Merge] = {merge.name: merge for merge in (SUM, RANDOM, TIES)}
"""By name; a row of one's own is added by assignment."""
