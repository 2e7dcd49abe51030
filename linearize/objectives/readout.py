"""What turns features into logits: any function, or a head whose algebra can be used."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from linearize.current import current
from linearize.fields import integer
from linearize.models.heads import Head, apply_head
from linearize.types import Array

Readout = Callable[[Array], Array] | Head | None
"""``features (N, D) -> logits (N, C)``, a head, or ``None``: the model's outputs are logits."""


def as_readout(readout: Readout) -> jax.tree_util.Partial:
    """The readout as a function that is a pytree: its arrays are arguments of a jitted caller.

    Raises:
        TypeError: neither a head, a function, nor ``None``.
    """
    if readout is None:
        return jax.tree_util.Partial(_identity)
    if isinstance(readout, jax.tree_util.Partial):
        return readout
    if isinstance(readout, Head):
        return jax.tree_util.Partial(apply_head, readout)
    if callable(readout):
        return jax.tree_util.Partial(current(readout))
    raise TypeError(
        f"readout is a {type(readout).__name__}; expected a function of features, a Head, or None"
    )


def columns(classes: Sequence[int]) -> jax.tree_util.Partial:
    """A readout of some columns of the outputs: the others are no classes of the task.

    So a head of three labels serves a task of two: the third has no share in the softmax. Labels
    are the places in ``classes``.

    Raises:
        ValueError: no two columns, or one twice.

    >>> columns([0, 2])(jnp.array([[1.0, 2.0, 3.0]])).tolist()
    [[1.0, 3.0]]
    """
    chosen = tuple(integer("classes", each, low=0) for each in classes)
    if len(chosen) < 2 or len(set(chosen)) < len(chosen):
        raise ValueError(f"classes={list(classes)}; expected two columns or more, each once")
    return jax.tree_util.Partial(_Columns(chosen))


@dataclass(frozen=True)
class _Columns:
    classes: tuple[int, ...]

    def __call__(self, outputs: Array) -> Array:
        if max(self.classes) >= outputs.shape[-1]:  # JAX would take the last one
            raise ValueError(
                f"classes={list(self.classes)}; the outputs have {outputs.shape[-1]} columns"
            )
        return outputs[..., list(self.classes)]


def class_scores(readout: Readout) -> jax.tree_util.Partial | None:
    """A map from features to scores with the readout's argmax, *affine* in the features, if any.

    A head without normalisation is affine itself. Normalisation divides all classes by one norm,
    so without a bias it changes no argmax: ``(z - center) @ kernel`` ranks the classes alike.

    Returns:
        A function ``(N, D) -> (N, C)``, a pytree, or ``None`` where no such map is known. For a
        normalised head the scores are the explorer's; otherwise they are the logits.
    """
    if readout is None:
        return as_readout(None)
    if not isinstance(readout, Head) or (readout.normalize and readout.bias is not None):
        return None
    return jax.tree_util.Partial(_numerators if readout.normalize else apply_head, readout)


def affine_logits(readout: Readout) -> bool:
    """Whether logits are known to be affine in the features: none is between, or a plain head.

    >>> affine_logits(None), affine_logits(jnp.tanh)
    (True, False)
    """
    if isinstance(readout, jax.tree_util.Partial) and readout.func is apply_head:
        readout = readout.args[0]
    return readout is None or (isinstance(readout, Head) and not readout.normalize)


def _identity(features: Array) -> Array:
    return features


def _numerators(head: Head, features: Array) -> Array:
    centred = features - head.center[None]
    precise = jax.lax.Precision.HIGHEST
    return jnp.sign(head.scale) * jnp.matmul(centred, head.kernel, precision=precise)
