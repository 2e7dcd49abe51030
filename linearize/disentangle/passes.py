"""The model displaced along task vectors, on every task's examples, one pass at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from linearize import tree
from linearize.compiled import jit
from linearize.disentangle.compared import Compared
from linearize.evaluate.batches import Batches
from linearize.evaluate.displace import displace
from linearize.examples import count
from linearize.objectives.distances import missing
from linearize.types import Apply, Array, Params, PyTree


@dataclass(frozen=True, eq=False)
class Passes:
    """The model at ``θ0 + Σ α_t τ_t`` on each task's examples, cut into batches once."""

    f: Apply
    params0: Params
    stacked: dict[str, Array]
    batches: Sequence[Batches]
    reads: Sequence[jax.tree_util.Partial]
    """Each task's outputs to predictions."""
    whole: Sequence[Compared]
    """How each task's predictions are compared, of all its examples."""
    compared: Sequence[list[Compared]]
    """The same, a batch each, on the device."""

    @classmethod
    def over(
        cls,
        f: Apply,
        params0: Params,
        stacked: dict[str, Array],
        batches: Sequence[Batches],
        compared: Sequence[Compared],
    ) -> "Passes":
        """Put each task's targets on the device, in equal batches."""
        opened = [each.objective.opened() for each in compared]
        whole = [
            each._replace(objective=rest) for each, (_, rest) in zip(compared, opened, strict=True)
        ]
        sizes = [count(b.items[0]) for b in batches]
        parts = [each.batches(size) for each, size in zip(whole, sizes, strict=True)]
        reads = [read for read, _ in opened]
        return cls(f, params0, stacked, batches, reads, whole, jax.device_put(parts))

    def params(self, alphas: np.ndarray) -> Params:
        """θ0 + Σ α_t τ_t."""
        return displace(self.params0, self.stacked, alphas)

    def logits(self, task: int, params: Params, first: bool = False) -> list[Array]:
        """Predictions on the task's examples, (size, ...) a batch; ``first``: of that alone."""
        items = self.batches[task].items
        items = items[:1] if first else items
        return [_logits(self.f, self.reads[task], params, args) for args in items]

    def encoded(self, task: int, params: Params) -> list[Array]:
        """What is kept of the predictions, a batch each."""
        return list(map(self.encode, self.compared[task], self.logits(task, params)))

    def encode(self, compared: Compared, predictions: Array) -> Array:
        """What is kept of one batch's."""
        return _encoded(compared, predictions)

    def distances(self, task: int, params: Params, singles: list[Array]) -> list[Array]:
        """Summed distance of the predictions at ``params`` to ``singles``, a scalar a batch."""
        run = partial(self.distance_to, task, params)
        return list(map(run, self.batches[task].items, self.compared[task], singles))

    def distance_to(
        self,
        task: int,
        params: Params,
        args: PyTree,
        compared: Compared,
        single: Array | np.ndarray,
    ) -> Array:
        """Of one batch: summed distance to ``single``."""
        return _distance(self.f, self.reads[task], compared, params, args, single)

    def check_finite(self, task: int, kept: list[Array]) -> None:
        """Predictions at θ0 are finite.

        Raises:
            NonFiniteError: with the task and the number of examples.
        """
        pairs = zip(kept, self.compared[task], strict=True)
        bad = sum(int(jnp.sum(missing(k) & (c.counts > 0))) for k, c in pairs)
        if bad:
            raise tree.NonFiniteError(
                f"task {task}: the model's predictions at θ0 are NaN or infinite for {bad} of "
                f"{self.batches[task].n} examples; look at what f does with them"
            )

    def to_themselves(self, task: int, singles: list[Array]) -> list[Array]:
        """Summed distance of predictions to themselves, a scalar a batch: 0 for any metric."""
        return list(map(_summed, self.compared[task], singles, singles))


@partial(jit, static_argnums=0)
def _logits(f: Apply, read: jax.tree_util.Partial, params: Params, args: PyTree) -> Array:
    return read(f(params, *args))


@jit
def _encoded(compared: Compared, predictions: Array) -> Array:
    return compared.kept(predictions)


@partial(jit, static_argnums=0)
def _distance(
    f: Apply,
    read: jax.tree_util.Partial,
    compared: Compared,
    params: Params,
    args: PyTree,
    single: Array,
) -> Array:
    return _summed(compared, single, compared.kept(read(f(params, *args))))


@jit
def _summed(compared: Compared, a: Array, b: Array) -> Array:
    return jnp.sum(compared.apart(a, b))
