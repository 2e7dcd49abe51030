"""Gradients held against those at θ0, and programs that serve more than one θ."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import linearize as lz
from experiments.bench.steady import compilations
from linearize import tree
from linearize.ntk import features
from linearize.ntk.pointwise import pointwise

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 3)).astype(np.float32)


def draw(scale=1.0):
    return {
        "a": (scale * RNG.normal(size=(3, 6))).astype(np.float32),
        "b": (scale * RNG.normal(size=(6, 2))).astype(np.float32),
    }


def f(params, x):
    return jnp.tanh(x @ params["a"]) @ params["b"]


def dense(params, names=("a", "b")):
    jacobian = jax.jacfwd(f)(params, X)
    return np.concatenate([np.asarray(jacobian[n]).reshape(5, 2, -1) for n in names], axis=2)


@pytest.mark.parametrize(("pattern", "names"), [(None, ("a", "b")), ("^b$", ("b",))])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_against_dense_jacobians(pattern, names, batch_size):
    old = draw()
    new = jax.tree.map(lambda leaf: leaf + 0.1 * RNG.normal(size=leaf.shape), old)
    found = lz.ntk.feature_change(f, new, old, X, trainable=pattern, batch_size=batch_size)
    then, now = dense(old, names), dense(new, names)
    expected = np.linalg.norm(now - then, axis=2) / np.linalg.norm(then, axis=2)
    np.testing.assert_allclose(found.per_point, expected, rtol=1e-5)
    assert found.mean == pytest.approx(expected.mean(), rel=1e-5)


WORDS = np.array([1, 4])


def prompted(params, tokens):
    """Label words of a tied table, and of one whose words are columns, after looked-up tokens."""
    h = jnp.tanh(params["table"][tokens].sum(1) @ params["kernel"])
    return h @ params["table"][WORDS].T + h @ params["columns"][:, WORDS]


def a_prompt(vocabulary):
    shapes = {"table": (vocabulary, 4), "kernel": (4, 4), "columns": (4, vocabulary)}
    old = {n: RNG.normal(size=s).astype(np.float32) for n, s in shapes.items()}
    tokens = np.array([[3, 3, 5, 1], [6, 5, 5, 5], [0, 1, 2, 1]], np.int32)  # words, and repeats
    return old, jax.tree.map(lambda leaf: leaf + np.float32(0.1), old), tokens


@pytest.mark.parametrize("leaves", [None, "^table$"])
def test_rows_of_tables_that_repeat_and_are_tied(leaves):
    old, new, tokens = a_prompt(9)
    found = lz.ntk.feature_change(prompted, new, old, tokens, trainable=leaves, batch_size=2)
    names = ("table",) if leaves else tuple(old)
    now, then = (
        np.concatenate([np.asarray(j[n], np.float64).reshape(3, 2, -1) for n in names], 2)
        for j in (jax.jacrev(prompted)(params, tokens) for params in (new, old))
    )
    expected = np.linalg.norm(now - then, axis=2) / np.linalg.norm(then, axis=2)
    np.testing.assert_allclose(found.per_point, expected, rtol=1e-5)


def test_gradients_do_not_grow_with_the_vocabulary():
    old, new, tokens = a_prompt(10_000)
    point = pointwise(prompted, old, (tokens,))
    both = jax.jit(partial(features._squares, point, at_once=4))
    memory = both.lower(new, old, (tokens,)).compile().memory_analysis()
    held = memory.temp_size_in_bytes + memory.output_size_in_bytes
    assert held < 40_000  # a gradient of one example and word in one table is 160,000


def test_it_keeps_the_digits_that_kernels_lose():
    old = draw()
    new = jax.tree.map(lambda leaf: leaf * (1 + 2.0**-14), old)
    diagonal = [np.einsum("ncp,ncp->nc", a, b) for a, b in _pairs(dense(new), dense(old))]
    exact = np.linalg.norm(dense(new) - dense(old), axis=2) / np.linalg.norm(dense(old), axis=2)
    direct = lz.ntk.feature_change(f, new, old, X).per_point
    through_kernels = lz.ntk.fixed_features(*diagonal).per_point
    assert np.abs(direct - exact).max() < 0.1 * np.abs(through_kernels - exact).max()


def _pairs(now, then):
    return (now, now), (then, then), (now, then)


def test_the_linearization_never_changes():
    old, new = draw(), draw()
    linear = lz.linearize(f, old)
    assert lz.ntk.feature_change(linear, new, old, X).mean == 0


def test_a_zero_gradient_is_named():
    old = draw()
    old["b"][:, 1] = 0
    with pytest.raises(ValueError, match="output 1 of example 0 is zero"):
        lz.ntk.feature_change(f, draw(), old, X, trainable="^a$")
    with pytest.raises(ValueError, match="batch_size=0"):
        lz.ntk.feature_change(f, old, old, X, batch_size=0)
    with pytest.raises(tree.StructureMismatch):
        lz.ntk.feature_change(f, {"a": old["a"]}, old, X)


def test_another_point_does_not_compile_again():
    lz.ntk.feature_change(f, draw(), draw(), X)
    with compilations() as counts:
        lz.ntk.feature_change(f, draw(), draw(), X)
    assert not [name for name in counts if "squares" in name], counts
