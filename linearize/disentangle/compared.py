"""How the predictions of one task's examples are compared: by its objective, under its targets."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from linearize.evaluate.affine import check_one_array
from linearize.examples import count
from linearize.objectives import Objective, Targets
from linearize.types import Array, PyTree


class Compared(NamedTuple):
    """A task's objective and the targets of N examples; a pytree, an argument of programs."""

    objective: Objective
    targets: Mapping[str, Any]
    """(N, ...) by role."""
    counts: Any
    """(N,) float32: how much each example counts in the mean; 0 for padding."""

    @classmethod
    def of(cls, objective: Objective, targets: Targets, outputs: PyTree, task: int) -> "Compared":
        """Of a task's outputs, or their shapes, as :meth:`~Objective.counted` counts the examples.

        Raises:
            ValueError: targets that do not fit, predictions that are not one array, another number
                of counts, one that is negative or not finite, or none that is positive.
        """
        host = {role: np.asarray(each) for role, each in targets.items()}
        try:
            if host:
                objective.check(outputs, host)
            read, _ = objective.opened()
            check_one_array(jax.eval_shape(read, outputs))
            given = objective.counted(host)
        except ValueError as error:
            raise ValueError(f"task {task}: {error}") from error
        n = count(outputs)
        counts = np.ones(n, np.float32) if given is None else np.asarray(given, np.float32)
        if counts.shape != (n,) or not (np.isfinite(counts) & (counts >= 0)).all():
            raise ValueError(
                f"task {task}: {type(objective).__name__}.counted gives {counts.tolist()}; "
                f"expected ({n},) finite numbers, 0 or more"
            )
        if not counts.any():
            raise ValueError(
                f"task {task}: none of {n} examples counts, since their targets ask for nothing; "
                "give others, or a larger n_eval"
            )
        return cls(objective, host, counts)

    @property
    def total(self) -> float:
        """What all examples together count, by which sums are divided."""
        return float(np.sum(self.counts, dtype=np.float64))

    @property
    def real(self) -> np.ndarray:
        """The examples that count, by number."""
        return np.flatnonzero(np.asarray(self.counts))

    def take(self, rows: np.ndarray) -> "Compared":
        """Some of the examples, in the order given."""
        targets = {role: each[rows] for role, each in self.targets.items()}
        return self._replace(targets=targets, counts=self.counts[rows])

    def batches(self, size: int) -> "list[Compared]":
        """As many as a batch holds; those that pad the last are repeated and do not count."""
        n, found = len(self.counts), []
        for start in range(0, n, size):
            rows = np.arange(start, start + size)
            each = self.take(np.minimum(rows, n - 1))
            found.append(each._replace(counts=np.where(rows < n, each.counts, np.float32(0))))
        return found

    def kept(self, predictions: Array) -> Array:
        """What is compared of predictions (N, ...)."""
        return self.objective.kept(predictions, self.targets)

    def apart(self, a: Array, b: Array) -> Array:
        """(N,) distances of what is kept of two predictions, as much as the examples count."""
        distances = self.objective.between(a, b, self.targets)
        return jnp.where(self.counts > 0, self.counts * distances, 0)
