"""Write the reference kernels: those of neural-tangents, in an environment of its own.

Make the environment as ``experiments/bench/rival.py`` says, then, from the repository's root::

    PYTHONPATH=. nt/bin/python tests/ntk/oracle/make.py

``reference.npz`` gets neural-tangents' numbers as they are (its trace is divided by the number of
outputs), all in float64; ``versions.json`` what made them. Weights and inputs are not stored:
``experiments/bench/kernel_models.py`` draws the same ones on both sides. Its three implementations
must agree before anything is written.
"""

import json
import platform
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import kernel_models, rival

FOLDER = Path(__file__).parent
NETWORKS = {
    "mlp": kernel_models.mlp(width=7, depth=2, features=5, outputs=3),
    "cnn": kernel_models.cnn(side=8, widths=(4, 5), outputs=3),
    "vit": kernel_models.vit(side=6, patches=2, width=8, depth=1, heads=2, outputs=3),
    "words": kernel_models.words(),
}
N1, N2 = 5, 4
AXES = {
    "full": {"trace_axes": (), "diagonal_axes": ()},
    "trace": {"trace_axes": (-1,), "diagonal_axes": ()},
    "diagonal": {"trace_axes": (), "diagonal_axes": (-1,)},
}
INFINITE = [
    {"depth": depth, "bias_std": bias_std, "parametrization": parametrization}
    for depth in (1, 2, 3)
    for bias_std in (None, 0.3)
    for parametrization in ("ntk", "standard")
]
WEIGHT_STD, WIDTH, FEATURES = 1.4, 32, 5


def infinite_name(case: dict[str, Any]) -> str:
    """The key of an infinitely wide network."""
    return "infinite {depth} {bias_std} {parametrization}".format(**case)


def infinite_inputs() -> tuple[np.ndarray, np.ndarray]:
    """Two sets of inputs, the second of which holds one of the first and its negative."""
    x1, x2 = (np.random.default_rng(seed).normal(size=(4, FEATURES)) for seed in (5, 6))
    x2[0], x2[1] = x1[0], -x1[1]
    return x1, x2


def finite_kernels(nt: Any) -> dict[str, np.ndarray]:
    """All layouts of all networks, of one set of inputs and of two."""
    found = {}
    for name, network in NETWORKS.items():
        params = kernel_models.cast(network.params, jnp.float64)
        x1, x2 = network.draw(N1, 0), network.draw(N2, 1)
        for output, axes in AXES.items():
            for sides, second in (("one", None), ("two", x2)):
                several = [
                    nt.empirical_ntk_fn(
                        network.f, **axes, vmap_axes=0, implementation=implementation
                    )(x1, second, params)
                    for implementation in rival.IMPLEMENTATIONS.values()
                ]
                for other in several[1:]:
                    np.testing.assert_allclose(
                        other, several[0], rtol=0, atol=1e-12 * np.abs(several[0]).max()
                    )
                found[f"{name} {output} {sides}"] = np.asarray(several[0])
    return found


def infinite_kernels(nt: Any) -> dict[str, np.ndarray]:
    """NNGP and NTK of infinitely wide ReLU networks: (2, N1, N2)."""
    found = {}
    for case in INFINITE:
        dense = {
            "W_std": WEIGHT_STD,
            "b_std": case["bias_std"],
            "parameterization": case["parametrization"],
        }
        hidden = [nt.stax.Dense(WIDTH, **dense), nt.stax.Relu()] * case["depth"]
        _, _, kernel = nt.stax.serial(*hidden, nt.stax.Dense(1, **dense))
        both = kernel(*infinite_inputs(), ("nngp", "ntk"))
        found[infinite_name(case)] = np.stack([both.nngp, both.ntk])
    return found


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    package = rival.neural_tangents()
    kernels = finite_kernels(package) | infinite_kernels(package)
    assert all(kernel.dtype == np.float64 for kernel in kernels.values())
    np.savez_compressed(FOLDER / "reference.npz", **kernels)  # type: ignore[arg-type]
    facts = {"python": platform.python_version(), **rival.versions()}
    (FOLDER / "versions.json").write_text(json.dumps(facts, indent=1) + "\n")
