"""The auditor against dense Jacobians, its intervals, its sentence, and what it refuses."""

import dataclasses
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import linearize as lz
from linearize import tree
from linearize.command import by_task, check_order
from linearize.config import ConfigError
from linearize.data import split_task
from linearize.disentangle.moved import Moved, moved
from linearize.interference.auditor import AuditPlan, drawn, entry, ratios
from linearize.interference.layers import layers
from linearize.methods import METHODS
from linearize.objectives import CausalLM, Classify
from linearize.report.audit.results import Audited, Results
from linearize.report.audit.words import sentence
from linearize.train import OptimConfig, RunMismatchError, TrainConfig

pytestmark = pytest.mark.usefixtures("quick_compilation")

close = np.testing.assert_allclose
rng = np.random.default_rng(0)
THETA0 = {
    "blocks": {"w": rng.normal(size=(2, 3, 3)).astype(np.float32) / 2},
    "out": {"w": rng.normal(size=(3, 4)).astype(np.float32)},
}
X = rng.normal(size=(90, 3)).astype(np.float32)


def net(params, x):
    """Two scanned layers and a linear one."""
    h, _ = jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, params["blocks"]["w"])
    return h @ params["out"]["w"]


def vector(seed: int, scale: float = 0.1, names: str = "") -> lz.TaskVector:
    draw = np.random.default_rng(seed)
    leaves = {n: leaf for n, leaf in tree.flatten(THETA0).items() if names in n}
    delta = {n: scale * draw.normal(size=leaf.shape).astype("f4") for n, leaf in leaves.items()}
    return lz.TaskVector(delta, tree.fingerprint(THETA0))


TAUS = {"a": vector(1), "b": vector(2, 0.2), "c": vector(3, names="out")}
SHAPES = {name: leaf.shape for name, leaf in tree.flatten(THETA0).items()}


def jacobian(f, x):
    """Of all leaves, by name, float64."""
    found = tree.flatten(jax.jacrev(lambda p: f(p, x))(THETA0))
    return {name: np.asarray(leaf, np.float64) for name, leaf in found.items()}


def dense(J, tau, part=None):
    """J(x)τ of each example, or what a part makes of it, (N, ...)."""
    total = 0.0
    for name, at in (dict.fromkeys(SHAPES, ()) if part is None else part).items():
        if name in tau.delta:
            d = np.zeros(SHAPES[name])
            d[at] = np.asarray(tau.delta[name])[at]
            total = total + np.tensordot(J[name], d, d.ndim)
    return total


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"a": {"a": ()}}, "parts=\\['a'\\]: b moves and is in none; put it into one"),
        ({"a": {"a": ()}, "all": {"a": (), "b": ()}}, "a moves and is in 'a' and 'all'"),
        ({"0": {"a": (0,)}, "b": {"b": ()}}, r"a\[1\] moves and is in none"),
        ({"0": {"a": (0,)}, "a": {"a": ()}, "b": {"b": ()}}, r"a\[0\] moves and is in '0' and 'a'"),
        ({"a": {"a": ()}, "bb": {"bb": ()}}, r"parts\['bb'\]: θ0 has no leaf bb"),
        ({"a": {"a": (2,)}, "b": {"b": ()}}, r"a has shape \(2, 2\) and no slice \(2,\)"),
        ({}, "parts is empty"),
    ],
)
def test_parts_that_hold_what_moves_twice_or_not_are_refused(parts, message):
    """Not taken for a fault of the compiler."""
    theta0 = {name: jnp.eye(2) for name in "ab"}
    f = lambda params, x: x @ params["a"] + x @ params["b"]  # noqa: E731
    with pytest.raises(ValueError, match=message):
        moved(f, theta0, [theta0], jnp.ones((1, 2)), parts)


def test_what_does_not_move_need_be_in_no_part():
    theta0 = {name: jnp.eye(2) for name in "ab"}
    f = lambda params, x: x @ params["a"] + x @ params["b"]  # noqa: E731
    tau = {"a": jnp.array([[0.0, 0.0], [1.0, 2.0]])}
    found = moved(f, theta0, [tau], jnp.ones((1, 2)), {"1": {"a": (1,)}})
    assert found.squares.tolist() == [[5.0]]
    assert found.along.tolist() == [[[5.0]]]


ASKED = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1]], bool)


@pytest.mark.parametrize("asked", [None, pytest.param(ASKED, marks=pytest.mark.slow)])
def test_movements_are_those_of_dense_jacobians(asked):
    """Of scanned steps as of whole leaves; of tokens, those alone that are asked for."""
    f = net if asked is None else lambda p, x: jnp.stack([net(p, x), net(p, -x), net(p, 2 * x)], 1)
    parts, x = layers(SHAPES), X[:3]
    assert list(parts) == ["blocks/0", "blocks/1", "out"]
    found = moved(f, THETA0, list(TAUS.values()), x, parts, asked, batch_size=2)
    flags, J = np.ones((3, 1)) if asked is None else asked[..., None], jacobian(f, x)
    for t, tau in enumerate(TAUS.values()):
        whole = flags * dense(J, tau)
        close(found.squares[t], (whole**2).reshape(3, -1).sum(1), rtol=2e-5)
        for l, part in enumerate(parts.values()):
            own = flags * dense(J, tau, part)
            close(found.layers[t, l], (own**2).reshape(3, -1).sum(1), rtol=2e-5, atol=1e-9)
            inner = (own * whole).reshape(3, -1).sum(1)
            close(found.along[t, l], inner, rtol=1e-4, atol=1e-6)
    close(found.along.sum(1), found.squares, rtol=1e-4, atol=1e-7)
    close(found.counts, [1, 1, 1] if asked is None else [2, 0, 3])


def test_rows_of_other_layers_are_not_taken_for_these():
    records = [{"parts": ["a", "b"], "x": 1.0}, {"parts": ["b", "a"], "x": 2.0}]
    assert entry(METHODS["linear"], records[:1])["parts"] == ["a", "b"]
    with pytest.raises(RunMismatchError, match="of the layers b, a; these are a, b"):
        entry(METHODS["linear"], records)


def study(store=None, **options) -> lz.Study:
    tasks = [
        split_task(name, X + i, (X[:, i] > 0).astype(int)) for i, name in enumerate(("a", "b", "c"))
    ]
    return lz.Study((net, THETA0), tasks, options.pop("objective", Classify()), store=store)


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    store = tmp_path_factory.mktemp("audit")
    return study(store), lz.audit(study(store), TAUS, examples=8)


@pytest.mark.slow
def test_an_audit_is_a_matrix_of_movements(audited):
    seen, found = audited
    given = found.results.audited["given"]
    plan = AuditPlan(examples=8)
    for i, task in enumerate(TAUS):
        x = drawn(seen, plan, task)[0].inputs
        assert len(x) == 8
        J = jacobian(net, x)
        size = [np.sqrt((dense(J, tau) ** 2).sum(1).mean()) for tau in TAUS.values()]
        close(given.moved[0, i], size, rtol=1e-4)
        close(given.relative[0, i], np.array(size) / size[i], rtol=1e-4)
    close(given.shares.sum(-1), 1, atol=1e-5)
    assert ((given.low <= given.relative) & (given.relative <= given.high)).all()
    close((given.kronecker_layers**2).sum(-1), given.kronecker**2, rtol=1e-5)
    close(np.einsum("stt->st", given.cosine), 1, rtol=1e-5)
    close(given.cosine[0, 0, 2], _cosine(TAUS["a"], TAUS["c"]), rtol=1e-4)
    assert (np.einsum("stt->st", given.xi) == 0).all()
    worst = given.cells(found.results.tasks)[0]
    said = f"The vector of {worst.vector} moves the outputs on {worst.task}"
    assert found.sentence().startswith(said)
    assert all(a.value >= b.value for a, b in pairwise(given.cells(found.results.tasks)))


def _cosine(a, b):
    """A leaf that one lacks is zero there."""
    inner = sum(float(np.vdot(a.delta[n], b.delta[n])) for n in b.delta)
    return inner / float(a.norm() * b.norm())


@pytest.mark.slow
def test_xi_is_that_of_both_vectors_at_one(audited):
    seen, _ = audited
    whole = lz.audit(study(), TAUS, kronecker=False, examples=100).results.audited["given"]
    x = seen.split("a", "validation").inputs
    own = net(TAUS["a"].apply_to(THETA0), x).argmax(-1)
    both = net((TAUS["a"] + TAUS["b"]).apply_to(THETA0), x).argmax(-1)
    close(whole.xi[0, 0, 1], np.mean(own != both))
    assert whole.kronecker is None


@pytest.mark.slow
def test_what_is_kept_is_not_measured_again(audited, monkeypatch):
    seen, found = audited
    monkeypatch.setattr("linearize.interference.auditor.moved", None)
    again = lz.audit(study(seen.store), TAUS, examples=8)
    assert again.record == found.record
    with pytest.raises(RunMismatchError, match="plan differ"):
        lz.audit(study(seen.store), TAUS, examples=9)
    with pytest.raises(RunMismatchError, match="vectors differ"):
        lz.audit(study(seen.store), {**TAUS, "a": vector(9)}, examples=8)


@pytest.mark.slow
def test_only_tokens_that_are_asked_for_count():
    """Labels beyond the end change nothing; an example of which nothing is asked is not drawn."""
    f = lambda p, x: jnp.stack([net(p, x), net(p, -x)], 1)  # noqa: E731
    labels = np.stack([np.zeros(len(X), int), np.where(np.arange(len(X)) % 2, 1, -1)], 1)
    labels[::3] = -1
    tasks = [split_task(n, X + i, {"labels": labels}) for i, n in enumerate(("a", "b"))]
    lm = lz.Study((f, THETA0), tasks, CausalLM())
    plan = AuditPlan(examples=50)
    seen, asked = drawn(lm, plan, "a")
    assert asked.any(1).all()
    found = lz.audit(lm, {n: TAUS[n] for n in "ab"}, examples=50).results.audited["given"]
    size = (dense(jacobian(f, seen.inputs), TAUS["b"]) ** 2).sum(-1)[asked].mean()
    close(found.moved[0, 0, 1], np.sqrt(size), rtol=1e-4)
    close(found.kronecker[0, 0, 1] / found.moved[0, 0, 1], 1, atol=0.9)


def test_the_interval_is_the_jackknife_s():
    """Two ways to the standard error of a ratio of means."""
    squares = np.random.default_rng(0).gamma(2.0, size=(2, 400))
    empty = np.zeros((2, 1, 400))
    value, low, high = ratios(Moved(squares, empty, empty, np.ones(400)), 1)
    left = squares.sum(1, keepdims=True) - squares
    without = left[0] / left[1]
    error = np.sqrt(399 / 400 * ((without - without.mean()) ** 2).sum())
    close(value[0] ** 2, squares[0].sum() / squares[1].sum())
    close((high[0] ** 2 - low[0] ** 2) / 2, 1.966 * error, rtol=0.02)
    close([value[1], low[1], high[1]], 1)


def test_of_one_example_there_is_a_ratio_and_no_interval():
    squares, empty = np.array([[9.0], [4.0]]), np.zeros((2, 1, 1))
    value, low, high = ratios(Moved(squares, empty, empty, np.ones(1)), 1)
    close(value, [1.5, 1.0])
    assert np.isnan([*low, *high]).all()


def results(relative, low, high, seeds=(0,)) -> Results:
    T = len(relative)
    mean, lower, upper = (np.asarray(each, float)[None] for each in (relative, low, high))
    if len(seeds) > 1:
        mean, lower, upper = (np.repeat(each, len(seeds), 0) for each in (mean, lower, upper))
    S = len(seeds)
    shares = np.tile([0.2, 0.7, 0.1], (S, T, T, 1))
    shares[:, 1, 0] = [0.6, 0.1, 0.3]
    other = np.ones((S, T, T))
    each = Audited(
        label="Given", view="displaced", parts=("in", "mid", "out"), examples=np.ones((S, T)),
        moved=other, relative=mean, low=lower, high=upper, layers=shares, shares=shares, xi=other,
        cosine=other, norm=np.ones((S, T)),
    )  # fmt: skip
    return Results(
        experiment="audit", preset="custom", seeds=seeds, model={"name": "m"}, alpha=1.0,
        tasks=("a", "b", "c")[:T], split="validation", audited={"given": each},
    )  # fmt: skip


class TestSentence:
    R = np.array([[1, 0.8, 0.2], [0.7, 1, 0.3], [0.1, 0.4, 1]])

    def test_the_worst_where_and_the_rest(self):
        said = sentence(results(self.R, self.R - 0.05, self.R + 0.04))
        assert said == (
            "The vector of b moves the outputs on a farthest, 0.80 [0.75, 0.84] times as far as "
            "their own does, mostly through mid (70 % of the square); no other interval reaches "
            "it. Of pairs, b and a disturb each other most: 0.80 on a, mostly through mid (70 % of "
            "the square), and 0.70 on b, mostly through in (60 % of the square). Least disturbed "
            "is c by the vector of a, 0.10 [0.05, 0.14] times."
        )

    def test_what_intervals_do_not_tell_apart_is_said(self):
        assert "; not told apart from it: a on b. Of" in sentence(
            results(self.R, self.R - 0.05, self.R + 0.06)
        )

    def test_of_several_sets_it_is_a_line_each(self):
        one = results(self.R, self.R - 0.05, self.R + 0.04)
        (given,) = one.audited.values()
        other = dataclasses.replace(given, label="Other")
        both = dataclasses.replace(one, audited={"given": given, "other": other})
        assert sentence(both) == f"Given: {sentence(one)}\nOther: {sentence(one)}"

    def test_without_intervals(self):
        nothing = np.full((3, 3), np.nan)
        assert "how sure that order is is not known" in sentence(results(self.R, nothing, nothing))

    def test_a_task_whose_own_vector_moves_nothing(self):
        unknown = self.R.copy()
        unknown[0] = np.nan
        assert sentence(results(unknown, unknown, unknown)).startswith("The vector of a moves the")
        nothing = np.full((3, 3), np.nan)
        assert "nothing can be said" in sentence(results(nothing, nothing, nothing))


ONE = dataclasses.replace(TAUS["a"], base="0" * 64)


@pytest.mark.parametrize(
    ("taus", "options", "error", "says"),
    [
        ({"a": TAUS["a"]}, {}, ValueError, "vectors is of 'a'; interference is between two tasks"),
        ({}, {}, ValueError, "vectors is of no task"),
        ({**TAUS, "d": TAUS["a"]}, {}, ValueError, "vectors: task='d' is not one of 'a', 'b', 'c'"),
        ({**TAUS, "b": ONE}, {}, tree.StructureMismatch, "taus['b'] does not belong to these"),
        ({**TAUS, "b": 0 * TAUS["b"]}, {}, ValueError, "vectors['b'] is zero"),
        (
            {**TAUS, "b": lz.TaskVector({"out/w": np.full((3, 4), np.nan)})},
            {},
            tree.NonFiniteError,
            "vectors['b'] holds NaN",
        ),
        (
            {**TAUS, "b": lz.TaskVector({"in/w": np.ones((3, 4))})},
            {},
            tree.StructureMismatch,
            "extra: in/w",
        ),
        (TAUS, {"layers": {"deep": "block_7"}}, ValueError, "layers['deep']: pattern='block_7'"),
        (TAUS, {"layers": {"a": "w", "b": "out"}}, ValueError, "out/w is found by the patterns"),
        (TAUS, {"layers": {}}, ValueError, "layers is empty"),
        (TAUS, {"examples": 0}, ValueError, "examples=0; expected an integer, 1 or more"),
        (TAUS, {"alpha": np.nan}, ValueError, "alpha=nan"),
        (TAUS, {"split": "tset"}, ValueError, "did you mean 'test'?"),
        (TAUS, {"view": "tangnt"}, ValueError, "did you mean 'tangent'?"),
        ("liner", {}, ValueError, "did you mean 'linear'?"),
        ("lora:rnak=2", {}, ValueError, "did you mean 'rank'?"),
        ([*TAUS.values()], {}, TypeError, "vectors is a list; expected task vectors by"),
        ({n: t.delta for n, t in TAUS.items()}, {}, TypeError, "vectors['a'] is a dict"),
    ],
)
def test_bad_input_gets_the_error_of_the_house(taus, options, error, says):
    with pytest.raises(error) as raised:
        lz.audit(study(), taus, **options)
    assert says in str(raised.value)


def test_complex_leaves_have_no_kronecker_estimate():
    theta0 = {"w": np.ones((3, 2), np.complex64)}
    tasks = [split_task(name, X, np.arange(len(X)) % 2) for name in ("a", "b")]
    taus = {
        n: lz.TaskVector({"w": np.full((3, 2), s, np.complex64)}) for n, s in (("a", 1), ("b", 2))
    }
    model = lambda p, x: jnp.abs(x[:, :3].astype(p["w"].dtype) @ p["w"])  # noqa: E731
    with pytest.raises(ValueError, match=r"moves w, which is complex.*kronecker=False"):
        lz.audit(lz.Study((model, theta0), tasks, lz.Classify()), taus)


def test_a_task_that_asks_for_nothing():
    labels = {"labels": np.full((len(X), 2), -1)}
    tasks = [split_task(name, X, labels) for name in ("a", "b")]
    lm = lz.Study((net, THETA0), tasks, CausalLM())
    with pytest.raises(ValueError, match=r"task 'a': of \d+ validation examples none counts"):
        drawn(lm, AuditPlan(), "a")


@pytest.mark.parametrize("given", [["x"], ["a=x", "y"], ["a=x", "a=y"], ["x", "y", "z"]])
def test_vectors_that_are_not_one_a_task(given):
    with pytest.raises(ConfigError, match="expected one for each task, in the order a, b"):
        by_task(given, ["a", "b"])


@pytest.mark.slow
def test_its_page(audited, tmp_path):
    _, found = audited
    page = found.report(tmp_path).read_text("utf-8")
    assert found.sentence() in page
    assert (tmp_path / "tables" / "cells_given.csv").read_text().count("\n") == 7
    for name in ("matrix", "layers_given", "measures"):
        assert (tmp_path / "figures" / f"{name}.png").exists()


@pytest.mark.slow
def test_a_method_of_the_study():
    """Its own view; the post-hoc one has the same movements, seen in another."""
    brief = TrainConfig(optim=OptimConfig(lr=1e-2), steps=5, batch_size=8)
    both = study().but(recipes={"nonlinear": brief, "linear": brief})
    found = lz.audit(both, "nonlinear", examples=4).results.audited["nonlinear"]
    after = lz.audit(both, "posthoc", examples=4).results.audited["posthoc"]
    assert (found.view, after.view) == ("displaced", "tangent")
    assert (found.label, after.label) == ("Non-linear", "Post-hoc linearized")
    close(found.moved, after.moved)


def test_vectors_in_another_order_than_the_tasks_are_refused():
    one, two, other = (lz.TaskVector({}, meta={"task": name}) for name in ("a", "b", "c"))
    check_order({"a": one, "b": two})
    check_order({"a": one, "b": other})
    with pytest.raises(ConfigError, match="in the place of the task a says that it is of b"):
        check_order({"a": two, "b": one})


def test_layers_of_a_scan_go_by_what_is_scanned_whatever_it_is_called():
    shapes = {"embed/w": (3,), "net/stack/attn/w": (2, 3, 3), "net/stack/b": (2, 3), "w": (2, 4)}
    found = layers({**shapes, "net/out": (3,)}, None, ["^net/stack/", "^w$"])
    assert list(found) == ["embed", "net/stack/0", "net/stack/1", "w/0", "w/1", "net"]
    assert found["net/stack/1"] == {"net/stack/attn/w": (1,), "net/stack/b": (1,)}
    assert found["w/0"] == {"w": (0,)}
