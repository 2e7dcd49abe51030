"""From task vectors to directions in weight space: one file a merge, a row in :data:`MERGES`.

A merge says where to go, validation data choose its hyper-parameters and how far, and a view
evaluates the points: so every merge runs under every view.
"""

from linearize.merge.adamerging import ADAMERGING as ADAMERGING
from linearize.merge.adamerging import ADAMERGING_TENSORS as ADAMERGING_TENSORS
from linearize.merge.consensus import CONSENSUS as CONSENSUS
from linearize.merge.consensus import CONSENSUS_TASKS as CONSENSUS_TASKS
from linearize.merge.dare import DARE as DARE
from linearize.merge.dare import DARE_TIES as DARE_TIES
from linearize.merge.fisher import FISHER as FISHER
from linearize.merge.iso_c import ISO_C as ISO_C
from linearize.merge.iso_cts import ISO_CTS as ISO_CTS
from linearize.merge.knots import KNOTS as KNOTS
from linearize.merge.lines import LINES as LINES
from linearize.merge.mean import MEAN as MEAN
from linearize.merge.merge import TRAINING as TRAINING
from linearize.merge.merge import Merge as Merge
from linearize.merge.metagpt import METAGPT as METAGPT
from linearize.merge.optimal import EXPERTS as EXPERTS
from linearize.merge.optimal import EXPERTS_TENSORS as EXPERTS_TENSORS
from linearize.merge.optimal import OPTIMAL as OPTIMAL
from linearize.merge.optimal import OPTIMAL_TENSORS as OPTIMAL_TENSORS
from linearize.merge.random import RANDOM as RANDOM
from linearize.merge.regmean import REGMEAN as REGMEAN
from linearize.merge.sum import SUM as SUM
from linearize.merge.ties import TIES as TIES
from linearize.merge.ties import TIES_SUM as TIES_SUM
from linearize.merge.tsv_m import TSV_M as TSV_M
from linearize.merge.wudi import WUDI as WUDI

MERGES: dict[str, Merge] = {
    merge.name: merge
    for merge in (
        *(SUM, RANDOM, MEAN, METAGPT, TIES, TIES_SUM, DARE, DARE_TIES, CONSENSUS),
        *(TSV_M, ISO_C, ISO_CTS, WUDI, LINES, KNOTS),
        *(CONSENSUS_TASKS, FISHER, REGMEAN, ADAMERGING, ADAMERGING_TENSORS),
        *(OPTIMAL, EXPERTS, OPTIMAL_TENSORS, EXPERTS_TENSORS),
    )
}
"""By name; a row of one's own is added by assignment."""
