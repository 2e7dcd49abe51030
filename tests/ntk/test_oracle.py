"""Against neural-tangents: the stored kernels of ``oracle/make.py``, which ran it."""

import importlib.util
import json
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.bench import kernel_models
from linearize import ntk

FOLDER = Path(__file__).parent / "oracle"
EXACT = ("jacobian", "structured", "products")


@cache
def oracle():
    """The script that made the reference; importing it does not need neural-tangents."""
    spec = importlib.util.spec_from_file_location("oracle_make", FOLDER / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def reference():
    with np.load(FOLDER / "reference.npz", allow_pickle=False) as stored:
        return dict(stored)


def expected(name, output, sides):
    """neural-tangents' kernel in our convention: its trace is divided by the number of outputs."""
    kernel = reference()[f"{name} {output} {sides}"]
    outputs = reference()[f"{name} full {sides}"].shape[-1]
    return kernel * outputs if output == "trace" else kernel


def found(name, output, sides, implementation, dtype):
    network, made = oracle().NETWORKS[name], oracle()
    params = kernel_models.cast(network.params, dtype)
    x1, x2 = network.draw(made.N1, 0), network.draw(made.N2, 1)
    if x1.dtype.kind == "f":
        x1, x2 = x1.astype(dtype), x2.astype(dtype)
    return ntk.kernel(
        network.f,
        params,
        x1,
        x2 if sides == "two" else None,
        output=output,
        implementation=implementation,
    )


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("cnn", "vit")]
LAYOUTS = [("full", "one"), ("full", "two"), ("trace", "two"), ("diagonal", "one")]
COMPARED = [
    *(("mlp", *layout) for layout in LAYOUTS),
    *(("words", *layout) for layout in LAYOUTS[1:3]),
    *(
        pytest.param(*row, "two", marks=pytest.mark.slow)
        for row in (("cnn", "full"), ("cnn", "trace"), ("vit", "full"))
    ),
]


@pytest.mark.parametrize("implementation", EXACT)
@pytest.mark.parametrize(("name", "output", "sides"), COMPARED)
def test_float64_equals_neural_tangents_to_1e_10(name, output, sides, implementation):
    with jax.enable_x64(True):
        ours = found(name, output, sides, implementation, jnp.float64)
    theirs = expected(name, output, sides)
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10 * np.abs(theirs).max())


@pytest.mark.parametrize("implementation", EXACT)
@pytest.mark.parametrize("name", ["mlp", "words", *SLOW])
def test_float32_equals_neural_tangents_to_1e_5(name, implementation):
    ours = found(name, "full", "two", implementation, jnp.float32)
    theirs = expected(name, "full", "two")
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize("case", oracle().INFINITE, ids=oracle().infinite_name)
def test_infinitely_wide_networks_equal_stax(case):
    made = oracle()
    width = made.WIDTH if case["parametrization"] == "standard" else None
    ours = ntk.mlp_kernel(*made.infinite_inputs(), **case, weight_std=made.WEIGHT_STD, width=width)
    theirs = reference()[made.infinite_name(case)]
    for kernel, other in zip((ours.nngp, ours.ntk), theirs, strict=True):
        np.testing.assert_allclose(kernel, other, rtol=0, atol=1e-10 * np.abs(other).max())


def test_the_versions_that_made_the_reference_are_known():
    facts = json.loads((FOLDER / "versions.json").read_text())
    assert set(facts) == {"python", *oracle().rival.PACKAGES}
