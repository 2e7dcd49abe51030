"""Error maps under objectives and targets, against float64 NumPy, a loop over examples a point."""

import dataclasses
from itertools import product
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import linearize as lz
from linearize.agreement import DisagreementError
from linearize.comparison import Plan
from linearize.disentangle import affine_map, passes
from linearize.evaluate import affine_outputs
from linearize.examples import Examples
from linearize.objectives import DISTANCES, SQUARED_ERROR, CausalLM, Classify, Metric, Squared
from linearize.study import Method, Study
from linearize.study.maps import error_map, mapped
from linearize.task_vector import TaskVector

close = np.testing.assert_allclose
pytestmark = pytest.mark.usefixtures("quick_compilation")
V, L, WIDTH, OUT = 5, 4, 3, 2
AXES = [np.array([-1.0, 0.0, 2.0]), np.array([0.0, 1.5])]
VIEWS = pytest.mark.parametrize("regime", ["displaced", "tangent"])


def drawn(*shape, seed):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


SHAPES = {"embed": (V, WIDTH), "mix": (WIDTH, WIDTH), "out": (WIDTH, V)}
PARAMS = {n: drawn(*s, seed=i) for i, (n, s) in enumerate(SHAPES.items())}
TAUS = [{n: 0.5 * drawn(*s, seed=10 * t + 20 + i) for i, (n, s) in enumerate(SHAPES.items())}
        for t in range(2)]  # fmt: skip


def spoken(params, tokens, np=jnp):
    """Logits (B, L, V) of the next token, of the mean of all tokens until there."""
    seen = (
        np.cumsum(params["embed"][tokens], 1) / np.arange(1.0, tokens.shape[1] + 1)[None, :, None]
    )
    return np.tanh(seen @ params["mix"]) @ params["out"]


def text(n, seed, asked):
    """Tokens, and labels of which so many of each example are asked for, its first ones."""
    rng = np.random.default_rng(seed)
    real = np.arange(L) < np.asarray(asked)[:, None]
    return rng.integers(0, V, (n, L)), np.where(real, rng.integers(0, V, (n, L)), -1)


TOKENS, LABELS = zip(text(5, 1, [4, 2, 0, 1, 3]), text(3, 2, [1, 4, 2]), strict=True)
TARGETS = [{"labels": labels} for labels in LABELS]


def at(f, alphas, x, regime, params=PARAMS, taus=TAUS):
    """The outputs at a point in float64; the derivative by complex steps."""
    base = {n: np.float64(p) for n, p in params.items()}
    move = {
        n: sum(a * np.float64(tau[n]) for a, tau in zip(alphas, taus, strict=True)) for n in base
    }
    if regime == "displaced":
        return f({n: base[n] + move[n] for n in base}, x, np)
    step = 1e-30
    moved = f({n: base[n] + 1j * step * move[n] for n in base}, x, np)
    return f(base, x, np) + moved.imag / step


def expected(f, inputs, regime, sums, **model):
    """(T, G_1, G_2): by hand, ``sums(t, a, b)`` being a task's summed distance and its count."""
    found = np.zeros((2, *map(len, AXES)))
    for (i, a), (j, b) in product(*map(enumerate, AXES)):
        for t, x in enumerate(inputs):
            alone, both = (at(f, p, x, regime, **model) for p in ([(a, 0), (0, b)][t], (a, b)))
            total, count = sums(t, alone, both)
            found[t, i, j] = total / count
    return found


def changed_tokens(labels, what=lambda a, b: a.argmax(-1) != b.argmax(-1)):
    def sums(t, a, b):
        real = labels[t] >= 0
        return what(a, b)[real].sum(), real.sum()

    return sums


def test_shares_of_tokens_have_no_binomial_interval():
    """Of 10 tokens asked for in 5 texts: rounded to fifths, a share would be another."""
    found = language(objective=CausalLM(distance="argmax"), regime="tangent")
    close(found.per_task, expected(spoken, TOKENS, "tangent", changed_tokens(LABELS)), atol=1e-6)
    assert np.abs(found.per_task[0] * 5 - np.rint(found.per_task[0] * 5)).max() > 0.1
    assert not found.binary
    with pytest.raises(ValueError, match="is not 0 or 1 of each example"):
        found.interval()


def half_l1(a, b):
    p, q = (np.exp(z) / np.exp(z).sum(-1, keepdims=True) for z in (a, b))
    return 0.5 * np.abs(p - q).sum(-1)


def language(inputs=TOKENS, targets=TARGETS, objective=None, params=PARAMS, taus=TAUS, **options):
    given = {"alphas": AXES, "batch_size": 2, "objectives": objective or CausalLM()} | options
    return lz.disentanglement_error(spoken, params, taus, inputs, targets=targets, **given)


@pytest.mark.slow(but=["displaced"])
@VIEWS
def test_next_tokens_are_compared_where_they_are_asked_for(regime):
    """Over tokens, as perplexity is; per task and in total; from a cache as from passes."""
    reference = expected(spoken, TOKENS, regime, changed_tokens(LABELS))
    every = expected(spoken, TOKENS, regime, changed_tokens([np.zeros_like(y) for y in LABELS]))
    assert (reference != every).sum() >= 3  # what is not asked for would show
    found = language(regime=regime)
    close(found.per_task, reference, atol=1e-6)
    close(found.total, reference.sum(0), atol=1e-6)
    assert (found.n.tolist(), found.distance, found.binary) == ([5, 3], "next token", False)
    if regime == "tangent":
        cached = [affine_outputs(spoken, PARAMS, TAUS, x) for x in TOKENS]
        close(language(regime="linear", cached=cached).per_task, reference, atol=1e-6)


SOFT = CausalLM(distance="total_variation")


def hold(monkeypatch, numbers):
    """So many numbers of single-task predictions at a time."""
    for module in (passes, affine_map):
        monkeypatch.setattr(module, "CHUNK_FLOATS", numbers)


@pytest.mark.slow(but=["tangent-1"])
@pytest.mark.parametrize("held", [2**22, 2 * 2 * L * V, 1])
@VIEWS
def test_distributions_of_tokens_are_compared_however_few_are_held(monkeypatch, regime, held):
    """The mean over tokens: all at once, two coefficients of a batch, or one batch at one."""
    hold(monkeypatch, held)
    reference = expected(spoken, TOKENS, regime, changed_tokens(LABELS, half_l1))
    close(language(objective=SOFT, regime=regime).per_task, reference, rtol=1e-4, atol=1e-6)


def answered(params, tokens, mask, answer, np=jnp):
    """Logits (B, A, V) after each token of an answer, which sees all that is no padding."""
    seen = (params["embed"][tokens] * mask[..., None]).sum(1) / mask.sum(1)[:, None]
    return np.tanh((seen[:, None] + params["embed"][answer]) @ params["mix"]) @ params["out"]


@pytest.mark.slow
@VIEWS
def test_answers_of_encoder_decoders_are_compared_token_by_token(monkeypatch, regime):
    hold(monkeypatch, 1)
    masks = [np.arange(L) < np.array([4, 2, 3, 1, 3])[: len(x), None] for x in TOKENS]
    asked = [labels[:, :3] for labels in LABELS]
    inputs = [(x, m, x[:, :3]) for x, m in zip(TOKENS, masks, strict=True)]
    found = lz.disentanglement_error(
        answered, PARAMS, TAUS, inputs, alphas=AXES, regime=regime, batch_size=2,
        objectives=SOFT, targets=[{"labels": y} for y in asked],
    )  # fmt: skip

    def whole(params, x, np):
        return answered(params, *x, np=np)

    reference = expected(whole, inputs, regime, changed_tokens(asked, half_l1))
    close(found.per_task, reference, rtol=1e-4, atol=1e-6)


@pytest.mark.slow(but=["displaced"])
@VIEWS
def test_distributions_of_more_examples_take_no_more_memory(monkeypatch, regime):
    """Outputs that live on the device while programs run, and what is kept of predictions."""
    wide = 1000
    params = PARAMS | {"embed": drawn(wide, WIDTH, seed=1), "out": drawn(WIDTH, wide, seed=2)}
    taus = [{n: 0.5 * drawn(*p.shape, seed=t) for n, p in params.items()} for t in range(2)]
    module, part = (passes, "_distance") if regime == "displaced" else (affine_map, "_distances")
    right, batch = getattr(module, part), 2 * L * wide
    hold(monkeypatch, batch)
    held = []

    def counted(*args):
        held.append(sum(a.size for a in jax.live_arrays() if a.shape[-2:] == (L, wide)))
        return right(*args)

    monkeypatch.setattr(module, part, counted)

    def most(n):
        held.clear()
        tokens = [np.random.default_rng(t).integers(0, wide, (n, L)) for t in range(2)]
        language(
            tokens, [{"labels": x} for x in tokens], SOFT, params=params, taus=taus,
            alphas=[-1.0, 0.0, 1.0], regime=regime,
        )  # fmt: skip
        return max(held)

    few = most(2)
    assert batch <= few <= 8 * batch
    assert most(12) <= few + batch  # one that the next task's was made beside


@pytest.mark.slow(but=["displaced"])
@VIEWS
def test_more_padding_changes_nothing(regime):
    """More tokens a line, and more lines, of which none is asked for."""
    wider = [np.pad(x, ((0, 2), (0, 3)), constant_values=V - 1) for x in TOKENS]
    labels = [np.pad(y, ((0, 2), (0, 3)), constant_values=-7) for y in LABELS]
    padded = language(wider, [{"labels": y} for y in labels], regime=regime)
    close(padded.per_task, language(regime=regime).per_task, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("held", [2**22, 1])
def test_a_preview_of_masked_predictions_keeps_to_the_mask(monkeypatch, capsys, held):
    """Of a model that is linear in its parameters, whose interpolated logits are exact."""
    hold(monkeypatch, held)

    def f(params, tokens, np=jnp):
        return params["table"][tokens]

    params, taus = {"table": drawn(V, V, seed=0)}, [{"table": drawn(V, V, seed=s)} for s in (1, 2)]
    sums = changed_tokens(LABELS)
    reference = expected(f, TOKENS, "displaced", sums, params=params, taus=taus)
    found = lz.disentanglement_error(
        f, params, taus, TOKENS, alphas=AXES, objectives=CausalLM(), targets=TARGETS, preview=2,
        batch_size=2,
    )  # fmt: skip
    close(found.per_task, reference, atol=1e-6)
    assert found.preview.max_error < 1e-6
    assert "held-out" in capsys.readouterr().out


REGRESSION = {"a": drawn(3, WIDTH, seed=1), "b": drawn(WIDTH, OUT, seed=2)}
MOVES = [{n: 0.5 * drawn(*p.shape, seed=s) for n, p in REGRESSION.items()} for s in (3, 4)]
POINTS = [drawn(5, 3, seed=5), drawn(4, 3, seed=6)]


def curve(params, x, np=jnp):
    return np.tanh(x @ params["a"]) @ params["b"]


def regression(objective, targets, inputs=POINTS, **options):
    given = {"alphas": AXES, "batch_size": 2, "objectives": objective} | options
    return lz.disentanglement_error(curve, REGRESSION, MOVES, inputs, targets=targets, **given)


def model(sums, regime):
    return expected(curve, POINTS, regime, sums, params=REGRESSION, taus=MOVES)


@VIEWS
def test_regression_errs_by_squared_differences(regime):
    targets = [{"targets": drawn(len(x), OUT, seed=7)} for x in POINTS]
    reference = model(lambda t, a, b: (((a - b) ** 2).mean(1).sum(), len(a)), regime)
    found = regression(Squared(), targets, regime=regime)
    close(found.per_task, reference, rtol=1e-4, atol=1e-6)
    assert found.distance == "squared difference"


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Weighted(Squared):
    """Numbers by a mask of their own, examples by a weight."""

    metrics: ClassVar[tuple[Metric, ...]] = (SQUARED_ERROR,)

    def between(self, a, b, batch):
        return jnp.sum(batch["mask"] * (a - b) ** 2, 1) / jnp.maximum(batch["mask"].sum(1), 1)

    def counted(self, batch):
        return batch["weight"]


MASKS = [(np.arange(2 * len(x)).reshape(-1, 2) % 3 > 0).astype(np.float32) for x in POINTS]
WEIGHTS = [np.array([0.5, 0, 3, 1, 2], np.float32), np.array([1, 1, 0, 4], np.float32)]
MASKED = [
    {"targets": drawn(len(x), OUT, seed=7), "mask": m, "weight": w}
    for x, m, w in zip(POINTS, MASKS, WEIGHTS, strict=True)
]


@pytest.mark.slow
@VIEWS
def test_masks_and_weights_of_ones_own_objective(regime):
    def sums(t, a, b):
        each = (MASKS[t] * (a - b) ** 2).sum(1) / np.maximum(MASKS[t].sum(1), 1)
        return (WEIGHTS[t] * each).sum(), WEIGHTS[t].sum()

    found = regression(Weighted(), MASKED, regime=regime)
    close(found.per_task, model(sums, regime), rtol=1e-4, atol=1e-6)


@VIEWS
def test_an_example_that_does_not_count_may_be_no_number(regime):
    """And one that does is found, wherever it lies."""

    def f(params, x):
        return curve(params, x) / (x[:, :1] != 9)  # 9 gives infinity

    bad = [POINTS[0].copy(), POINTS[1]]
    bad[0][1, 0] = 9
    given = {"alphas": AXES, "regime": regime, "batch_size": 2}
    if regime == "tangent":  # whose terms are linear algebra with all of them
        with pytest.raises(lz.tree.NonFiniteError, match=r"task 0: .* 1 of 2 examples"):
            lz.disentanglement_error(
                f, REGRESSION, MOVES, bad, objectives=Weighted(), targets=MASKED, **given
            )
        return
    found = lz.disentanglement_error(
        f, REGRESSION, MOVES, bad, objectives=Weighted(), targets=MASKED, **given
    )
    close(found.per_task, regression(Weighted(), MASKED).per_task, rtol=1e-4, atol=1e-6)
    bad[0][2, 0] = 9
    with pytest.raises(lz.tree.NonFiniteError, match=r"task 0: .* 1 of 5 examples"):
        lz.disentanglement_error(
            f, REGRESSION, MOVES, bad, objectives=Weighted(), targets=MASKED, **given
        )


@pytest.mark.slow
@VIEWS
def test_tasks_of_several_kinds_have_a_distance_each(regime):
    """Classes and tokens changed are shares both, which add up."""
    objectives = [Classify(lambda y: y[:, 0]), CausalLM()]
    single = np.array([0, 1, 2, 3, 4])

    def f(params, tokens):
        """Tokens of one line, or of a class: the last one's logits alone."""
        return spoken(params, tokens)[:, -1:] if tokens.shape[1] == 2 else spoken(params, tokens)

    inputs = [np.stack([single, single[::-1]], 1), TOKENS[1]]
    targets = [{"labels": single}, TARGETS[1]]
    found = lz.disentanglement_error(
        f, PARAMS, TAUS, inputs, alphas=AXES, regime=regime, objectives=objectives, targets=targets
    )

    def sums(t, a, b):
        changed = a.argmax(-1) != b.argmax(-1)
        real = LABELS[1] >= 0 if t else np.arange(2) == np.ones((5, 1), int)
        return changed[real].sum(), real.sum()

    reference = expected(spoken, inputs, regime, sums)
    close(found.per_task, reference, atol=1e-6)
    close(found.total, reference.sum(0), atol=1e-6)
    assert (found.distance, found.binary) == ("argmax and next token", False)


def test_distances_of_different_units_have_no_sum():
    with pytest.raises(ValueError, match=r"'next token', 'squared difference' have different uni"):
        language(objective=[CausalLM(), Squared()])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": None}, "objectives and targets belong together"),
        ({"objectives": None}, "objectives and targets belong together"),
        ({"readouts": [None, None]}, "leave out readouts, distance"),
        ({"distance": "total_variation"}, "leave out readouts, distance"),
        ({"objectives": [CausalLM()]}, "objectives has 1 entries for 2 tasks"),
        ({"targets": TARGETS[:1]}, "targets has 1 entries for 2 tasks"),
        ({"targets": [{}, TARGETS[1]]}, "task 0: CausalLM compares outputs with 'labels'"),
        ({"targets": [TARGETS[0], {"labels": LABELS[1][:2]}]}, r"targets\[1\] are of 2.* of 3"),
        ({"targets": [*TARGETS[::-1]], "n_eval": 2}, r"targets\[0\] are of 3 .*inputs of 5"),
        ({"targets": [TARGETS[0], {"labels": LABELS[1][:, 1:]}]}, r"task 1: .*expected \(3, 4\)"),
        ({"targets": [TARGETS[0], {"labels": LABELS[1] - 9}]}, "task 1: .*negative everywhere"),
        ({"objectives": [CausalLM(), Weighted()]}, "different units"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    given = {"objectives": CausalLM(), "targets": TARGETS, "alphas": AXES, **change}
    with pytest.raises(ValueError, match=message):
        lz.disentanglement_error(spoken, PARAMS, TAUS, TOKENS, **given)


@pytest.mark.parametrize("counts", [np.ones(4), np.full(5, -1.0), np.full(5, np.nan), np.zeros(5)])
def test_counts_that_say_nothing_are_refused(counts):
    targets = [MASKED[0] | {"weight": np.resize(counts, 5)}, MASKED[1]]
    if len(counts) == 4:
        targets[0]["weight"] = np.ones((5, 2))
    with pytest.raises(ValueError, match=r"task 0: (Weighted.counted gives|none of 5 examples)"):
        regression(Weighted(), targets)


def test_examples_that_are_drawn_bring_their_targets():
    """As a map of these alone; where they ask for nothing, another draw is asked for."""
    draws = [np.random.default_rng([3, t]).permutation(len(x))[:2] for t, x in enumerate(TOKENS)]
    few = language(
        [x[np.sort(r)] for x, r in zip(TOKENS, draws, strict=True)],
        [{"labels": y[np.sort(r)]} for y, r in zip(LABELS, draws, strict=True)],
    )
    some = language(n_eval=2, seed=3)
    close(some.per_task, few.per_task)
    assert some.n.tolist() == [2, 2]
    silent = next(
        seed for seed in range(50) if np.random.default_rng([seed, 0]).permutation(5)[0] == 2
    )
    with pytest.raises(ValueError, match=r"task 0: .*(larger n_eval|negative everywhere)"):
        language(n_eval=1, seed=silent)


@pytest.mark.slow
@VIEWS
def test_a_wrong_distance_of_masked_predictions_is_found(monkeypatch, regime):
    module, part = {"displaced": (passes, "_distance"), "tangent": (affine_map, "_distances")}[
        regime
    ]
    right = getattr(module, part)
    monkeypatch.setattr(module, part, lambda *args: right(*args) + 1)
    with pytest.raises(DisagreementError, match=r"at α = |of the map"):  # of programs not yet met
        lz.disentanglement_error(
            lambda *args: spoken(*args), PARAMS, TAUS, TOKENS, alphas=np.arange(4.0) / 3,
            regime=regime, objectives=CausalLM(), targets=TARGETS,
        )  # fmt: skip


def study():
    tasks = {
        name: lz.Task(name, **dict.fromkeys(("train", "validation", "test"), Examples(x, y)))
        for name, x, y in zip(("one", "two"), TOKENS, TARGETS, strict=True)
    }
    return Study((spoken, PARAMS), tasks, CausalLM(), batch_size=2)


@pytest.mark.slow
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "streamed"])
@VIEWS
def test_a_study_maps_its_language_models(monkeypatch, regime, kept):
    if not kept:
        monkeypatch.setattr("linearize.evaluate.view.KEPT_BYTES", 0)
    here = study()
    assert mapped(here, ("one", "two"))
    vectors = {n: TaskVector(tau) for n, tau in zip(("two", "one"), TAUS[::-1], strict=True)}
    view = here.views[regime](spoken, PARAMS, vectors, 2)
    found = error_map(here, view, ("one", "two"), AXES[0])
    close(
        found.per_task[:, :, 1], language(regime=regime, alphas=[AXES[0], [0.0]]).per_task[:, :, 0]
    )
    close(found.per_task, language(regime=regime, alphas=AXES[0]).per_task, atol=1e-6)
    if regime == "tangent":
        assert bool(view._terms) == kept


@pytest.mark.slow
def test_the_main_job_maps_pairs_that_mask_tokens():
    here = study()
    vectors = dict(zip(("one", "two"), map(TaskVector, TAUS), strict=True))
    methods = [
        Method("mine", "Mine", "tangent", lambda study, task: vectors[task]),
        Method("other", "Other", "displaced", lambda study, task: vectors[task]),
    ]
    plan = Plan(alphas=np.array([0.0, 1.0]), map_alphas=AXES[0])
    (found,) = lz.compare(here, methods, plan=plan).record["maps"]
    assert (found["tasks"], found["distance"]) == (["one", "two"], "next token")
    for method, regime in (("mine", "tangent"), ("other", "displaced")):
        expected_ = language(regime=regime, alphas=AXES[0])
        close(found["total"][method][0], expected_.total, atol=1e-6)
        close(found["per_task"][method][0], expected_.per_task, atol=1e-6)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n_eval": 2.5}, "n_eval=2.5; expected an integer, 1 or more"),
        ({"targets": [np.zeros(2), np.zeros(2)]}, r"targets\[0\] is a ndarray; expected arrays by"),
        ({"objectives": ["causal"] * 2}, r"objectives\[0\] is 'causal'; expected an Objective"),
    ],
)
def test_arguments_of_another_kind_are_refused_by_name(changed, message):
    inputs = [np.zeros((2, L), int)] * 2
    how = {"objectives": CausalLM(), "targets": [{"labels": x} for x in inputs]} | changed
    with pytest.raises(ValueError, match=message):
        lz.disentanglement_error(spoken, PARAMS, TAUS, inputs, **how)


@pytest.mark.parametrize("kind", [Classify, CausalLM, Squared])
def test_a_distance_may_be_named(kind):
    assert kind(distance="total_variation").distance is DISTANCES["total_variation"]
    with pytest.raises(ValueError, match="did you mean 'argmax'"):
        kind(distance="argmaxx")
