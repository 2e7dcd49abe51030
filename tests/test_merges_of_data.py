"""Merges with statistics of data, against dense algebra on models whose layers are written down."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

import linearize as lz
from linearize import comparison, curvature, edit
from linearize.comparison import Plan
from linearize.evaluate import AffineOutputs
from linearize.merge import MERGES
from linearize.merge.adamerging import _along_inputs, learned
from linearize.merge.consensus import chosen
from linearize.merge.fisher import diagonals, fisher
from linearize.merge.needed import logits_of
from linearize.merge.optimal import experts, fitted, labels, optimal
from linearize.merge.regmean import _of_weights, grams, regmean
from linearize.methods import Method
from linearize.objectives import Classify, Squared
from linearize.study import Study
from linearize.task_vector import TaskVector
from linearize.train.penalty import seed_of

pytestmark = pytest.mark.usefixtures("quick_compilation")

close = np.testing.assert_allclose
SHAPES = {"in/kernel": (4, 5), "in/bias": (5,), "out/kernel": (5, 3)}
TASKS = ("one", "two")


def drawn(seed, scale=1.0, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return {n: (scale * rng.normal(size=s)).astype(np.float32) for n, s in shapes.items()}


def hidden(params, x):
    return jnp.tanh(x @ params["in/kernel"] + params["in/bias"][None])


def model(params, x):
    return hidden(params, x) @ params["out/kernel"]


THETA = drawn(0)
TAUS = {task: TaskVector(drawn(i, 0.5)) for i, task in enumerate(TASKS, 1)}


def given(study, task):
    return TAUS[task]


VIEWED = {name: Method(f"given_{name}", name, name, given) for name in ("displaced", "tangent")}


def made(objective=None, store=None):
    rng = np.random.default_rng(5)
    tasks = []
    for task in TASKS:
        x = rng.normal(size=(60, 4)).astype(np.float32)
        x[:, 3] = x[:, 2]  # no task's inputs tell these two apart
        y = np.asarray(model({n: THETA[n] + d for n, d in TAUS[task].delta.items()}, x)).argmax(1)
        tasks.append(lz.data.split_task(task, x, y))
    return Study((model, THETA), tasks, objective or Classify(), store=store)


def logits(view, tau, x):
    """Dense: of the model at θ0 + τ, or f0 + Jτ."""
    theta = {n: jnp.asarray(THETA[n], d.dtype) for n, d in tau.items()}
    if view == "displaced":
        return model({n: theta[n] + d for n, d in tau.items()}, x)
    f0, moved = jax.jvp(lambda p: model(p, x), (theta,), (tau,))
    return f0 + moved


def delta(task):
    return {n: jnp.asarray(d) for n, d in TAUS[task].delta.items()}


@pytest.mark.slow(but=["tangent"])
@pytest.mark.parametrize("view", VIEWED)
def test_fisher_is_the_information_of_each_task_s_own_model(view):
    study = made()
    found = diagonals(study, VIEWED[view], examples=9)
    for task in TASKS:
        (x,), key = study.drawn(task, 9, "fisher"), jax.random.key(seed_of(0, f"fisher: {task}"))
        total = {n: np.zeros(s) for n, s in SHAPES.items()}
        for i, row in enumerate(x):
            z = logits(view, delta(task), row[None])[0]
            y = jax.random.categorical(jax.random.fold_in(key, i), z)
            slopes = jax.grad(
                lambda t, row=row, y=y: jax.nn.log_softmax(logits(view, t, row[None])[0])[y]
            )(delta(task))
            total = {n: t + np.square(slopes[n]) for n, t in total.items()}
        for name, expected in total.items():
            close(found[task][name], expected / 9, rtol=1e-3, atol=1e-7)
    merged = MERGES["fisher"].directions(TAUS, 0, statistics=found)["fisher"].delta
    for name in SHAPES:
        f = [np.float64(found[task][name]) for task in TASKS]
        taus = [np.float64(TAUS[task].delta[name]) for task in TASKS]
        close(merged[name], (f[0] * taus[0] + f[1] * taus[1]) / (f[0] + f[1]), rtol=1e-5)


def least_squares(inputs, weights, factor):
    """(ΣG)⁺ ΣG_t W_t beside the mean, which stays where G says nothing."""
    total, wanted, mean = 0, 0, np.mean(weights, 0)
    for x, w in zip(inputs, weights, strict=True):
        g = np.float64(x).T @ np.float64(x) / len(x)
        g = factor * g + (1 - factor) * np.diag(np.diag(g))
        total, wanted = total + g, wanted + g @ (w - mean)
    return mean + np.linalg.pinv(total, 1e-6) @ wanted


@pytest.mark.slow(but=["tangent"])
@pytest.mark.parametrize("view", VIEWED)
def test_regmean_s_inputs_are_those_of_the_view_s_layers(view):
    """At θ0 + τ_t where it is displaced, at θ0 in the tangent; a repeated input leaves the mean."""
    study, xs, hs = made(), [], []
    found = grams(study, VIEWED[view], examples=20)
    for task in TASKS:
        (x,) = study.drawn(task, 20, "regmean")
        moved = delta(task) if view == "displaced" else dict.fromkeys(SHAPES, 0.0)
        xs.append(x), hs.append(hidden({n: THETA[n] + moved[n] for n in SHAPES}, x))
    for factor in (0.9, 1.0):
        merged = regmean(TAUS, statistics=found, off_diagonal=factor)["regmean"].delta
        for name, inputs in (("in/kernel", xs), ("out/kernel", hs)):
            weights = [np.float64(TAUS[task].delta[name]) for task in TASKS]
            close(merged[name], least_squares(inputs, weights, factor), rtol=1e-3, atol=1e-4)
        close(merged["in/bias"], np.mean([TAUS[t].delta["in/bias"] for t in TASKS], 0), rtol=1e-5)


def convolution(params, x):
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, params["w"], (1, 1), "SAME", dimension_numbers=dimensions
    )


def looked_up(params, x):
    return params["w"][x]


def stacked(params, x):
    def step(h, w):
        z = h @ w
        return jnp.tanh(z), z

    return jax.lax.scan(step, x, params["blocks/w"])[1]


LAYERS = {
    "convolution": (convolution, {"w": (3, 2, 2, 4)}, lambda r: r.normal(size=(6, 4, 5, 2))),
    "embedding": (looked_up, {"w": (7, 3)}, lambda r: r.integers(0, 6, (6, 5))),
    "scanned": (stacked, {"blocks/w": (3, 4, 4)}, lambda r: r.normal(size=(6, 4))),
}


@pytest.mark.slow(but=["scanned"])
@pytest.mark.parametrize("kind", LAYERS)
def test_regmean_minimises_the_distance_of_layers_outputs(kind):
    """Σ_t mean ‖z(W) − z(W_t)‖² has no slope; a word that nobody has keeps the mean."""
    layer, shapes, inputs = LAYERS[kind]
    theta, taus = (
        drawn(3, 1, shapes),
        {t: TaskVector(drawn(i, 1, shapes)) for i, t in enumerate("ab")},
    )
    rng, told, xs = np.random.default_rng(4), {}, []

    def features(params, x):
        z = layer(params, x)
        axis = 0 if kind == "scanned" else tuple(range(1, z.ndim - 1))
        return jnp.tanh(z).sum(axis)

    for task in taus:
        x = inputs(rng)
        xs.append(jnp.asarray(x, jnp.int32 if kind == "embedding" else jnp.float32))
        card = curvature.measure(features, theta, xs[-1], normalized=False, parts=None)
        told[task] = _of_weights(card.blocks)
    merged = regmean(taus, statistics=told, off_diagonal=1.0)["regmean"].delta

    def distance(move):
        apart = [{n: move[n] - jnp.asarray(tau.delta[n]) for n in move} for tau in taus.values()]
        outputs = (
            jax.jvp(lambda p, x=x: at(p, x), (theta,), (d,))[1]
            for d, x in zip(apart, xs, strict=True)
        )
        return sum(jnp.mean(z**2) for z in outputs)

    def at(params, x):
        """Each layer's outputs as it sees what θ0 gives it."""
        if kind != "scanned":
            return layer(params, x)
        below = [x, *jnp.tanh(stacked(theta, x))[:-1]]
        return jnp.stack([h @ w for h, w in zip(below, params["blocks/w"], strict=True)])

    slope = jax.grad(distance)
    mean = {n: np.mean([tau.delta[n] for tau in taus.values()], 0) for n in shapes}
    (found,), (elsewhere,) = (jax.tree.leaves(slope(m)) for m in (dict(merged), mean))
    assert np.abs(found).max() < 1e-3 * np.abs(elsewhere).max()
    if kind == "embedding":
        close(merged["w"][6], mean["w"][6], rtol=1e-5)


def entropy(z):
    return -(softmax(z, -1) * log_softmax(z, -1)).sum(-1).mean()


@pytest.mark.slow(but=["tangent"])
@pytest.mark.parametrize("view", VIEWED)
def test_adamerging_descends_on_the_entropy_of_all_tasks(view, monkeypatch):
    """Two steps of Adam with all inputs in a batch, by central differences in float64."""
    study, rate = made(), 0.05
    xs = {task: np.float32(study.split(task, "validation").inputs) for task in TASKS}
    size = len(xs["one"])
    found = learned(study, VIEWED[view], steps=2, rate=rate, batch_size=size)

    def total(c):
        tau = {n: sum(a * delta(t)[n] for a, t in zip(c, TASKS, strict=True)) for n in SHAPES}
        return sum(entropy(np.float64(logits(view, tau, x))) for x in xs.values())

    c, m, v = np.full(2, 0.3), np.zeros(2), np.zeros(2)
    with jax.enable_x64(True):
        for k in (1, 2):
            g = np.array([(total(c + h) - total(c - h)) / 2e-4 for h in 1e-4 * np.eye(2)])
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            c = c - rate * (m / (1 - 0.9**k)) / (np.sqrt(v / (1 - 0.999**k)) + 1e-8)
    for task, expected in zip(TASKS, c, strict=True):
        for name in SHAPES:
            close(found[task][name], expected, rtol=2e-3)
    if view == "tangent":  # terms that are too large to keep
        monkeypatch.setattr("linearize.evaluate.view.KEPT_BYTES", 0)
        again = learned(made(), VIEWED[view], steps=2, rate=rate, batch_size=size)
        close(again["one"]["in/bias"], found["one"]["in/bias"], rtol=1e-4)
    far = learned(study, VIEWED[view], by="tensor", steps=3, rate=1.0, batch_size=8)
    assert {float(x) for each in far.values() for x in each.values()} <= {0.0, 1.0}
    merged = MERGES["adamerging"].directions(TAUS, 0, statistics=far)["adamerging"].delta
    for name in SHAPES:
        expected = sum(far[t][name] * np.asarray(TAUS[t].delta[name]) for t in TASKS)
        close(merged[name], expected, rtol=1e-6)


def central(value, c, h=1e-4):
    """The gradient at c, an array, in float64."""
    slopes = [(value(c + d) - value(c - d)) / (2 * h) for d in h * np.eye(c.size)]
    return np.array(slopes)


@pytest.mark.slow(but=["tangent"])
@pytest.mark.parametrize("view", VIEWED)
def test_adamerging_by_tensor_descends_on_the_entropy_of_all_tasks(view):
    """Its gradient in each coefficient, and two steps along it, by central differences."""
    study, rate, names = made(), 0.05, list(SHAPES)
    xs = {task: np.float32(study.split(task, "validation").inputs) for task in TASKS}
    found = learned(
        *(study, VIEWED[view]), by="tensor", steps=2, rate=rate, batch_size=len(xs["one"])
    )

    def of(task, c):
        tables = c.reshape(len(TASKS), -1)
        parts = zip(TASKS, tables, strict=True)
        tau = dict.fromkeys(names, 0.0)
        for t, row in parts:
            tau = {n: tau[n] + a * delta(t)[n] for a, n in zip(row, names, strict=True)}
        return entropy(np.float64(logits(view, tau, xs[task])))

    c = np.full(len(TASKS) * len(names), 0.3)
    first, seen = c + 0.01 * np.arange(c.size), study.view(VIEWED[view])
    stacked = {n: jnp.stack([delta(t)[n] for t in TASKS]) for n in names}
    how = seen.moving, model
    with jax.enable_x64(True):
        for task in TASKS:
            given = dict(zip(names, jnp.float32(first.reshape(2, -1).T), strict=True))
            read = logits_of(study, task, "adamerging")
            slope = _along_inputs(*how, given, read, THETA, stacked, (xs[task],))
            expected = central(partial(of, task), first)
            here = np.stack([slope[n] for n in names], 1).ravel()
            close(here, expected, atol=2e-4 * np.abs(expected).max())
        m, v = np.zeros_like(c), np.zeros_like(c)
        for k in (1, 2):
            g = central(lambda at: sum(of(task, at) for task in TASKS), c)
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            c = c - rate * (m / (1 - 0.9**k)) / (np.sqrt(v / (1 - 0.999**k)) + 1e-8)
    for task, row in zip(TASKS, c.reshape(2, -1), strict=True):
        close([found[task][n] for n in names], row, rtol=2e-3)


@pytest.mark.slow(but=["labels"])
@pytest.mark.parametrize("targets", [labels, experts], ids=["labels", "experts"])
def test_atlas_is_the_optimum_by_task_and_tensor(targets):
    """Against BFGS on dense derivatives of each leaf; the gap bounds what is left elsewhere."""
    study, l2 = made(), 1e-2
    found = fitted(study, VIEWED["tangent"], by="tensor", targets=targets, l2=l2)
    sets, problems = [study.split(t, "validation") for t in TASKS], []
    for task, examples in zip(TASKS, sets, strict=True):
        x = np.float32(examples.inputs)
        f0 = np.float64(model(THETA, x))
        zero = {n: jnp.zeros(s) for n, s in SHAPES.items()}
        jvps = [
            np.float64(logits("tangent", {**zero, n: delta(t)[n]}, x)) - f0
            for t in TASKS
            for n in SHAPES
        ]
        q = np.eye(3)[examples.labels]
        if targets is experts:
            q = softmax(np.float64(logits("tangent", delta(task), x)), -1)
        problems.append((f0, np.stack(jvps), q))

    def objective(c):
        value, slope = l2 / 2 * c @ c, l2 * c
        for f0, jvps, q in problems:
            z = f0 + np.tensordot(c, jvps, 1)
            value -= (q * log_softmax(z, -1)).sum(-1).mean() / 2
            slope = slope + np.tensordot(jvps, softmax(z, -1) - q, 2) / len(z) / 2
        return value, slope

    best = minimize(objective, np.zeros(6), jac=True, method="BFGS", options={"gtol": 1e-10})
    close([found[t][n] for t in TASKS for n in SHAPES], best.x, atol=1e-4)
    close(found.found.objective, best.fun, rtol=1e-6)
    assert 0 <= found.found.gap < 1e-9
    assert found.found.attained
    by_task = fitted(study, VIEWED["tangent"], targets=targets, l2=l2)
    spread = np.repeat([by_task[t] for t in TASKS], len(SHAPES))
    assert objective(spread)[0] > best.fun  # more freedom, less loss
    direction = optimal(TAUS, statistics=found)["optimal"]
    assert direction.meta["gap"] == found.found.gap
    for name in SHAPES:
        expected = sum(found[t][name] * np.asarray(TAUS[t].delta[name]) for t in TASKS)
        close(direction.delta[name], expected, rtol=1e-6)
    few = fitted(study, VIEWED["tangent"], by="tensor", examples=4, l2=l2)
    assert few.found.objective != found.found.objective
    with pytest.raises(ValueError, match=r"\['one'\] says nothing of in/bias"):
        optimal(TAUS, statistics={t: {"in/kernel": np.ones(())} for t in TASKS})


@pytest.mark.slow
def test_atlas_has_a_coefficient_for_each_layer_that_is_scanned_through():
    """As of the same model with a leaf for each layer."""
    rng, taus, found = np.random.default_rng(1), {}, {}
    deltas = {t: 0.3 * rng.normal(size=(3, 4, 4)).astype(np.float32) for t in TASKS}
    stack = rng.normal(size=(3, 4, 4)).astype(np.float32) / 2

    def scanning(params, x):
        x, _ = jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, params["stack"])
        return x[:, :3]

    def unrolled(params, x):
        for i in range(3):
            x = jnp.tanh(x @ params[f"{i}"])
        return x[:, :3]

    apart = {f"{i}": w for i, w in enumerate(stack)}
    for name, f, params in (("scan", scanning, {"stack": stack}), ("apart", unrolled, apart)):
        taus[name] = {
            t: TaskVector({"stack": d} if name == "scan" else {f"{i}": w for i, w in enumerate(d)})
            for t, d in deltas.items()
        }
        method = Method("given", "Given", "tangent", lambda study, task, n=name: taus[n][task])
        study = Study((f, params), [made().tasks[task] for task in TASKS], Classify())
        found[name] = fitted(study, method, by="tensor", l2=0.1)
    scanned = optimal(taus["scan"], statistics=found["scan"])["optimal"].delta["stack"]
    twin = optimal(taus["apart"], statistics=found["apart"])["optimal"].delta
    for task in TASKS:
        assert np.shape(found["scan"][task]["stack"]) == (3,)
        close(found["scan"][task]["stack"], [found["apart"][task][f"{i}"] for i in range(3)], 1e-3)
    close(scanned, np.stack([twin[f"{i}"] for i in range(3)]), atol=1e-4)


MEASURES = {
    "classify": lambda z, y: (z.argmax(-1) == y.argmax(-1)).mean(),
    "squared": lambda z, y: -((z - y) ** 2).mean(),
}


@pytest.mark.slow(but=["squared-displaced"])
@pytest.mark.parametrize("view", VIEWED)
@pytest.mark.parametrize("kind", MEASURES)
def test_consensus_by_task_takes_the_mask_that_does_best_on_validation_data(kind, view):
    """Masks written down; whichever way the metric is better; nothing else moves with a task."""
    study, xs = made(), {}
    for task in TASKS:
        xs[task] = np.float32(study.split(task, "validation").inputs)
    ys = {t: np.asarray(logits("displaced", delta(t), x)) for t, x in xs.items()}
    if kind == "squared":
        splits = {t: lz.Task(t, *[lz.Examples(xs[t], {"targets": ys[t]})] * 3) for t in TASKS}
        study = Study((model, THETA), splits, Squared())
    talls = (0.5, 0.3, 2.0, 5.0)
    found = chosen(study, VIEWED[view], talls=talls)
    flat = {t: {n: np.float64(d) for n, d in TAUS[t].delta.items()} for t in TASKS}
    total = {n: flat["one"][n] + flat["two"][n] for n in SHAPES}

    def mask(task, tall, n):
        return np.abs(flat[task][n]) > tall * np.abs(total[n] - flat[task][n])

    scores = {}
    for task in TASKS:
        for tall in talls:
            tau = {n: jnp.float32(np.where(mask(task, tall, n), total[n], 0)) for n in SHAPES}
            z = np.asarray(logits(view, tau, xs[task]))
            scores[task, tall] = MEASURES[kind](z, ys[task])
        assert found[task] == max(talls, key=lambda tall, task=task: scores[task, tall])
    if kind == "squared":
        assert found["one"] != min(talls, key=lambda tall: scores["one", tall])
    given = {"one": 0.3, "two": 2.0}
    merged = MERGES["consensus_tasks"].directions(TAUS, 0, statistics=given)["consensus"].delta
    for n in SHAPES:
        both = mask("one", 0.3, n) & mask("two", 2.0, n)
        close(merged[n], np.where(both, total[n], 0), rtol=1e-5)


def test_coefficients_to_experts_are_the_optimum_of_their_cross_entropy():
    """Against a search without derivatives; its gap bounds what is left, here and elsewhere."""
    study, method = made(), VIEWED["tangent"]
    found = fitted(study, method, targets=experts)
    view, sets = study.view(method), [study.split(t, "validation") for t in TASKS]
    terms = [view.terms(each) for each in sets]
    probabilities = [experts(study, *each) for each in zip(TASKS, terms, sets, strict=True)]

    def objective(c):
        z = [np.float64(t.f0) + np.tensordot(c, np.float64(t.jvps), 1) for t in terms]
        pairs = zip(probabilities, z, strict=True)
        return np.mean([-(q * log_softmax(each, -1)).sum(-1).mean() for q, each in pairs])

    best = minimize(
        objective, np.ones(2), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-14}
    )
    close([found[t] for t in TASKS], best.x, atol=1e-5)
    close(found.found.objective, best.fun, rtol=1e-7)
    assert 0 <= found.found.gap < 1e-9
    for c in ([1.0, 1.0], [0.0, 0.0], [3.0, -2.0]):
        certified = edit.certify(terms, probabilities, coefficients=c)
        assert objective(np.array(c)) - best.fun <= certified.gap * (1 + 1e-6)
    direction = optimal(TAUS, statistics=found)["optimal"]
    assert direction.meta["gap"] == found.found.gap
    expected = sum(found[t] * np.asarray(TAUS[t].delta["in/bias"]) for t in TASKS)
    close(direction.delta["in/bias"], expected, rtol=1e-6)


def test_one_expert_alone_is_met_at_one_with_nothing_left():
    rng = np.random.default_rng(0)
    terms = AffineOutputs(rng.normal(size=(9, 4)), rng.normal(size=(1, 9, 4)))
    q = softmax(terms.f0 + terms.jvps[0], -1)
    best = edit.optimal_coefficients([terms], [q])
    close(best.coefficients, [1.0], atol=1e-8)
    close(best.objective, entropy(terms.f0 + terms.jvps[0]), rtol=1e-12)
    assert best.gap < 1e-12
    hard = np.eye(4)[q.argmax(-1)]
    labelled = edit.optimal_coefficients([terms], [q.argmax(-1)], l2=0.1)
    close(edit.optimal_coefficients([terms], [hard], l2=0.1).coefficients, labelled.coefficients)
    for bad in (q[:, :3], 2 * q, -q, q[:5]):
        with pytest.raises(ValueError, match=r"labels are float64.*those of an example sum to 1"):
            edit.optimal_coefficients([terms], [bad])


@pytest.mark.parametrize("name", [n for n, m in MERGES.items() if m.statistics is not None])
def test_statistics_that_are_not_there_are_named(name):
    merge = MERGES[name]
    with pytest.raises(ValueError, match=r"statistics=None; give what MERGES\["):
        merge.directions(TAUS, 0)
    with pytest.raises(ValueError, match=r"taus of 'one', 'two' too; measure them"):
        merge.directions(TAUS, 0, statistics={})
    with pytest.raises(ValueError, match="taus is empty"):
        merge.directions({}, 0)


def test_what_statistics_cannot_be_of_is_refused():
    other = {t: {n: np.ones(2) for n in SHAPES} for t in TASKS}
    with pytest.raises(ValueError, match=r"\['in/kernel'\] has shape \(2,\).*expected \(4, 5\)"):
        fisher(TAUS, statistics=other)
    negative = {t: {n: -np.ones(s) for n, s in SHAPES.items()} for t in TASKS}
    with pytest.raises(ValueError, match="from -1; expected"):
        fisher(TAUS, statistics=negative)
    with pytest.raises(ValueError, match="says nothing of in/kernel"):
        fisher(TAUS, statistics={t: {} for t in TASKS})
    with pytest.raises(ValueError, match=r"off_diagonal=1.5; expected a factor in \[0, 1\]"):
        regmean(TAUS, off_diagonal=1.5)
    study = made()
    few = grams(study, VIEWED["tangent"], examples=4)
    with pytest.raises(ValueError, match="1 of 2 tasks"):
        regmean(TAUS, statistics={"one": few["one"], "two": {}})
    with pytest.raises(ValueError, match=r"given_displaced.*take methods of the tangent view"):
        fitted(study, VIEWED["displaced"])
    heights = made(Squared())
    for measure in (diagonals, learned, fitted):
        with pytest.raises(ValueError, match=r"\['one'\] is Squared; give Classify, or leave"):
            measure(heights, VIEWED["tangent"])
    plan = Plan(alphas=np.linspace(0, 1, 3))
    untrained = Method("mine", "Mine", "tangent", lambda study, task: pytest.fail("trained"))
    for name in ("fisher", "adamerging", "optimal"):
        rows = [comparison.Row(MERGES[name], untrained)]
        with pytest.raises(ValueError, match=rf"{name} takes .*\['one'\] is Squared"):
            comparison.measure(heights, replace(plan, methods=[untrained], rows=rows))
    with pytest.raises(ValueError, match=r"'optimal' is for views that are affine.*'linear', say"):
        lz.compare(study, [VIEWED["displaced"]], ["optimal"], plan=plan)


@pytest.mark.slow
def test_they_enter_every_view_that_can_have_them():
    """And their table: each row measured, the certificate beside the coefficients' row."""
    few = [
        replace(MERGES["fisher"], statistics=partial(diagonals, examples=4)),
        replace(MERGES["regmean"], statistics=partial(grams, examples=4)),
        replace(MERGES["adamerging"], statistics=partial(learned, steps=2)),
        MERGES["optimal_experts"],
    ]
    plan = Plan(alphas=np.linspace(0, 1, 3))
    found = lz.compare(made(), list(VIEWED.values()), few, plan=plan, maps=[]).results
    rows = {f"{m.name}_given_{view}" for m in few for view in VIEWED}
    assert rows - set(found.addition) == {"optimal_experts_given_displaced"}
    assert found.addition["optimal_experts_given_tangent"].gap[0] < 1e-6
    table = comparison_table(found)
    assert "nats of the optimum" in table["Optimal α (experts), tangent"]["Chosen"]
    assert "off_diagonal 0.9" in table["RegMean, displaced"]["Chosen"]


def comparison_table(found):
    from linearize.report.compare.tables import addition

    table = addition(found)
    return {
        row[0].text: {n: c.text for n, c in zip(table.columns, row, strict=True)}
        for row in table.rows
    }


def test_the_default_is_the_first_that_is_tried():
    """So that what nothing searched is among what was."""
    for merge in MERGES.values():
        function = merge.directions
        while isinstance(function, partial):
            function = function.func
        defaults = function.__kwdefaults__ or {}
        assert {n: defaults[n] for n in merge.options} == next(merge.candidates())


def test_a_task_of_few_examples_weighs_in_fisher_as_one_of_many():
    """Each example three times tells what it tells once."""
    few, study = {}, made()
    for task in TASKS:
        x, y = (np.asarray(a) for a in study.split(task, "train").arrays().values())
        n = 3 if task == "two" else 1
        few[task] = lz.data.split_task(task, np.concatenate([x] * n), np.concatenate([y] * n))
    found = diagonals(Study((model, THETA), list(few.values()), Classify()), VIEWED["tangent"])
    sizes = {t: sum(leaf.mean() for leaf in each.values()) for t, each in found.items()}
    alone = diagonals(study, VIEWED["tangent"])
    for task in TASKS:  # labels and, where 256 do not suffice, examples are drawn
        assert sizes[task] == pytest.approx(sum(x.mean() for x in alone[task].values()), rel=0.5)


def test_adamerging_knows_scanned_leaves_by_the_model():
    """A stack is one by what the model does with it, and not by what it is called."""
    params = {"stack/w": THETA["in/kernel"][None, :, :4] / 2, "layers/w": THETA["in/kernel"][:, :3]}
    params["stack/w"] = np.concatenate([params["stack/w"]] * 3)

    def scanning(params, x):
        x, _ = jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, params["stack/w"])
        return x @ params["layers/w"]

    taus = {
        t: TaskVector({n: (i + 1) * 0.1 * p for n, p in params.items()})
        for i, t in enumerate(TASKS)
    }
    method = Method("given", "Given", "tangent", lambda study, task: taus[task])
    tasks = [made().tasks[task] for task in TASKS]
    study = Study((scanning, params), tasks, Classify())
    found = learned(study, method, by="tensor", steps=1, batch_size=8)
    assert {n: np.shape(c) for n, c in found["one"].items()} == {"stack/w": (3,), "layers/w": ()}


def test_regmean_of_half_precision_is_that_of_the_same_numbers():
    """What is rounding in the inputs' G goes by its own dtype, and not by the vectors'."""
    told, kind = grams(made(), VIEWED["tangent"], examples=20), jnp.bfloat16
    halves = {t: TaskVector({n: d.astype(kind) for n, d in delta(t).items()}) for t in TASKS}
    wide = {
        t: TaskVector({n: np.float32(d) for n, d in tau.delta.items()}) for t, tau in halves.items()
    }
    found, expected = (
        regmean(taus, statistics=told)["regmean"].delta["out/kernel"] for taus in (halves, wide)
    )
    mean = np.mean([np.float32(tau.delta["out/kernel"]) for tau in wide.values()], 0)
    assert np.abs(expected - mean).max() > 0.1 * np.abs(mean).max()
    close(np.float32(found), expected, rtol=1e-2, atol=1e-2 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"v": np.float32(1)}, r"statistics\['a'\] has for w a coefficient of shape \(\), or none"),
        ({"w": np.ones(3, np.float32)}, r"for w a coefficient of shape \(3,\).* \(2,\) for its"),
    ],
)
def test_coefficients_of_other_leaves_are_refused(told, says):
    with pytest.raises(ValueError, match=says):
        MERGES["adamerging"].directions(
            {"a": TaskVector({"w": np.ones(2)})}, statistics={"a": told}
        )
