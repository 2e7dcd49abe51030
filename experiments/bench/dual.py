"""Full-batch gradient descent of the linear regime: on the kernel, and in weight space."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import kernel_models, measure
from experiments.bench.measure import Row
from experiments.bench.workload import Size
from linearize import ntk, taylor, tree
from linearize.ntk.layout import as_matrix
from linearize.types import Array

CASE = "dual"
SIZES: dict[str, dict[str, Any]] = {
    "full": {"n": 128, "compared": 60, "timed": 300, "network": {"side": 32}},
    "tiny": {
        "n": 3,
        "compared": 4,
        "timed": 4,
        "network": {"side": 4, "patches": 2, "width": 8, "depth": 1, "heads": 2},
    },
}


def rows(size: Size) -> list[Row]:
    """The ratio of a step's times, and that both ways end in the same outputs."""
    chosen = SIZES[size.kernels]
    network = kernel_models.vit(**chosen["network"])
    params0 = kernel_models.cast(network.params, jnp.float32)
    n = chosen["n"]
    x = jnp.asarray(network.draw(n, 0), jnp.float32)
    labels = np.random.default_rng(9).integers(0, kernel_models.OUTPUTS, n)
    f0 = np.asarray(jax.jit(network.f)(params0, x))
    start = time.perf_counter()
    kernel = ntk.kernel(network.f, params0, x)
    seconds = time.perf_counter() - start
    # cross-entropy's curvature is at most 1/2: the gradient's Lipschitz constant is λ / (2 N)
    rate = n / float(np.linalg.eigvalsh(as_matrix(kernel).astype(np.float64))[-1])

    def descend(steps: int) -> ntk.Dual:
        return ntk.cross_entropy_descent(kernel, f0, labels, np.full(steps, rate))

    step = _weight_step(network.f, params0, x, jnp.asarray(labels), rate)
    tau: Any = tree.zeros(params0)
    for _ in range(chosen["compared"]):
        tau = step(tau)
    dual = ntk.to_task_vector(network.f, params0, x, descend(chosen["compared"]))
    _, moved = jax.jit(taylor.affine_terms, static_argnums=0)(
        network.f, params0, [dual.delta, tau], x
    )
    found, expected = np.asarray(moved)
    steps = chosen["timed"]
    times = measure.in_turns(lambda: step(tau), lambda: descend(steps), size.repeats)
    one, many = times.medians
    low, high = times.spread
    return [
        Row(
            CASE,
            "time of a step, weight space / dual",
            times.ratio * steps,
            "x",
            (">=", 100.0),
            (low * steps, high * steps),
            f"{1e3 * one:.0f} ms / {1e3 * many / steps:.2f} ms; ViT, N = {n}, C = "
            f"{kernel_models.OUTPUTS}; {steps} steps a call with all checks; the kernel took "
            f"{seconds:.1f} s, compilation included",
        ),
        Row(
            CASE,
            f"largest difference of the outputs after {chosen['compared']} steps",
            float(np.abs(found - expected).max() / np.abs(expected).max()),
            "",
            ("<=", 1e-6 if size.kernels == "full" else 1e-4),
            note="J tau of the dual's task vector against weight space's, float32, relative to "
            "the largest",
        ),
    ]


def _weight_step(
    f: Callable[..., Any], params0: Any, x: Array, labels: Array, rate: float
) -> Callable[[Any], Any]:
    """``tau -> tau - rate * gradient`` of mean cross-entropy on f_lin, compiled."""
    enter = taylor.tangent(f)

    @jax.jit
    def step(tau: Any, params0: Any, x: Array, labels: Array) -> Any:
        def loss(tau: Any) -> Array:
            scores = jax.nn.log_softmax(enter(params0, tau, x), -1)
            return -jnp.take_along_axis(scores, labels[:, None], 1).mean()

        return jax.tree.map(lambda t, g: t - rate * g, tau, jax.grad(loss)(tau))

    return lambda tau: step(tau, params0, x, labels)
