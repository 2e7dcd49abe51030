"""Regression: squared error."""

from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from linearize.objectives.distances import Distance, as_distance, same
from linearize.objectives.metric import SQUARED_ERROR, Metric
from linearize.objectives.objective import Objective, Targets, Totals
from linearize.objectives.targets import role
from linearize.types import Array, Batch


def _all_finite(outputs: Array) -> Array:
    return jnp.isfinite(outputs).reshape(len(outputs), -1).all(1)


def _mean_square(a: Array, b: Array) -> Array:
    return jnp.square(a - b).reshape(len(a), -1).mean(1)


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["target", "distance"])
@dataclass(frozen=True)
class Squared(Objective):
    """``targets`` (B, ...) of the outputs' shape; numbers of an example are averaged.

    >>> Squared().measure(jnp.array([[0.0, 0.0]]), {"targets": jnp.array([[1.0, 3.0]])})
    {'mean squared error': 5.0}
    """

    target: str = "targets"
    """The role of what outputs are compared with."""
    distance: Distance = field(
        default=Distance("squared difference", same, _mean_square, finite=_all_finite)
    )

    metrics: ClassVar[tuple[Metric, ...]] = (SQUARED_ERROR,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "distance", as_distance(self.distance))

    def loss(self, outputs: Array, batch: Batch) -> Array:
        """Mean squared error of each example, (B,) float32."""
        return _mean_square(outputs.astype(jnp.float32), batch[self.target].astype(jnp.float32))

    def statistics(self, outputs: Array, batch: Batch) -> dict[str, Array]:
        """``squared``: the loss, (B,) float32; ``examples``: 1 each, (B,) int32."""
        return {
            "squared": self.loss(outputs, batch),
            "examples": jnp.ones(len(outputs), jnp.int32),
        }

    def values(self, totals: Totals) -> dict[str, np.ndarray]:
        """Mean squared error."""
        squared = np.asarray(totals["squared"], np.float64)
        return {"mean squared error": squared / totals["examples"]}

    def kept(self, outputs: Array, batch: Batch) -> Array:
        """The outputs."""
        return self.distance.kept(outputs)

    def check(self, outputs: Array, batch: Targets) -> None:
        """Targets have the outputs' shape, and are finite."""
        wanted = role(batch, self.target, self)
        if np.shape(wanted) != outputs.shape:
            raise ValueError(
                f"{self.target} have shape {np.shape(wanted)}; expected the outputs' "
                f"{outputs.shape}"
            )
        if not np.isfinite(np.asarray(wanted, np.float64)).all():
            raise ValueError(f"{self.target} hold NaN or infinity; mend them or leave them out")
