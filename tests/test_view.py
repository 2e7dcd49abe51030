"""Views of a small non-linear model of two inputs, against float64 NumPy and a dense Jacobian."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linearize.agreement import DisagreementError
from linearize.cost import count_flops
from linearize.disentangle import disentanglement_error
from linearize.evaluate import affine, stream
from linearize.evaluate import view as views
from linearize.evaluate.view import VIEWS, Displaced, Tangent
from linearize.examples import Examples
from linearize.models.heads import Head
from linearize.objectives import SQUARED_ERROR, Classify, Metric, Squared
from linearize.task_vector import TaskVector

close = np.testing.assert_allclose
N, WIDTH, OUT = 11, 5, 3
SHAPES = {"a": (2, WIDTH), "b": (4, WIDTH), "c": (WIDTH, OUT), "d": (OUT,)}


def model(params, x, y):
    """Outputs (B, OUT) of two inputs, (B, 2) and (B, 4)."""
    return (jnp.tanh(x @ params["a"]) * (y @ params["b"])) @ params["c"] + params["d"][None]


def dense(params, x, y):
    """The same in NumPy, of float64 or complex128."""
    return (np.tanh(x @ params["a"]) * (y @ params["b"])) @ params["c"] + params["d"][None]


def drawn(*shape, seed):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


PARAMS = {name: drawn(*shape, seed=i) for i, (name, shape) in enumerate(SHAPES.items())}
VECTORS = {
    "one": TaskVector({n: 0.3 * drawn(*s, seed=10 + i) for i, (n, s) in enumerate(SHAPES.items())}),
    "two": TaskVector({"b": drawn(*SHAPES["b"], seed=20), "d": drawn(OUT, seed=21)}),
    "three": TaskVector({"a": drawn(*SHAPES["a"], seed=22)}),
}
INPUTS = drawn(N, 2, seed=30), drawn(N, 4, seed=31)
DATA = Examples(INPUTS, {"targets": drawn(N, OUT, seed=32), "labels": np.arange(N) % OUT})
GRID = np.linspace(-1, 1.5, 5)
POINTS = {"one": GRID, "two": 0.7, "three": -GRID}
TABLE = np.stack([GRID, np.full(5, 0.7), -GRID], 1)


def jacobian():
    """The outputs' Jacobian at θ0, (N, OUT, parameters), a column a parameter, by complex steps."""
    columns, step = [], 1e-30
    for name, leaf in PARAMS.items():
        for index in np.ndindex(leaf.shape):
            params = {n: p.astype(complex) for n, p in PARAMS.items()}
            params[name][index] += 1j * step
            columns.append(dense(params, *map(np.float64, INPUTS)).imag / step)
    return np.stack(columns, -1)


def displacements():
    """τ of each vector on all parameters, flat, float64."""
    return np.stack(
        [
            np.concatenate(
                [np.ravel(np.float64(tau.delta.get(n, np.zeros(s)))) for n, s in SHAPES.items()]
            )
            for tau in VECTORS.values()
        ]
    )


def unflat(flat):
    cuts = np.cumsum([np.prod(s) for s in SHAPES.values()])[:-1]
    parts = np.split(flat, cuts)
    return {n: part.reshape(s) for part, (n, s) in zip(parts, SHAPES.items(), strict=True)}


def expected(view, table=TABLE):
    """Outputs at points, (A, N, OUT) float64."""
    moves = table @ displacements()
    if view is Displaced:
        moved = [unflat(m) for m in moves]
        return np.stack(
            [dense({n: np.float64(p) + at[n] for n, p in PARAMS.items()}, *INPUTS) for at in moved]
        )
    params = {n: np.float64(p) for n, p in PARAMS.items()}
    return dense(params, *INPUTS) + np.einsum("nop,ap->ano", jacobian(), moves)


BOTH = pytest.mark.parametrize("view", [Displaced, Tangent], ids=["displaced", "tangent"])


@pytest.fixture(scope="module")
def seen():
    """A view of each kind; a pass has fewer examples than there are, and the last is padded."""
    return {view: view(model, PARAMS, VECTORS, batch_size=4) for view in (Displaced, Tangent)}


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Errors(Squared):
    """Two metrics, of which one may be negative."""

    metrics: ClassVar[tuple[Metric, ...]] = (Metric("bias"), SQUARED_ERROR)

    def statistics(self, outputs, batch):
        return {
            "bias": jnp.mean(outputs - batch["targets"], -1),
            **super().statistics(outputs, batch),
        }

    def values(self, totals):
        bias = np.asarray(totals["bias"], np.float64) / totals["examples"]
        return {"bias": bias, **super().values(totals)}


def squared(outputs):
    return ((outputs - DATA.targets["targets"]) ** 2).mean((1, 2))


def bias(outputs):
    return (outputs - DATA.targets["targets"]).mean((1, 2))


def hits(logits):
    return (logits.argmax(-1) == DATA.labels).mean(1)


def test_the_views_differ():
    """What holds of one would not pass for the other."""
    assert (np.abs(squared(expected(Displaced)) / squared(expected(Tangent)) - 1) > 0.02).any()
    assert dict(VIEWS) == {"displaced": Displaced, "tangent": Tangent}


@BOTH
def test_outputs_and_metrics_at_points_are_those_of_the_dense_model(seen, view):
    outputs = expected(view)
    close(seen[view].outputs(TABLE, DATA), outputs, rtol=1e-5, atol=1e-6 * np.abs(outputs).max())
    close(seen[view].measure(POINTS, DATA, Squared()), squared(outputs), rtol=1e-5)
    assert len(np.unique(hits(outputs))) > 1
    close(seen[view].measure(POINTS, DATA, Classify()), hits(outputs), rtol=1e-12)


@BOTH
def test_every_metric_of_an_objective_is_there_and_the_first_decides(seen, view):
    found = seen[view].values(TABLE, DATA, Errors())
    assert list(found) == ["bias", "mean squared error"]
    close(found["bias"], bias(expected(view)), rtol=1e-4, atol=1e-5)
    close(found["mean squared error"], squared(expected(view)), rtol=1e-5)
    close(seen[view].measure(POINTS, DATA, Errors()), found["bias"])


@BOTH
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_heads_read_the_outputs_at_each_point(seen, view, normalize, biased):
    head = Head(
        jnp.asarray(drawn(OUT, seed=40)),
        jnp.asarray(drawn(OUT, 4, seed=41)),
        jnp.asarray(drawn(4, seed=42)) if biased else None,
        jnp.float32(2.0),
        normalize,
    )
    z = expected(view) - np.float64(head.center)
    if normalize:
        z /= np.linalg.norm(z, axis=-1, keepdims=True)
    logits = 2.0 * z @ np.float64(head.kernel) + (np.float64(head.bias) if biased else 0)
    found = seen[view].measure(POINTS, DATA, Classify(head))
    assert len(np.unique(hits(logits))) > 1
    close(found, hits(logits), rtol=1e-12)


@BOTH
def test_what_a_point_leaves_out_is_zero(seen, view):
    here = seen[view]
    start = expected(view, np.zeros((1, 3)))
    close(here.measure({}, DATA, Squared()), squared(start), rtol=1e-5)
    assert here.at({}, DATA, Squared()) == pytest.approx(squared(start)[0], rel=1e-5)
    alone = expected(view, np.array([[0.0, 1.0, 0.0]]))
    assert here.at({"two": 1.0}, DATA, Squared()) == pytest.approx(squared(alone)[0], rel=1e-5)
    close(here.measure({"two": [1.0], "one": 0}, DATA, Squared()), squared(alone), rtol=1e-5)


def test_streamed_outputs_give_the_kept_numbers(seen, monkeypatch):
    monkeypatch.setattr(views, "KEPT_BYTES", 0)
    streamed = Tangent(model, PARAMS, VECTORS, batch_size=4)
    assert seen[Tangent].keeps(DATA) is streamed.keeps(DATA) is False
    found = streamed.values(TABLE, DATA, Errors())
    assert not streamed._terms
    monkeypatch.undo()
    assert streamed.keeps(DATA)
    for name, values in seen[Tangent].values(TABLE, DATA, Errors()).items():
        close(found[name], values, rtol=1e-5, atol=1e-6)
    close(found["mean squared error"], squared(expected(Tangent)), rtol=1e-5)


def test_what_is_kept_is_as_large_as_it_is_said(monkeypatch):
    """(1 + T) outputs of each example in four bytes: at that bound they are still kept."""
    view, exact = Tangent(model, PARAMS, VECTORS), 4 * (1 + len(VECTORS)) * N * OUT
    monkeypatch.setattr(views, "KEPT_BYTES", exact)
    assert view.keeps(DATA)
    monkeypatch.setattr(views, "KEPT_BYTES", exact - 1)
    assert not view.keeps(DATA)


def test_outputs_over_a_vocabulary_are_kept_of_no_data_set():
    """Four tokens of 5,000 words, of three texts: 240 kB, and none of it stays."""
    table, tokens = {"table": np.ones((5000, 2), np.float32)}, np.zeros((3, 4), np.int32)

    def decoder(params, tokens):
        return params["table"][tokens] @ params["table"].T

    tau = TaskVector({"table": np.ones((5000, 2), np.float32)})
    texts, one = Examples(tokens), Examples(tokens[:, :1])
    view = Tangent(decoder, table, {"one": tau})
    assert not view.keeps(texts)
    assert view.keeps(one)


def counted(monkeypatch, module, name):
    calls, real = [], getattr(module, name)

    def count(*args, **kwargs):
        calls.append(args)
        return real(*args, **kwargs)

    monkeypatch.setattr(module, name, count)
    return calls


def test_a_grid_costs_one_pass_with_a_tangent_for_each_vector(monkeypatch):
    """Of 100 points, then of 100 others, of another objective: 3 batches are passed once."""
    passes = counted(monkeypatch, affine, "affine_step")
    here = Tangent(model, PARAMS, VECTORS, batch_size=4)
    grid = np.linspace(-1, 1, 100)
    here.measure({"one": grid, "two": -grid}, DATA, Squared())
    here.measure({"three": grid}, DATA, Classify())
    assert len(passes) == 3


@pytest.mark.parametrize("T", [1, 2, 3])
def test_operations_of_the_pass(T):
    """Products by hand: a tangent of x @ a and y @ b is one product each, of h @ c two."""
    taus = list(VECTORS.values())[:1] * T
    stacked = affine.stack(PARAMS, taus)
    batch = tuple(leaf[:4] for leaf in INPUTS)
    once = [2 * 4 * 2 * WIDTH, 2 * 4 * 4 * WIDTH, 2 * 4 * WIDTH * OUT]
    forward, tangent = sum(once), sum(once) + once[-1]
    assert count_flops(lambda p, *xy: model(p, *xy), PARAMS, *batch) == forward

    def step(params, stacked, *args):
        return affine.affine_step(model, "auto", params, stacked, args)

    assert count_flops(step, PARAMS, stacked, *batch) == forward + T * tangent


def test_vectors_that_move_alike_are_displaced_as_one(monkeypatch):
    calls = counted(monkeypatch, views, "displaced_values")
    here = Displaced(model, PARAMS, VECTORS, batch_size=4)
    together = dict.fromkeys(VECTORS, GRID)
    found = here.measure(together, DATA, Squared())
    close(found, squared(expected(Displaced, np.stack([GRID] * 3, 1))), rtol=1e-5)
    here.measure({"one": GRID, "three": GRID, "two": -GRID}, DATA, Squared())
    here.measure({"two": GRID}, DATA, Squared())
    here.measure({}, DATA, Squared())
    here.measure(together, DATA, Squared())
    directions = [args[2] for args in calls]
    assert [len(taus) for taus in directions] == [1, 2, 1, 1, 1]
    assert directions[0][0] is directions[4][0]  # summed once
    close(directions[2][0].delta["b"], VECTORS["two"].delta["b"])
    assert [args[4].shape for args in calls] == [(5, 1), (5, 2), (5, 1), (1, 1), (5, 1)]


@BOTH
@pytest.mark.parametrize(
    ("points", "message"),
    [
        ({"four": 1.0, "one": 1.0}, r"points name \['four'\]; the vectors are \['one', 'two', 't"),
        ({"one": np.nan}, "expected finite numbers"),
        ({"one": 1e39}, "expected finite numbers, in float32"),
        ({"one": [1.0, 2.0], "two": [1.0, 2.0, 3.0]}, "shape"),
        ({"one": []}, r"alphas has shape \(0, 3\)"),
        ({"one": np.ones((2, 2))}, r"alphas has shape \(2, 2, 3\)"),
    ],
)
def test_points_that_are_none_are_refused(seen, view, points, message):
    with pytest.raises(ValueError, match=message):
        seen[view].measure(points, DATA, Squared())


@BOTH
def test_what_does_not_fit_is_refused(seen, view):
    with pytest.raises(ValueError, match="vectors is empty; give at least one"):
        view(model, PARAMS, {})
    for table in (np.zeros((2, 2)), np.zeros((2, 4)), np.zeros(3)):
        for ask in (seen[view].values, lambda t, d, _: seen[view].outputs(t, d)):
            with pytest.raises(ValueError, match=r"expected \(G, 3\)"):
                ask(table, DATA, Squared())
    with pytest.raises(ValueError, match="'y', which the examples' targets lack"):
        seen[view].measure({}, DATA, Squared("y"))
    scalar = Examples(INPUTS, {"targets": np.zeros(N, np.float32)})
    with pytest.raises(ValueError, match=r"expected the outputs' \(11, 3\)"):
        seen[view].measure({}, scalar, Squared())
    foreign = Examples(INPUTS, {"labels": np.full(N, OUT)})
    with pytest.raises(ValueError, match="labels run from 3 to 3"):
        seen[view].measure({}, foreign, Classify())


def test_streaming_refuses_what_does_not_fit_too(monkeypatch):
    monkeypatch.setattr(views, "KEPT_BYTES", 0)
    streamed = Tangent(model, PARAMS, VECTORS, batch_size=4)
    with pytest.raises(ValueError, match="'y', which the examples' targets lack"):
        streamed.measure({}, DATA, Squared("y"))
    with pytest.raises(ValueError, match=r"expected \(G, 3\)"):
        streamed.values(np.zeros((2, 2)), DATA, Squared())


def test_a_streamed_pass_is_held_against_its_second_way(monkeypatch):
    step = stream.affine_step

    def corrupted(*args):
        f0, jvps = step(*args)
        return f0, jvps.at[1].multiply(1.2)

    monkeypatch.setattr(views, "KEPT_BYTES", 0)
    monkeypatch.setattr(stream, "affine_step", corrupted)
    fresh = Tangent(lambda *args: model(*args), PARAMS, VECTORS, batch_size=4)
    with pytest.raises(DisagreementError, match="task vector 1"):
        fresh.measure({"one": 1.0}, DATA, Squared())


def several(params, x, y):
    """Outputs of two kinds."""
    return {"logits": model(params, x, y), "height": x[:, 0]}


def picked(outputs):
    return outputs["logits"]


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "streamed"])
def test_outputs_that_are_several_arrays(monkeypatch, kept):
    """The displaced model's are its objective's to read; the tangent view asks for one array."""
    seen = {view: view(several, PARAMS, VECTORS, batch_size=4) for view in (Displaced, Tangent)}
    found = seen[Displaced].measure(POINTS, DATA, Classify(picked))
    close(found, hits(expected(Displaced)))
    outputs = seen[Displaced].outputs(TABLE, DATA)
    close(outputs["logits"], expected(Displaced), rtol=1e-4, atol=1e-5)
    assert outputs["height"].shape == (5, N)
    if not kept:
        monkeypatch.setattr(views, "KEPT_BYTES", 0)
    for objective in (Classify(picked), Squared(), Classify()):
        with pytest.raises(ValueError, match=r"f returns a dict; .* one array.*Wrap f to pick it"):
            seen[Tangent].measure(POINTS, DATA, objective)


def test_maps_of_outputs_that_are_several_arrays():
    given = {"alphas": [0.0, 1.0], "readouts": picked}
    taus, inputs = [VECTORS["one"], VECTORS["two"]], [INPUTS, INPUTS]
    one = disentanglement_error(several, PARAMS, taus, inputs, **given)
    plain = disentanglement_error(model, PARAMS, taus, inputs, alphas=[0.0, 1.0])
    np.testing.assert_array_equal(one.per_task, plain.per_task)
    with pytest.raises(ValueError, match=r"task 0: f returns a dict.*Wrap f"):
        disentanglement_error(several, PARAMS, taus, inputs, alphas=[0.0, 1.0])
    for regime in ("linear", "tangent"):
        with pytest.raises(ValueError, match=r"f returns a dict.*Wrap f"):
            disentanglement_error(several, PARAMS, taus, inputs, regime=regime, **given)
