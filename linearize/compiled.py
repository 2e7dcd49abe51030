"""``jax.jit`` with the options under which XLA computes what the program says.

XLA for CPUs hands parts of a program to YNNPACK, and in jaxlib 0.10 and 0.11 such a fusion can be
wrong without a word, change from call to call, or end the process:

    default options      0.10.2: sums of many rows (``vmap(jacrev(f))`` through a LayerNorm, from
                         2**18 numbers on; Σ (A x_n)² of more than 2**15 rows, jax-ml/jax#39103);
                         a crash where a product of rank 7 is summed (#40412)
    fusions of products  0.10.2 and 0.12.0: two arrays contracted over their last axis, batched over
    alone                the one before and transposed, from 16 examples on: a kernel's diagonal
    no fusion            none found, in 0.10.2 or 0.12.0

Of 49 programs of training, affine passes and Jacobians (dense, convolutions, attention, three kinds
of norm; to 400,000 numbers) none was wrong under default options in 0.10.2 or 0.12.0; but sums of
rows as above may stand in any model or loss, and no fusion costs nothing (0.9 to 1.1 times the
time, less memory), but for inner products of many numbers (:mod:`linearize.row_sums`). So every
program of the library is compiled through :func:`jit`, training, evaluation and kernels alike,
without these fusions. In 0.12.0 the default options are right too, and are left alone.
``tests/test_compiled.py`` holds each case, and that no other room calls ``jax.jit``.

A user's own programs are compiled with XLA's default options; the environment variable
``XLA_FLAGS="--xla_cpu_experimental_ynn_fusion_type="`` has the same effect on all of a process.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jaxlib

_FUSIONS_ARE_SOUND = (0, 12)


def compiler_options() -> dict[str, str]:
    """What :func:`jit` hands to XLA: on CPUs, for the jaxlib that needs it, no YNNPACK fusion."""
    version = tuple(int(part) for part in jaxlib.__version__.split(".")[:2])
    if version >= _FUSIONS_ARE_SOUND or jax.default_backend() != "cpu":
        return {}
    return {"xla_cpu_experimental_ynn_fusion_type": ""}


class Program:
    """A function that is compiled when it is first called, and inlined where it is traced.

    Called from another program, it is a part of that program and of its options.
    What it has not itself (``lower``, ``eval_shape``, ``clear_cache``) is that of ``jax.jit``.
    """

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        """Nothing is asked of a device yet."""
        self._function, self._options = function, options
        functools.update_wrapper(self, function)

    @functools.cached_property
    def _compiled(self) -> Any:
        # the backend is known, and started, with the first call only
        return jax.jit(self._function, compiler_options=compiler_options(), **self._options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function's value."""
        if _traced((args, kwargs)):
            return self._function(*args, **kwargs)
        return self._compiled(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_function":
            raise AttributeError(name)
        return getattr(self._compiled, name)


def _traced(arguments: Any) -> bool:
    """Whether a program around is being traced: then even a constant has no value yet."""
    leaves = [*jax.tree.leaves(arguments), jax.lax.iota("int32", 1)]
    return any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)


def jit(function: Callable[..., Any], **options: Any) -> Program:
    """``jax.jit`` with :func:`compiler_options`; ``options`` are its other arguments.

    >>> import jax.numpy as jnp
    >>> jit(jax.vmap(jax.jacrev(jnp.sin)))(jnp.zeros(2)).tolist()
    [1.0, 1.0]
    """
    return Program(function, options)
