"""Rows of a table by number, as a language model looks up its tokens."""

import jax.numpy as jnp

from linearize.types import Array


def embedded(
    table: Array, numbers: Array, mask: Array | None = None, *, what: str = "tokens"
) -> Array:
    """Rows (B, L, D) of a table (V, D); NaN of a number outside 0 to V − 1.

    JAX by itself takes the last row, or counts from the end: a word that nobody wrote.

    Args:
        table: (V, D).
        numbers: (B, L) integers.
        mask: (B, L) booleans, false where any number will do, since nothing looks at its row.
        what: what messages call the numbers.

    Raises:
        ValueError: numbers that are no integers (B, L).
    """
    if numbers.ndim != 2 or not jnp.issubdtype(numbers.dtype, jnp.integer):
        raise ValueError(
            f"{what} has shape {numbers.shape} and dtype {numbers.dtype}; expected (B, L) "
            "integers: texts, tokenised and padded to one length"
        )
    if mask is not None:
        numbers = jnp.where(mask, numbers, jnp.clip(numbers, 0, len(table) - 1))
    return jnp.asarray(table).at[numbers].get(mode="fill", wrap_negative_indices=False)
