"""Task arithmetic: add, negate and relate task vectors, and choose how far to go."""

from linearize.edit.joint import joint_examples as joint_examples
from linearize.edit.joint import joint_loss as joint_loss
from linearize.edit.optimal import OptimalCoefficients as OptimalCoefficients
from linearize.edit.optimal import certify as certify
from linearize.edit.optimal import optimal_coefficients as optimal_coefficients
from linearize.edit.search import NegationSearch as NegationSearch
from linearize.edit.search import ScaleSearch as ScaleSearch
from linearize.edit.search import normalized_accuracy as normalized_accuracy
from linearize.edit.search import search_negation as search_negation
from linearize.edit.search import search_scale as search_scale
from linearize.edit.sweep import regime_accuracies as regime_accuracies
from linearize.edit.vectors import add as add
from linearize.edit.vectors import analogy as analogy
from linearize.edit.vectors import negate as negate
from linearize.edit.vectors import random_like as random_like
from linearize.renamed import formerly

__getattr__ = formerly(__name__, Optimum="OptimalCoefficients")
