"""Whole data sets through a model, once; everything affine afterwards is algebra."""

from linearize.evaluate.affine import AffineOutputs as AffineOutputs
from linearize.evaluate.affine import affine_outputs as affine_outputs
from linearize.evaluate.batches import examples as examples
from linearize.evaluate.batches import outputs as outputs
from linearize.evaluate.displace import displaced_accuracy as displaced_accuracy
from linearize.evaluate.displace import displaced_values as displaced_values
from linearize.evaluate.grid import grid_accuracy as grid_accuracy
from linearize.evaluate.grid import grid_logits as grid_logits
from linearize.evaluate.grid import grid_values as grid_values
from linearize.evaluate.metrics import Interval as Interval
from linearize.evaluate.metrics import binomial_interval as binomial_interval
from linearize.evaluate.metrics import seed_interval as seed_interval
from linearize.evaluate.pairs import rank_correlation as rank_correlation
from linearize.evaluate.stream import streamed_values as streamed_values
from linearize.objectives.predictions import accuracy as accuracy
from linearize.objectives.predictions import predicted as predicted
from linearize.objectives.readout import Readout as Readout
from linearize.objectives.readout import as_readout as as_readout
from linearize.objectives.readout import class_scores as class_scores
