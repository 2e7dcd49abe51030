"""The model displaced along task vectors, on every task's examples, one pass at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from linearize import tree
from linearize.compiled import jit
from linearize.current import current
from linearize.evaluate import Readout, as_readout
from linearize.evaluate.affine import stack
from linearize.evaluate.batches import Batches, split_batches
from linearize.evaluate.displace import displace, pad_rows
from linearize.objectives.distances import Compare, Distance, missing
from linearize.types import Apply, Array, Params, PyTree


@dataclass(frozen=True, eq=False)
class Passes:
    """The model at ``θ0 + Σ α_t τ_t`` on each task's examples, cut into batches once."""

    f: Apply
    params0: Params
    stacked: dict[str, Array]
    batches: Sequence[Batches]
    masks: Sequence[list[Array]]
    """1 for an example, 0 for padding: (size,) a batch, a list a task."""
    readouts: Sequence[jax.tree_util.Partial]
    distance: Distance

    @classmethod
    def over(
        cls,
        f: Apply,
        params0: Params,
        taus: Sequence[PyTree],
        inputs: Sequence[PyTree],
        readouts: Sequence[Readout],
        distance: Distance,
        batch_size: int,
    ) -> "Passes":
        """Cut each task's examples into equal batches and put them on the device."""
        batches = [split_batches(x, batch_size, balanced=True) for x in inputs]
        return cls(
            current(f, params0, *batches[0].items[0]),
            params0,
            stack(params0, taus),
            batches,
            [pad_rows(np.ones(b.n, np.float32), b, fill=0) for b in batches],
            [as_readout(readout) for readout in readouts],
            distance,
        )

    @property
    def sizes(self) -> np.ndarray:
        """(T,): examples of each task, float64."""
        return np.array([b.n for b in self.batches], np.float64)

    def params(self, alphas: np.ndarray) -> Params:
        """θ0 + Σ α_t τ_t."""
        return displace(self.params0, self.stacked, alphas)

    def logits(self, task: int, params: Params, first: bool = False) -> list[Array]:
        """Logits on the task's examples, (size, C) a batch; ``first``: of the first alone."""
        items = self.batches[task].items
        items = items[:1] if first else items
        return [_logits(self.f, self.readouts[task], params, args) for args in items]

    def encoded(self, task: int, params: Params) -> list[Array]:
        """What the distance keeps of the predictions, a batch each."""
        return list(map(self.encode, self.logits(task, params)))

    def encode(self, logits: Array) -> Array:
        """What the distance keeps of one batch's."""
        return _encoded(self.distance.kept, logits)

    def distances(self, task: int, params: Params, singles: list[Array]) -> list[Array]:
        """Summed distance of the predictions at ``params`` to ``singles``, a scalar a batch."""
        run = partial(self.distance_to, task, params)
        return list(map(run, self.batches[task].items, singles, self.masks[task]))

    def distance_to(
        self,
        task: int,
        params: Params,
        args: PyTree,
        single: Array | np.ndarray,
        mask: Array | np.ndarray,
    ) -> Array:
        """Of one batch: distances to ``single``, summed where the mask is not 0."""
        run = partial(_distance, self.f, self.distance.kept, self.distance.between)
        return run(self.readouts[task], params, args, single, mask)

    def check_finite(self, task: int, kept: list[Array]) -> None:
        """Predictions at θ0 are finite.

        Raises:
            NonFiniteError: with the task and the number of examples.
        """
        flags = [missing(k) & (m > 0) for k, m in zip(kept, self.masks[task], strict=True)]
        bad = sum(int(jnp.sum(flag)) for flag in flags)
        if bad:
            raise tree.NonFiniteError(
                f"task {task}: the model's predictions at θ0 are NaN or infinite for {bad} of "
                f"{self.batches[task].n} examples; look at what f does with them"
            )

    def to_themselves(self, task: int, singles: list[Array]) -> list[Array]:
        """Summed distance of predictions to themselves, a scalar a batch: 0 for any metric."""
        run = partial(_masked_sum, self.distance.between)
        return list(map(run, singles, singles, self.masks[task]))


@partial(jit, static_argnums=0)
def _logits(f: Apply, readout: jax.tree_util.Partial, params: Params, args: PyTree) -> Array:
    return readout(f(params, *args))


_encoded = jit(lambda encode, logits: encode(logits), static_argnums=0)


@partial(jit, static_argnums=(0, 1, 2))
def _distance(
    f: Apply,
    encode: Callable[[Array], Array],
    compare: Compare,
    readout: jax.tree_util.Partial,
    params: Params,
    args: PyTree,
    single: Array,
    mask: Array,
) -> Array:
    return _masked_sum(compare, single, encode(readout(f(params, *args))), mask)


@partial(jit, static_argnums=0)
def _masked_sum(compare: Compare, a: Array, b: Array, mask: Array) -> Array:
    return jnp.sum(jnp.where(mask > 0, compare(a, b), 0))
