"""Loss, metric and distance of a task: what training lowers, searches compare, and maps measure."""

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from linearize.objectives.distances import Distance, aligned
from linearize.objectives.metric import Metric
from linearize.objectives.readout import as_readout
from linearize.types import Array, Batch, PyTree

Loss = Callable[[PyTree, Batch], Array]
"""``loss(outputs, batch) -> (B,)``."""

Targets = Mapping[str, Any]
"""Arrays (N, ...) by role."""

Totals = Mapping[str, np.ndarray]
"""Statistics summed over examples, by name; axes before a statistic's own are points."""


class Objective(abc.ABC):
    """What a number is, for one task; a pytree, whose arrays are arguments of compiled programs.

    A batch holds the examples' targets by role, arrays (B, ...). In evaluation it holds nothing
    else; in training the inputs lie beside them.
    """

    metrics: ClassVar[tuple[Metric, ...]]
    """What is measured; the first is what searches, tables and figures go by."""
    distance: Distance
    """How far apart two predictions are, for disentanglement error."""

    @property
    def primary(self) -> Metric:
        """The metric that decides."""
        return self.metrics[0]

    @abc.abstractmethod
    def loss(self, outputs: PyTree, batch: Batch) -> Array:
        """The loss of each example, (B,) float32; training lowers its mean."""

    @abc.abstractmethod
    def statistics(self, outputs: PyTree, batch: Batch) -> dict[str, Array]:
        """What metrics are made of, by name: (B, ...), sums of which over examples add up."""

    @abc.abstractmethod
    def values(self, totals: Totals) -> dict[str, np.ndarray]:
        """Each metric of statistics that were summed over examples; float64, an entry a point."""

    @abc.abstractmethod
    def kept(self, outputs: PyTree, batch: Batch) -> Array:
        """What :attr:`distance` compares of predictions (B, ...)."""

    @abc.abstractmethod
    def check(self, outputs: PyTree, batch: Targets) -> None:
        """Targets fit the outputs.

        Args:
            outputs: the model's, or their shapes.
            batch: all examples' targets, on the host.

        Raises:
            ValueError: a role is missing, or its values have another shape, dtype or range.
        """

    def total(self, outputs: PyTree, batch: Batch, mask: Array | None = None) -> dict[str, Array]:
        """:meth:`statistics` summed over examples; over those alone whose ``mask`` (B,) is true."""

        def summed(each: Array) -> Array:
            if mask is None:
                return jnp.sum(each, 0)
            return jnp.sum(jnp.where(aligned(mask, each), each, 0), 0)

        return {name: summed(each) for name, each in self.statistics(outputs, batch).items()}

    def measure(self, outputs: PyTree, batch: Targets) -> dict[str, float]:
        """Each metric of a model's outputs on a data set, by name.

        Raises:
            ValueError: the targets do not fit the outputs.
        """
        self.check(outputs, batch)
        totals = {name: np.asarray(total) for name, total in self.total(outputs, batch).items()}
        return {name: float(value) for name, value in self.values(totals).items()}

    def between(self, a: Array, b: Array, batch: Batch) -> Array:
        """How far apart two predictions are, (B,), of what is :meth:`kept` of them.

        It looks at what the targets ask for alone, where they mask parts of a prediction.
        """
        return self.distance.between(a, b)

    def counted(self, batch: Targets) -> ArrayLike | None:
        """How much each example counts in a mean of distances, (B,) ≥ 0; None where all do alike.

        0 where the targets ask for nothing.
        """
        return None

    def asked(self, batch: Targets) -> np.ndarray | None:
        """Which places of the outputs' first axes are asked for, bool (B, ...); None where all are.

        Each has an output of its own, such as the token after it; an example of which none is
        asked for counts 0 in :meth:`counted`.
        """
        return None

    def reduced(self) -> tuple[jax.tree_util.Partial, "Objective"] | None:
        """An affine map of outputs and an objective that reads what it gives; or None.

        The second has of the mapped outputs the statistics that this one has of the outputs, so
        that in the tangent view a point costs no more than the mapped outputs are wide; and, where
        only ranks count in its distance, the same is kept of them.
        """
        return None

    def opened(self) -> tuple[jax.tree_util.Partial, "Objective"]:
        """A map of outputs to predictions, and an objective that reads these."""
        return as_readout(None), self

    def alike(self, others: Sequence["Objective"]) -> "Objective":
        """The same objective in a shape that it shares with others, and so their compilations."""
        return self

    def training(self) -> dict[str, Any]:
        """``loss=`` or ``readout=`` of :func:`linearize.train.fine_tune`."""
        return {"loss": jax.tree_util.Partial(_loss, self)}


def _loss(objective: Objective, outputs: PyTree, batch: Batch) -> Array:
    return objective.loss(outputs, batch)
