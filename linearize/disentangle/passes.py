"""The model displaced along task vectors, on a task's examples, one pass at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from linearize import tree
from linearize.compiled import jit
from linearize.disentangle.compared import Compared
from linearize.evaluate.batches import Batches
from linearize.evaluate.displace import displace
from linearize.evaluate.grid import CHUNK_FLOATS
from linearize.examples import count
from linearize.objectives.distances import missing
from linearize.types import Apply, Array, Params, PyTree


@dataclass(frozen=True, eq=False)
class Passes:
    """The model at ``θ0 + Σ α_t τ_t`` on one task's examples, cut into batches once."""

    f: Apply
    params0: Params
    stacked: dict[str, Array]
    task: int
    batches: Batches
    read: jax.tree_util.Partial
    """Outputs to predictions."""
    whole: Compared
    """How predictions are compared, of all examples."""
    compared: Sequence[Compared]
    """The same, a batch each, on the device."""

    @classmethod
    def over(
        cls,
        f: Apply,
        params0: Params,
        stacked: dict[str, Array],
        task: int,
        batches: Batches,
        compared: Compared,
    ) -> "Passes":
        """Put the task's targets on the device, in equal batches."""
        read, rest = compared.objective.opened()
        whole = compared._replace(objective=rest)
        parts = jax.device_put(whole.batches(batches))
        return cls(f, params0, stacked, task, batches, read, whole, parts)

    def parts(self, times: int, *, kept: bool = False) -> "Iterator[Passes]":
        """The batches in turns of as many as :data:`CHUNK_FLOATS` allows, or else one by one.

        Args:
            times: how often something of each batch is held.
            kept: whether that is what is kept of its predictions; the predictions otherwise.
        """
        size, items = count(self.batches.items[0]), self.batches.items
        step = at_once(len(items), times * self.numbers(kept))
        for start in range(0, len(items), step):
            first, last = start * size, min((start + step) * size, self.batches.n)
            yield replace(
                self,
                batches=Batches(items[start : start + step], last - first),
                whole=self.whole.take(np.arange(first, last)),
                compared=self.compared[start : start + step],
            )

    def numbers(self, kept: bool = True) -> int:
        """How many there are in a batch's predictions, or in what is kept of them."""
        logits = _logits.eval_shape(self.f, self.read, self.params0, self.batches.items[0])
        return (_encoded.eval_shape(self.compared[0], logits) if kept else logits).size

    def params(self, alphas: np.ndarray) -> Params:
        """θ0 + Σ α_t τ_t."""
        return displace(self.params0, self.stacked, alphas)

    def logits(self, params: Params, first: bool = False) -> list[Array]:
        """Predictions on the examples, (size, ...) a batch; ``first``: of that alone."""
        items = self.batches.items[:1] if first else self.batches.items
        return [_logits(self.f, self.read, params, args) for args in items]

    def encoded(self, params: Params) -> list[Array]:
        """What is kept of the predictions, a batch each."""
        return list(map(self.encode, self.compared, self.logits(params)))

    def encode(self, compared: Compared, predictions: Array) -> Array:
        """What is kept of one batch's."""
        return _encoded(compared, predictions)

    def distances(self, params: Params, singles: list[Array]) -> list[Array]:
        """Summed distance of the predictions at ``params`` to ``singles``, a scalar a batch."""
        run = partial(self.distance_to, params)
        return list(map(run, self.batches.items, self.compared, singles))

    def distance_to(
        self, params: Params, args: PyTree, compared: Compared, single: Array | np.ndarray
    ) -> Array:
        """Of one batch: summed distance to ``single``."""
        return _distance(self.f, self.read, compared, params, args, single)

    def check_finite(self, kept: list[Array]) -> None:
        """Predictions at θ0 are finite.

        Raises:
            NonFiniteError: with the task and the number of examples.
        """
        pairs = zip(kept, self.compared, strict=True)
        bad = sum(int(jnp.sum(missing(k) & (c.counts > 0))) for k, c in pairs)
        if bad:
            raise tree.NonFiniteError(
                f"task {self.task}: the model's predictions at θ0 are NaN or infinite for {bad} of "
                f"{self.batches.n} examples; look at what f does with them"
            )

    def to_themselves(self, singles: list[Array]) -> list[Array]:
        """Summed distance of predictions to themselves, a scalar a batch: 0 for any metric."""
        return list(map(_summed, self.compared, singles, singles))


def at_once(n: int, numbers: int) -> int:
    """How many of n things of so many numbers are held at once; one at least.

    >>> at_once(25, CHUNK_FLOATS // 4), at_once(25, 2 * CHUNK_FLOATS)
    (4, 1)
    """
    return max(1, min(n, CHUNK_FLOATS // max(numbers, 1)))


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
