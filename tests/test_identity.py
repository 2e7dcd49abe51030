"""What tells two functions apart, and what does not."""

import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from linearize import identity
from linearize.identity import UnidentifiedError
from linearize.models.heads import apply_head, headed, prototype_head

X = jax.ShapeDtypeStruct((4, 3), "float32")


def scaled(factor, x):
    return factor * x


def ruled(slope):
    """The identity, with a derivative of one's own."""

    @jax.custom_jvp
    def f(x):
        return x

    f.defjvp(lambda primals, tangents: (primals[0], slope * tangents[0]))
    return f


def fused(slope):
    """As above, in reverse mode only."""

    @jax.custom_vjp
    def f(x):
        return x

    f.defvjp(lambda x: (x, None), lambda _, ct: (slope * ct,))
    return f


def looped(body, length):
    return lambda x: jax.lax.scan(lambda c, _: (body(c), None), x, None, length=length)[0]


def noisy(seed):
    return lambda x: x + jax.random.normal(jax.random.key(seed), x.shape)


def held(value):
    constant = np.full(3, value, np.float32)
    return lambda x: x + constant[None]


DIFFERENT = {
    "operator": (jnp.sin, jnp.cos),
    "Python float": (partial(scaled, 2.0), partial(scaled, 2.5)),
    "float below a float32's rounding of 1": (partial(scaled, 1.0), partial(scaled, 1 + 2e-7)),
    "closed-over array": (held(1.0), held(2.0)),
    "closed-over JAX array": tuple(
        partial(jnp.add, fill((1, 3))) for fill in (jnp.ones, jnp.zeros)
    ),
    "static shape": (lambda x: x[:2].sum(), lambda x: x[:3].sum()),
    "axis": (lambda x: x.sum(0), lambda x: x.sum(1)),
    "dtype": (lambda x: x.astype("bfloat16"), lambda x: x.astype("float16")),
    "precision": (lambda x: x @ x.T, lambda x: jnp.matmul(x, x.T, precision="highest")),
    "seed": (noisy(0), noisy(1)),
    "loop's body": (looped(jnp.sin, 3), looped(jnp.cos, 3)),
    "loop's length": (looped(jnp.sin, 3), looped(jnp.sin, 4)),
    "branch": (
        lambda x: jax.lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, x),
        lambda x: jax.lax.cond(x[0, 0] > 0, jnp.cos, jnp.sin, x),
    ),
    "argument": (lambda x: x - 2 * x.mean(), lambda x: 2 * x.mean() - x),
    "custom_jvp's rule": (ruled(1.0), ruled(2.0)),
    "custom_vjp's rule": (fused(1.0), fused(2.0)),
    "rule in a loop under jit": (looped(jax.jit(ruled(1.0)), 2), looped(jax.jit(ruled(2.0)), 2)),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_another_program_has_another_identity(case):
    one, other = (identity.of(f, X, derivative=True) for f in DIFFERENT[case])
    assert one != other
    assert identity.of(DIFFERENT[case][0], X, derivative=True) == one


def test_names_and_places_do_not_count():
    def loss(x):
        """A docstring."""
        return jnp.tanh(x).sum()

    @jax.jit
    def another(y):
        jax.debug.print("y = {}", y)
        y = jnp.tanh(y)
        return y.sum()

    assert identity.of(loss, X) == identity.of(lambda z: jnp.tanh(z).sum(), X)
    assert identity.of(jax.jit(loss), X) == identity.of(another, X)


def test_shapes_of_arguments_count():
    assert identity.of(jnp.sin, X) != identity.of(jnp.sin, jax.ShapeDtypeStruct((5, 3), "float32"))


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from test_identity import DIFFERENT, X, identity
print([identity.of(f, X, derivative=True) for pair in DIFFERENT.values() for f in pair])
"""


def test_identities_are_those_of_another_process():
    """Under another hash seed, after other traces."""
    env = {**os.environ, "PYTHONHASHSEED": "77", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", SCRIPT, os.path.dirname(__file__)]
    run = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    expected = [identity.of(f, X, derivative=True) for p in DIFFERENT.values() for f in p]
    assert run.stdout.strip() == str(expected)


def counter():
    calls = []

    def f(x):
        calls.append(0)
        return len(calls) * x

    return f


REFUSED = {
    "a callback": (lambda x: jax.pure_callback(np.sin, x, x), "callback of pure_callback"),
    "an inner callback": (
        jax.jit(lambda x: looped(lambda c: jax.pure_callback(np.sin, c, c), 2)(x)),
        "callback of pure_callback",
    ),
    "a counter": (counter(), "each time that it is traced"),
    "a random number": (lambda x: np.random.rand() * x, "each time that it is traced"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_known_is_refused(case):
    f, message = REFUSED[case]
    with pytest.raises(UnidentifiedError, match=message):
        identity.of(f, X)


class Objective:
    """States what it is."""

    def __init__(self, name):
        self.name = name

    def fingerprint(self):
        return self.name

    def loss(self, x):
        return jax.pure_callback(np.sin, x, x)


def test_a_stated_fingerprint_is_taken_at_its_word():
    """Of a function, of an object, of a method's object: a callback does not matter then."""
    one, other = Objective("one"), Objective("other")
    assert identity.of(one.loss, X) == "one.loss"
    assert identity.of(one.loss, X) != identity.of(other.loss, X)
    assert identity.of(one.loss, X) != identity.of(one.fingerprint, X)

    def f(x):
        return x

    f.fingerprint = "f, 1"
    assert identity.of(f, X) == "f, 1"
    f.fingerprint = ""
    with pytest.raises(UnidentifiedError, match=r"fingerprint of .* is ''"):
        identity.of(f, X)


def test_a_partial_of_a_known_function_is_known_by_how_it_is_built():
    """Not by its arrays, which are fingerprinted apart; by all else."""
    features, labels = jnp.eye(4), jnp.arange(4) % 2
    heads = [
        prototype_head(features, labels, 2, shots=1, temperature=t, normalize=n)
        for t, n in ((1.0, True), (2.0, True), (1.0, False))
    ]
    one, warmer, plain = (identity.stated(Partial(apply_head, head)) for head in heads)
    assert one is not None
    assert one == warmer
    assert one != plain
    assert identity.stated(Partial(scaled, 2.0)) is None


def test_the_arrays_that_a_partial_holds_tell_it_apart():
    """Also where another function is made of it; without arrays the fingerprint is all."""

    def shifted(by, params, x):
        return params * x + by

    shifted.fingerprint = "shifted"
    one, again, other = (Partial(shifted, np.full(3, by)) for by in (1.0, 1.0, 2.0))
    for known in (lambda f: identity.of(f, X, X), lambda f: identity.stated(headed(f))):
        assert known(one) == known(again) != known(other)
    static = Partial(shifted, 1.0)
    assert identity.of(static, X, X) == identity.stated(static)
    assert identity.stated(headed(static)) == f"logits of {identity.stated(static)}"
