"""What a model is to the rest of the library: a function, its parameters, and a few facts."""

import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from linearize.functional import from_linen, from_nnx
from linearize.taylor import check_function
from linearize.types import Apply, Params, PyTree


@dataclass(frozen=True, eq=False)
class Model:
    """A model as ``f(params, *inputs)``, with ``params`` at θ0.

    Attributes:
        f: ``f(params, *inputs) -> outputs``, examples on axis 0 of each.
        params: θ0, any tree of arrays.
        name: for people.
        blocks: names of the model's blocks from input to output, each a prefix of its leaves'
            names. A layer-scanned model has the single block ``"blocks"``, stacked on axis 0.
        example: one input's shapes and dtypes, ``jax.ShapeDtypeStruct`` without the axis of
            examples; a tuple for several arguments. None where the data say
            (:attr:`linearize.Examples.example`).
        fixed: names of the leaves that must stay at θ0, because what they decide is among the
            inputs of ``f`` (:mod:`linearize.models.frozen`).
        about: what else is known of it, by name.

    Raises:
        TypeError: ``f`` is no function.

    >>> model = Model(lambda params, x: x @ params["w"], {"w": np.ones((3, 2))})
    >>> model.f(model.params, np.ones((4, 3))).shape
    (4, 2)
    """

    f: Apply
    params: Params
    _: KW_ONLY
    name: str = "model"
    blocks: tuple[str, ...] = ()
    example: PyTree = None
    fixed: frozenset[str] = frozenset()
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_function(self.f)
        object.__setattr__(self, "blocks", tuple(self.blocks))

    @classmethod
    def of(cls, given: Any) -> "Model":
        """A model, whichever way it is written.

        Args:
            given: a Model; an nnx model; ``(module, variables)`` of linen; or ``(f, params)``. Of
                Flax's, evaluation mode is taken (:mod:`linearize.functional`).

        Raises:
            TypeError: another kind of object.
            ValueError: a model without floating parameters.
        """
        if isinstance(given, Model):
            return given
        if isinstance(given, nnx.Module):
            return Model(*from_nnx(given), name=type(given).__name__)
        if isinstance(given, tuple | list) and len(given) == 2:
            first, second = given
            if isinstance(first, linen.Module):
                return Model(*from_linen(first, second), name=type(first).__name__)
            return Model(first, second)
        raise TypeError(
            f"the model is a {type(given).__name__}; expected a linearize.Model, an nnx model, "
            "(module, variables) of linen, or (f, params)"
        )

    def fake_batch(self, batch_size: int, seed: int = 0) -> PyTree:
        """Inputs of noise: pixels for uint8, standard normal floats, and 0 or 1 for other integers.

        Raises:
            ValueError: the model has no ``example``.
        """
        if self.example is None:
            raise ValueError(
                f"{self.name} has no example, so its inputs are unknown; give Model(..., "
                "example=...) one input's shapes and dtypes"
            )
        rng = np.random.default_rng(seed)
        return jax.tree.map(lambda leaf: _noise(rng, (batch_size, *leaf.shape), leaf), self.example)

    def last(self, n: int) -> tuple[str, ...]:
        """Patterns of the last ``n`` blocks, for :func:`linearize.tree.select`.

        Raises:
            ValueError: ``n`` is not between 1 and the number of blocks.
        """
        if not 1 <= n <= len(self.blocks):
            known = f" to choose from: {', '.join(self.blocks)}" if self.blocks else ""
            raise ValueError(f"n={n}; {self.name} has {len(self.blocks)} block(s){known}")
        return tuple(f"^{re.escape(block)}/" for block in self.blocks[-n:])


def _noise(rng: np.random.Generator, shape: tuple[int, ...], leaf: Any) -> np.ndarray:
    if jnp.issubdtype(leaf.dtype, jnp.inexact):
        return rng.standard_normal(shape).astype(leaf.dtype)
    if leaf.dtype == np.uint8:
        return rng.integers(0, 256, shape, dtype=np.uint8)
    return rng.integers(0, 2, shape).astype(leaf.dtype)
