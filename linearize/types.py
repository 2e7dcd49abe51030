"""The vocabulary of the library: three words that every signature is written in."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

Array = jax.Array
PyTree = Any

Params = PyTree
"""Any pytree of arrays. Leaves are called by name: their key path joined by ``/``."""

Flat = Mapping[str, Array]
"""Some leaves of a parameter tree, keyed by name. What is not named is not touched."""

Apply = Callable[..., PyTree]
"""``f(params, *inputs) -> outputs``, both arbitrary pytrees."""

Batch = Mapping[str, Array]
"""Arrays that share axis 0, keyed by role: ``inputs``, ``labels``, and what a loss may want."""
