"""``jax.jit`` for programs that hold Jacobians.

XLA for CPUs fuses reductions into calls of YNNPACK, and in jaxlib 0.10 such a fusion can be wrong
without a word: of ``vmap(jacrev(f))`` through a LayerNorm whose scale is an ``rsqrt`` (Flax's), the
rows beyond the first 32,768 numbers of each example come out wrong by tens of per cent where there
are more than 2**18 numbers in all. jaxlib 0.12 does not show it. Until then kernels are compiled
with fusions of dot products alone; ``tests/ntk/test_compiled.py`` holds the case.
"""

from collections.abc import Callable
from typing import Any

import jax
import jaxlib

_FUSIONS_ARE_SOUND = (0, 12)


def compiler_options() -> dict[str, str]:
    """What :func:`jit` hands to XLA: nothing, except on CPUs for the jaxlib that needs it."""
    version = tuple(int(part) for part in jaxlib.__version__.split(".")[:2])
    if version >= _FUSIONS_ARE_SOUND or jax.default_backend() != "cpu":
        return {}
    return {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT"}


def jit(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """``jax.jit`` with :func:`compiler_options`; for programs that are called from Python alone.

    >>> import jax.numpy as jnp
    >>> jit(jax.vmap(jax.jacrev(jnp.sin)))(jnp.zeros(2)).tolist()
    [1.0, 1.0]
    """
    return jax.jit(function, compiler_options=compiler_options(), **options)
