"""How far apart tasks lie in weight space: maps of the disentanglement error, and ‖J(x)τ‖²."""

from linearize.disentangle.error_map import ErrorMap as ErrorMap
from linearize.disentangle.error_map import Preview as Preview
from linearize.disentangle.interference import interference as interference
from linearize.disentangle.interference import restricted as restricted
from linearize.disentangle.measure import disentanglement_error as disentanglement_error
from linearize.objectives.distances import DISTANCES as DISTANCES
