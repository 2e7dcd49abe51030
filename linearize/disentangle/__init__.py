"""How far apart tasks lie in weight space: maps of the disentanglement error."""

from linearize.disentangle.error_map import ErrorMap as ErrorMap
from linearize.disentangle.error_map import Preview as Preview
from linearize.disentangle.measure import disentanglement_error as disentanglement_error
from linearize.objectives.distances import DISTANCES as DISTANCES
