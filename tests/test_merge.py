"""Every merge in every view, under objectives of several kinds, against float64 NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from linearize.evaluate.view import VIEWS
from linearize.examples import Examples
from linearize.merge import MERGES
from linearize.models.heads import Head
from linearize.objectives import CausalLM, Classify, Squared
from linearize.task_vector import TaskVector

pytestmark = pytest.mark.usefixtures("quick_compilation")

N, L, V, WIDTH = 11, 3, 4, 3
ALPHAS = np.array([0.0, 1.0, 2.5])


def drawn(*shape, seed):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def leaves(scale, seed):
    shapes = {"embed": (V, WIDTH), "block_0/mix": (WIDTH, WIDTH), "block_1/mix": (WIDTH, V)}
    return {n: scale * drawn(*s, seed=seed + i) for i, (n, s) in enumerate(shapes.items())}


PARAMS = leaves(1.0, 0)
TAUS = {name: TaskVector(leaves(0.5, seed)) for name, seed in (("one", 10), ("two", 20))}
TOKENS = np.random.default_rng(1).integers(0, V, (N, L))


def spoken(params, tokens, np=jnp):
    """Logits (N, L, V) of each position."""
    return np.tanh(params["embed"][tokens] @ params["block_0/mix"]) @ params["block_1/mix"]


def last(params, tokens, np=jnp):
    """Those of the last position, (N, V)."""
    return spoken(params, tokens, np)[:, -1]


HEAD = Head(
    jnp.asarray(drawn(V, seed=2)), jnp.asarray(drawn(V, 3, seed=3)), None, jnp.float32(9), True
)
LABELS = np.where(np.arange(L) < 1 + np.arange(N)[:, None] % L, TOKENS[:, ::-1], -1)
HEIGHTS = drawn(N, V, seed=4)


def hits(z):
    z = z - np.float64(HEAD.center)
    return ((z @ np.float64(HEAD.kernel)).argmax(-1) == np.arange(N) % 3).mean()


def perplexity(z):
    nats = (
        np.log(np.exp(z).sum(-1))
        - np.take_along_axis(z, np.maximum(LABELS, 0)[..., None], -1)[..., 0]
    )
    return np.exp(nats[LABELS >= 0].mean())


OBJECTIVES = {
    "classify": (last, Classify(HEAD), {"labels": np.arange(N) % 3}, hits),
    "squared": (last, Squared(), {"targets": HEIGHTS}, lambda z: ((z - HEIGHTS) ** 2).mean()),
    "language": (spoken, CausalLM(), {"labels": LABELS}, perplexity),
}  # fmt: skip


def outputs(f, view, move):
    """At θ0 + move, in float64; the derivative by complex steps."""
    base = {n: np.float64(p) for n, p in PARAMS.items()}
    if view == "displaced":
        return f({n: base[n] + move[n] for n in base}, TOKENS, np)
    step = 1e-30
    return (
        f(base, TOKENS, np)
        + f({n: base[n] + 1j * step * move[n] for n in base}, TOKENS, np).imag / step
    )


@pytest.mark.slow(
    but=["ties-displaced-classify", "sum-tangent-language", "random-streamed-squared"]
)
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("view", [*VIEWS, "streamed"])
@pytest.mark.parametrize("merge", [name for name, m in MERGES.items() if m.statistics is None])
def test_a_merge_is_evaluated_in_every_view(monkeypatch, merge, view, objective):
    """All directions with one coefficient, as addition takes them; and the first one subtracted."""
    f, measured, targets, value = OBJECTIVES[objective]
    if view == "streamed":
        view, _ = "tangent", monkeypatch.setattr("linearize.evaluate.view.KEPT_BYTES", 0)
    directions = MERGES[merge].directions(TAUS, 3)
    seen, moved = VIEWS[view](f, PARAMS, directions, batch_size=4), set()
    for names, sign in ((list(directions), 1), (list(directions)[:1], -1)):
        total = {n: sum(np.float64(directions[d].delta[n]) for d in names) for n in PARAMS}
        moves = [{n: sign * a * leaf for n, leaf in total.items()} for a in ALPHAS]
        expected = [value(outputs(f, view, move)) for move in moves]
        points = dict.fromkeys(names, sign * ALPHAS)
        found = seen.measure(points, Examples(TOKENS, targets), measured)
        np.testing.assert_allclose(found, expected, rtol=2e-5)
        moved |= set(expected)
    assert objective == "classify" or len(moved) > 1  # which few examples need not show
