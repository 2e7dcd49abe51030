"""Classification under a frozen head: cross-entropy, accuracy, changed predictions."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from linearize.choices import one_of
from linearize.losses import cross_entropy
from linearize.models.heads import Head, pad_head
from linearize.objectives.confusion import OF_CONFUSION, confusion, of_confusion
from linearize.objectives.distances import DISTANCES, Distance, as_distance
from linearize.objectives.metric import ACCURACY, Metric
from linearize.objectives.objective import Objective, Targets, Totals
from linearize.objectives.predictions import predicted
from linearize.objectives.readout import Readout, as_readout, class_scores
from linearize.objectives.targets import check_labels, role
from linearize.types import Array, Batch


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["readout"],
    meta_fields=["smoothing", "distance", "metric"],
)
@dataclass(frozen=True)
class Classify(Objective):
    """``labels`` (B,) int among the classes that a frozen head knows.

    >>> Classify().measure(jnp.array([[0.0, 2.0], [0.0, 2.0]]), {"labels": jnp.array([1, 0])})
    {'accuracy': 0.5}
    """

    readout: Readout = None
    """Outputs to logits (B, C): a head, or a function that JAX can trace; None where the model's
    outputs are logits."""
    smoothing: float = 0.0
    """Of the loss: share of the uniform distribution in the target, in [0, 1)."""
    distance: Distance = field(default=DISTANCES["argmax"])
    metric: str = "accuracy"
    """What decides: accuracy, or a row of :data:`linearize.objectives.confusion.OF_CONFUSION`."""

    def __post_init__(self) -> None:
        one_of("metric", self.metric, ("accuracy", *OF_CONFUSION))
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing={self.smoothing}; expected a share in [0, 1)")
        object.__setattr__(self, "distance", as_distance(self.distance))
        algebraic = isinstance(self.readout, jax.tree_util.Partial | Head)
        if callable(self.readout) and not algebraic:
            object.__setattr__(self, "readout", as_readout(self.readout))

    @property
    def metrics(self) -> tuple[Metric, ...]:  # type: ignore[override]
        """The one that decides, and accuracy."""
        if self.metric == "accuracy":
            return (ACCURACY,)
        return (OF_CONFUSION[self.metric].metric, ACCURACY)

    def logits(self, outputs: Array) -> Array:
        """Logits (B, C) of a model's outputs."""
        return as_readout(self.readout)(outputs)

    def loss(self, outputs: Array, batch: Batch) -> Array:
        """Cross-entropy in nats, (B,) float32; NaN where the label is none of the classes."""
        logits, labels = self.logits(outputs), batch["labels"]
        known = (labels >= 0) & (labels < logits.shape[-1])
        own = cross_entropy(logits, jnp.where(known, labels, 0), self.smoothing)
        return jnp.where(known, own, jnp.nan)

    def statistics(self, outputs: Array, batch: Batch) -> dict[str, Array]:
        """``hits``, and ``examples`` (1 each), (B,) int32. No NaN is a hit.

        ``confusion`` (B, C, C + 1) int32 in their place, of a metric that is read off it.
        """
        logits, labels = self.logits(outputs), batch["labels"]
        found = predicted(logits)
        if self.metric != "accuracy":
            return {"confusion": confusion(found, labels, logits.shape[-1])}
        hits = (found == labels).astype(np.int32)
        return {"hits": hits, "examples": jnp.ones_like(hits)}

    def values(self, totals: Totals) -> dict[str, np.ndarray]:
        """Accuracy, in [0, 1], after what decides in its place."""
        if self.metric == "accuracy":
            return {"accuracy": np.asarray(totals["hits"], np.float64) / totals["examples"]}
        return of_confusion(self.metric, totals["confusion"])

    def kept(self, outputs: Array, batch: Batch) -> Array:
        """What the distance keeps of the logits."""
        return self.distance.kept(self.logits(outputs))

    def check(self, outputs: Array, batch: Targets) -> None:
        """Labels are integers among the classes."""
        logits = jax.eval_shape(self.logits, outputs).shape
        if len(logits) != 2:
            raise ValueError(
                f"the logits have shape {logits}; expected (B, C), one class an example. Where "
                "each position has a class of its own, give CausalLM"
            )
        check_labels(role(batch, "labels", self), *logits)

    def reduced(self) -> tuple[jax.tree_util.Partial, Objective] | None:
        """Class scores of a head without a bias or without normalisation."""
        scores = class_scores(self.readout)
        return (
            None
            if self.readout is None or scores is None
            else (scores, Classify(distance=self.distance, metric=self.metric))
        )

    def opened(self) -> tuple[jax.tree_util.Partial, Objective]:
        """The head, and classification by logits."""
        return as_readout(self.readout), replace(self, readout=None)

    def alike(self, others: Sequence[Objective]) -> Objective:
        """A head padded to the most classes that any of them has; not where all have a share."""
        if self.smoothing or not isinstance(self.readout, Head):
            return self
        reads = [each.readout for each in others if isinstance(each, Classify)]
        most = max(read.kernel.shape[1] for read in reads if isinstance(read, Head))
        return replace(self, readout=pad_head(self.readout, most))

    def training(self) -> dict[str, Any]:
        """``readout=``: the loop's own loss is this one, and shows the accuracy.

        The loop smooths as its recipe says; smoothing of the objective's own needs ``loss=``.
        """
        if self.smoothing:
            return super().training()
        return {"readout": None if self.readout is None else as_readout(self.readout)}
