"""The diagonal of the Fisher information: how sensitive predictions are to each entry."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from linearize import shares, tree
from linearize.choices import one_of
from linearize.compiled import jit
from linearize.current import current
from linearize.evaluate.batches import split_batches, track
from linearize.examples import Examples
from linearize.objectives.readout import Readout, as_readout
from linearize.types import Apply, Array, Params, PyTree

SCORES = {"log_probability": jax.nn.log_softmax, "logit": lambda logits: logits}
"""What of y is differentiated. The Fisher information has the former; the public code's backward
pass begins at the logit itself, which also counts what moves all logits alike."""


def sensitivity(
    f: Apply,
    params: Params,
    examples: Examples,
    names: Sequence[str],
    key: Array,
    *,
    readout: Readout = None,
    score: str = "log_probability",
    batch_size: int = 8,
) -> dict[str, np.ndarray]:
    """Σ_x (∂ log p(y|x) / ∂θ_j)² over examples, an entry of the named leaves each.

    Args:
        f: ``f(params, *inputs) -> outputs``.
        params: θ, at which it is taken.
        examples: inputs alone count; y of example i is
            ``jax.random.categorical(jax.random.fold_in(key, i), logits)``, however it is batched.
        names: of the leaves.
        key: a PRNG key.
        readout: the frozen head, ``outputs -> logits (B, C)``; identity by default.
        score: a row of :data:`SCORES`.
        batch_size: examples whose gradients are held at a time.

    Returns:
        Sums by name, of the leaves' shapes, float32 or wider.

    Raises:
        NonFiniteError: a sum is NaN or infinite.

    >>> f = lambda params, x: x @ params["w"]
    >>> data, w = Examples(np.ones((4, 1))), np.zeros((1, 2), "float32")
    >>> sensitivity(f, {"w": w}, data, ["w"], jax.random.key(0))["w"]  # (1 - 1 / 2)² of each
    array([[1., 1.]], dtype=float32)
    """
    one_of("score", score, SCORES)
    batches = split_batches(examples.inputs, batch_size)
    f, read = current(f, params, *batches.items[0]), as_readout(readout)
    base = tree.flatten(params)
    rows = np.arange(len(jax.tree.leaves(batches.items[0])[0]), dtype=np.int32)

    def summed(own: range) -> dict[str, np.ndarray]:
        total = tree.zeros({name: base[name] for name in names})
        for b in track(own, False, "sensitivity"):
            here, args = rows + b * len(rows), batches.items[b]
            total = _added(f, score, total, params, read, args, here, here < batches.n, key)
        return {name: np.asarray(leaf) for name, leaf in total.items()}

    found = shares.total(summed, len(batches.items))
    tree.check_finite(found, what="the sensitivity")
    return found


@partial(jit, static_argnums=(0, 1))
def _added(
    f: Apply,
    score: str,
    total: dict[str, Array],
    params: Params,
    readout: jax.tree_util.Partial,
    args: tuple[PyTree, ...],
    rows: Array,
    known: Array,
    key: Array,
) -> dict[str, Array]:
    """The sums with those of a batch, of whose examples some are padding."""
    base = tree.flatten(params)

    def squares(row: Array, args: tuple[PyTree, ...]) -> dict[str, Array]:
        one = jax.tree.map(lambda leaf: leaf[None], args)

        def value(moving: dict[str, Array]) -> Array:
            logits = readout(f(tree.update(params, moving), *one))[0]
            drawn = jax.random.categorical(jax.random.fold_in(key, row), logits)
            return SCORES[score](logits)[drawn]

        slopes = jax.grad(value)({name: base[name] for name in total})
        return {n: jnp.abs(slopes[n].astype(t.dtype)) ** 2 for n, t in total.items()}

    each = jax.vmap(squares)(rows, args)
    precise = jax.lax.Precision.HIGHEST
    return {
        n: t + jnp.tensordot(known.astype(t.dtype), each[n], 1, precision=precise)
        for n, t in total.items()
    }
