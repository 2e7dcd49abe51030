"""Curvature of features by layer: what a displacement does to a task, without its examples.

measure              Kronecker factors of G = E[JᵀJ] at θ0, of any f, as a card
Card                 such factors, of a task or a reference set: τᵀGτ, one safetensors file
Normalized           f with features of length 1
Asked                f with outputs that are 0 where nothing is asked
merge                one card for a sum of tasks
sensitivity          the diagonal of the Fisher information, of predictions under a head
"""

from linearize.curvature.blocks import quadratic as quadratic
from linearize.curvature.card import Card as Card
from linearize.curvature.card import NotSemidefiniteError as NotSemidefiniteError
from linearize.curvature.card import check_alike as check_alike
from linearize.curvature.card import merge as merge
from linearize.curvature.features import Asked as Asked
from linearize.curvature.features import Normalized as Normalized
from linearize.curvature.measure import WIDEST as WIDEST
from linearize.curvature.measure import measure as measure
