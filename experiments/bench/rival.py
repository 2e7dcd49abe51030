"""neural-tangents, in an environment of its own: its kernels of the networks of ``kernel_models``.

Its last release (0.6.5) asks for TensorFlow and for a jax that ours has left behind::

    python3.11 -m venv nt
    nt/bin/pip install neural-tangents==0.6.5 jax==0.5.3 jaxlib==0.5.3 tf2jax==0.3.6
    export LINEARIZE_NT_PYTHON=$PWD/nt/bin/python

Run as a module by that Python it reads one JSON request a line and answers each with one line.
"""

import importlib.metadata
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import kernel_models, memory

IMPLEMENTATIONS = {"jacobian": 1, "products": 2, "structured": 3}
"""Ours to ``neural_tangents.NtkImplementation``: contraction, NTK-vector products, derivatives."""

PACKAGES = ("neural-tangents", "jax", "jaxlib", "tf2jax", "tensorflow", "numpy", "scipy")


def neural_tangents() -> Any:
    """The package, with two names that it reads in ``jax.interpreters.ad`` and jax 0.5 has not."""
    from jax._src import source_info_util
    from jax.interpreters import ad

    for name, value in (("source_info_util", source_info_util), ("config", jax.config)):
        if not hasattr(ad, name):
            setattr(ad, name, value)
    import neural_tangents

    return neural_tangents


def versions() -> dict[str, str]:
    """Of everything that takes part."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def kernel_function(f: Callable[..., Any], implementation: str) -> Callable[..., Any]:
    """Jitted ``(x1, x2 or None, params) -> (N1, N2, C, C)``."""
    made = neural_tangents().empirical_ntk_fn(
        lambda params, x: f(params, x),
        trace_axes=(),
        diagonal_axes=(),
        vmap_axes=0,
        implementation=IMPLEMENTATIONS[implementation],
    )
    return jax.jit(made)


def prepare(request: dict[str, Any]) -> Callable[[], Any]:
    """The kernel that a request names, as a call; its weights and inputs on the device."""
    build: Callable[..., kernel_models.Network] = getattr(kernel_models, request["network"])
    network = build(**request["options"])
    params = kernel_models.cast(network.params, jnp.float32)
    x1 = jnp.asarray(network.draw(request["n"], 0), jnp.float32)
    x2 = jnp.asarray(network.draw(request["n"], 1), jnp.float32) if request["two"] else None
    compute = kernel_function(network.f, request["implementation"])
    return lambda: jax.block_until_ready(compute(x1, x2, params))


def serve() -> None:
    """Answer requests until the input ends.

    ``prepare`` compiles and runs once, writing the kernel to ``out``; ``run`` runs it again and
    answers with its seconds; ``memory`` measures a kernel in a process that did nothing else.
    """
    call: Callable[[], Any] = lambda: None  # noqa: E731
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "prepare":
            call = prepare(request)
            np.save(Path(request["out"]), np.asarray(call()))
            answer: Any = {"versions": versions()}
        elif request["do"] == "memory":
            neural_tangents()
            answer = memory.steady_peak(partial(prepare, request), request["steps"])
        else:
            start = time.perf_counter()
            call()
            answer = {"seconds": time.perf_counter() - start}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
