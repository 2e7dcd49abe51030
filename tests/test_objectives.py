"""Objectives, metrics and controls against dense references."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linearize.compiled import jit
from linearize.models.heads import Head
from linearize.objectives import ACCURACY, PERPLEXITY, CausalLM, Classify, Control, Metric, Squared
from linearize.objectives.distances import DISTANCES

pytestmark = pytest.mark.usefixtures("quick_compilation")

close = np.testing.assert_allclose
N, D, C = 7, 4, 3
HIGHER, LOWER = Metric("f1", "higher", 0.0, 1.0), Metric("error", "lower", 0.0)
SIGNED = Metric("matthews", "higher", -1.0, 1.0)


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def head(normalize, bias, classes=C, seed=1):
    return Head(
        jnp.asarray(drawn(D, seed=seed)),
        jnp.asarray(drawn(D, classes, seed=seed + 1)),
        jnp.asarray(drawn(classes, seed=seed + 2)) if bias else None,
        jnp.float32(3.0),
        normalize,
    )


def squash(features):
    return jnp.tanh(features) @ jnp.asarray(drawn(D, C, seed=5))


READOUTS = {
    "none": None,
    "function": squash,
    "partial": jax.tree_util.Partial(squash),
    **{
        f"head{' normalised' * n}{' biased' * b}": head(n, b)
        for n in (False, True)
        for b in (False, True)
    },
}
HEADS = {name: each for name, each in READOUTS.items() if isinstance(each, Head)}
FEATURES = drawn(N, D, seed=9)
LABELS = {"labels": np.arange(N) % C}


def dense_logits(readout, x):
    """What a readout says, in float64."""
    x = np.asarray(x, np.float64)
    if readout is None:
        return x
    if not isinstance(readout, Head):
        return np.tanh(x) @ np.float64(drawn(D, C, seed=5))
    z = x - np.float64(readout.center)
    if readout.normalize:
        z /= np.linalg.norm(z, axis=1, keepdims=True)
    bias = 0.0 if readout.bias is None else np.float64(readout.bias)
    return float(readout.scale) * z @ np.float64(readout.kernel) + bias


def log_softmax(logits):
    top = logits.max(-1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))


def dense_cross_entropy(logits, labels, smoothing):
    target = np.full(logits.shape, smoothing / logits.shape[-1])
    target[np.arange(len(labels)), labels] += 1 - smoothing
    return -(target * log_softmax(logits)).sum(-1)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("readout", READOUTS.values(), ids=READOUTS)
def test_classification_is_cross_entropy_and_accuracy_of_the_logits(readout, smoothing):
    objective = Classify(readout, smoothing)
    outputs = jnp.asarray(FEATURES if readout is not None else FEATURES[:, :C])
    logits = dense_logits(readout, outputs)
    close(objective.logits(outputs), logits, rtol=2e-5, atol=1e-5)
    labels = (logits.argmax(1) + np.arange(N) % 2) % C  # every other one is wrong
    expected = dense_cross_entropy(logits, labels, smoothing)
    close(objective.loss(outputs, {"labels": jnp.asarray(labels)}), expected, rtol=2e-5, atol=1e-5)
    assert objective.measure(outputs, {"labels": labels}) == {"accuracy": 4 / 7}


@pytest.mark.parametrize("readout", HEADS.values(), ids=HEADS)
def test_smoothed_training_has_the_objective_s_own_loss(readout):
    """Smoothing is the objective's, whatever the recipe says; without it the head is handed on."""
    (name, loss), *rest = Classify(readout, 0.2).training().items()
    assert (name, rest) == ("loss", [])
    expected = dense_cross_entropy(dense_logits(readout, FEATURES), LABELS["labels"], 0.2)
    batch = {"labels": jnp.asarray(LABELS["labels"]), "inputs": jnp.zeros(N)}
    close(loss(jnp.asarray(FEATURES), batch), expected, rtol=2e-5, atol=1e-5)
    plain = Classify(readout).training()["readout"]
    close(plain(jnp.asarray(FEATURES)), dense_logits(readout, FEATURES), rtol=2e-5, atol=1e-5)
    assert Classify().training() == {"readout": None}


def language(*shape, seed=0):
    """Logits (B, L, V) and labels of which some are not asked for, one example wholly."""
    logits = drawn(*shape, seed=seed)
    labels = np.random.default_rng(seed).integers(0, shape[-1], shape[:-1])
    labels[::2, -2:] = -1
    labels[1] = -100
    return logits, labels


def test_language_modelling_is_the_mean_over_the_tokens_that_are_asked_for():
    logits, labels = language(4, 5, 6)
    nats = -np.take_along_axis(
        log_softmax(np.float64(logits)), np.maximum(labels, 0)[..., None], -1
    )[..., 0]  # fmt: skip
    asked = labels >= 0
    each = np.where(asked, nats, 0).sum(1) / np.maximum(asked.sum(1), 1)
    batch = {"labels": jnp.asarray(labels)}
    close(CausalLM().loss(jnp.asarray(logits), batch), each, rtol=1e-5)
    assert each[1] == 0
    # over tokens, not over examples' means
    perplexity = math.exp(nats[asked].mean())
    assert perplexity != pytest.approx(math.exp(each.mean()), rel=1e-3)
    found = CausalLM().measure(jnp.asarray(logits), {"labels": labels})
    assert found == {"perplexity": pytest.approx(perplexity, rel=1e-5)}
    worst = np.where(np.arange(6) == np.maximum(labels, 0)[..., None], -1e4, 0).astype(np.float32)
    assert CausalLM().measure(jnp.asarray(worst), {"labels": labels}) == {"perplexity": math.inf}


def test_squared_error_is_the_mean_over_an_example_s_numbers():
    outputs, targets = drawn(N, 2, 3), drawn(N, 2, 3, seed=1)
    each = ((np.float64(outputs) - targets) ** 2).mean((1, 2))
    close(Squared().loss(jnp.asarray(outputs), {"targets": targets}), each, rtol=1e-5)
    mean = pytest.approx(each.mean(), rel=1e-6)
    assert Squared().measure(jnp.asarray(outputs), {"targets": targets}) == {
        "mean squared error": mean
    }
    scalars = Squared(target="height").measure(outputs[:, 0, 0], {"height": targets[:, 0, 0]})
    expected = ((outputs[:, 0, 0] - targets[:, 0, 0]) ** 2).mean()
    assert scalars["mean squared error"] == pytest.approx(expected, rel=1e-6)


LOGITS, TOKENS = language(N, 5, 6)
EXAMPLES = {
    "classify": (Classify(head(True, False)), FEATURES, LABELS),
    "squared": (Squared(), drawn(N, 2), {"targets": drawn(N, 2, seed=1)}),
    "language": (CausalLM(), LOGITS, {"labels": TOKENS}),
}


@pytest.mark.parametrize(("objective", "outputs", "batch"), EXAMPLES.values(), ids=EXAMPLES)
def test_padding_does_not_count(objective, outputs, batch):
    """Statistics of a padded batch are those of its examples, whatever the padding holds."""
    few = {name: values[:5] for name, values in batch.items()}
    expected = objective.total(jnp.asarray(outputs[:5]), few)
    for filler in (outputs[5:], np.full_like(outputs[5:], np.nan)):
        padded = jnp.asarray(np.concatenate([outputs[:5], filler]))
        found = objective.total(padded, batch, jnp.arange(N) < 5)
        assert found.keys() == expected.keys()
        for name in expected:
            close(found[name], expected[name], rtol=1e-6)
    every = objective.total(jnp.asarray(outputs), batch)
    assert any(float(every[name]) != float(expected[name]) for name in expected)
    # sums of parts give the whole's metrics
    rest = objective.total(jnp.asarray(outputs[5:]), {n: v[5:] for n, v in batch.items()})
    sums = {name: np.float64(expected[name]) + np.float64(rest[name]) for name in rest}
    whole = objective.measure(jnp.asarray(outputs), batch)
    assert objective.values(sums)[objective.primary.name] == pytest.approx(
        whole[objective.primary.name], rel=1e-6
    )


def between(objective, left, right, batch):
    return np.asarray(
        objective.distance.between(objective.kept(left, batch), objective.kept(right, batch))
    )


def test_distances_of_classes_count_changed_predictions():
    readout = head(True, True)
    left, right = FEATURES, np.concatenate([FEATURES[:3], drawn(N - 3, D, seed=11)])
    dense = [dense_logits(readout, each) for each in (left, right)]
    changed = dense[0].argmax(1) != dense[1].argmax(1)
    assert changed.any()
    close(between(Classify(readout), left, right, LABELS), np.float32(changed))
    soft = Classify(readout, distance=DISTANCES["total_variation"])
    p, q = (np.exp(log_softmax(each)) for each in dense)
    close(between(soft, left, right, LABELS), 0.5 * np.abs(p - q).sum(1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", DISTANCES)
def test_predictions_that_are_no_numbers_agree_with_nothing(name):
    objective = Classify(distance=DISTANCES[name])
    broken = jnp.asarray(drawn(4, C)).at[1, 0].set(jnp.nan).at[2, 1].set(jnp.inf)
    distance = between(objective, broken, broken, {})
    close(distance, [0, 1, 1, 0])
    assert objective.measure(broken, {"labels": np.asarray(broken).argmax(1)})["accuracy"] == 0.5


def test_a_squared_difference_of_what_is_no_number_is_none():
    a, b = drawn(4, 3), drawn(4, 3, seed=1)
    a[2, 1] = np.nan
    expected = np.where(np.arange(4) == 2, np.nan, ((a - b) ** 2).mean(1))
    close(between(Squared(), jnp.asarray(a), jnp.asarray(b), {}), expected, rtol=1e-5)


def test_next_tokens_differ_where_they_are_asked_for():
    left, labels = language(4, 5, 6)
    right = drawn(4, 5, 6, seed=3)
    asked, changed = labels >= 0, left.argmax(-1) != right.argmax(-1)
    assert (changed & ~asked).any()
    expected = (changed & asked).sum(1) / np.maximum(asked.sum(1), 1)
    batch = {"labels": jnp.asarray(labels)}
    close(between(CausalLM(), jnp.asarray(left), jnp.asarray(right), batch), expected, rtol=1e-6)
    assert expected[1] == 0
    ignored = np.where(asked[..., None], left, np.nan)
    close(between(CausalLM(), jnp.asarray(ignored), jnp.asarray(left), batch), 0)
    left[3, 0, 0] = np.nan  # asked for: the example's prediction agrees with nothing
    close(between(CausalLM(), jnp.asarray(left), jnp.asarray(left), batch), [0, 0, 0, 1])


@pytest.mark.parametrize("readout", READOUTS.values(), ids=READOUTS)
def test_what_is_reduced_has_the_same_statistics(readout):
    """And is affine, which the tangent view rests upon."""
    objective = Classify(readout)
    reduced = objective.reduced()
    affine = isinstance(readout, Head) and not (readout.normalize and readout.bias is not None)
    assert (reduced is not None) == affine
    if reduced is None:
        return
    scores, reader = reduced
    a, b = (jnp.asarray(drawn(50, D, seed=seed)) for seed in (20, 21))
    labels = {"labels": jnp.arange(50) % C}
    expected, found = objective.statistics(a, labels), reader.statistics(scores(a), labels)
    assert {n: v.tolist() for n, v in found.items()} == {n: v.tolist() for n, v in expected.items()}
    close(scores(3 * a - 2 * b), 3 * scores(a) - 2 * scores(b), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("readout", HEADS.values(), ids=HEADS)
def test_objectives_alike_have_the_same_numbers_and_one_compilation(readout, smoothing):
    small = Classify(readout, smoothing)
    large = Classify(head(readout.normalize, True, classes=C + 4, seed=30), smoothing)
    outputs, batch = jnp.asarray(FEATURES), {"labels": jnp.asarray(LABELS["labels"])}
    padded = [each.alike([small, large, Squared()]) for each in (small, large)]

    @jit
    def numbers(objective, outputs, batch):
        total = objective.total(outputs, batch)
        return objective.loss(outputs, batch), total, objective.kept(outputs, batch)

    for given, other in zip((small, large), padded, strict=True):
        loss, total, kept = numbers(other, outputs, batch)
        close(loss, given.loss(outputs, batch), rtol=1e-5, atol=1e-6)
        assert total["hits"] == given.total(outputs, batch)["hits"]
        np.testing.assert_array_equal(kept, given.kept(outputs, batch))
        assert other.measure(outputs, LABELS) == given.measure(outputs, LABELS)
    assert numbers._cache_size() == (1 if not smoothing else 2)  # all classes have a share


def test_what_has_no_head_is_alike_as_it_is():
    for objective in (Classify(), Classify(squash), Squared(), CausalLM()):
        assert objective.alike([objective, Classify(head(True, False))]) is objective


@pytest.mark.parametrize(
    ("objective", "shape", "batch", "message"),
    [
        (Classify(), (N, C), {}, "Classify compares outputs with 'labels'.*there are: none"),
        (Classify(), (N, C), {"label": [0]}, r"lack; there are: 'label'"),
        (Classify(), (N, C), {"labels": np.zeros(3, int)}, r"int64\(3,\); expected \(7,\)"),
        (Classify(), (N, C), {"labels": np.zeros(N)}, r"float64\(7,\).*integers"),
        (Classify(), (N, C), {"labels": np.arange(N)}, "from 0 to 6; this readout has.* 0 to 2"),
        (Classify(), (N, C), {"labels": np.full(N, -1)}, "from -1 to -1"),
        (Classify(head(True, False)), (N, D), {"labels": np.full(N, 3)}, "classes 0 to 2"),
        (Classify(), (N, N, C), {"labels": np.zeros(N, int)}, r"shape \(7, 7, 3\).*CausalLM"),
        (Classify(), (N,), {"labels": np.zeros(N, int)}, r"shape \(7,\); expected \(B, C\)"),
        (CausalLM(), (N, 2, C), {}, "CausalLM compares outputs with 'labels'"),
        (CausalLM(), (N, 2, C), {"labels": np.zeros((N, 3), int)}, r"expected \(7, 2\) integers"),
        (CausalLM(), (N, 2, C), {"labels": np.zeros((N, 2))}, "float64"),
        (CausalLM(), (N, 2, C), {"labels": np.full((N, 2), C)}, "reach 3;.* tokens 0 to 2"),
        (CausalLM(), (N, 2, C), {"labels": np.full((N, 2), -1)}, "negative everywhere"),
        (CausalLM(), (N, C), {"labels": np.zeros(N, int)}, r"shape \(7, 3\); expected \(B, L, V\)"),
        (CausalLM(), (N, 2, 2, C), {"labels": np.zeros((N, 2, 2), int)}, r"expected \(B, L, V\)"),
        (Squared(), (N, 2), {"labels": np.zeros((N, 2))}, "Squared compares outputs with"),
        (Squared(), (N, 1), {"targets": np.zeros(N)}, r"\(7,\); expected the outputs' \(7, 1"),
        (Squared("y"), (N,), {"y": np.full(N, np.inf)}, "y hold NaN or infinity"),
    ],
)  # fmt: skip
def test_targets_that_do_not_fit_are_refused(objective, shape, batch, message):
    """By shapes alone as by outputs: a program is not run to know."""
    shapes = jax.ShapeDtypeStruct(shape, jnp.float32)
    for outputs in (shapes, jnp.zeros(shape)):
        with pytest.raises(ValueError, match=message):
            objective.check(outputs, batch)
    with pytest.raises(ValueError, match=message):
        objective.measure(jnp.zeros(shape), batch)


def test_options_that_mean_nothing_are_refused():
    for smoothing in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match=f"smoothing={smoothing}"):
            Classify(smoothing=smoothing)
    with pytest.raises(TypeError, match="readout is a int"):
        Classify(3).logits(jnp.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"better='high' is not one of .*did you mean 'higher'"):
        Metric("f1", "high")
    with pytest.raises(ValueError, match=r"f1: low=1.0 and high=0.0"):
        Metric("f1", "higher", 1.0, 0.0)


def test_normalized_is_one_where_merging_costs_nothing():
    merged, single = np.array([[0.4, 0.9], [0.8, 0.3]]), np.array([0.8, 0.9])
    close(HIGHER.normalized(merged, single), merged / single, rtol=1e-15)
    close(LOWER.normalized(merged, single), single / merged, rtol=1e-15)
    for metric in (HIGHER, LOWER):
        close(metric.normalized(single, single), 1)
        close(metric.score(merged, single), metric.normalized(merged, single))


def test_a_bounded_metric_that_may_be_negative_is_scored_by_its_gain():
    merged, single = np.array([[0.0, -1.0], [0.8, 1.0]]), np.array([0.5, -0.5])
    close(SIGNED.score(merged, single), 1 + (merged - single) / 2, rtol=1e-15)
    lower = dataclasses.replace(SIGNED, better="lower")
    close(lower.score(merged, single), 1 - (merged - single) / 2, rtol=1e-15)


@pytest.mark.parametrize(
    ("metric", "merged", "single", "message"),
    [
        (ACCURACY, [1.2], [0.5], r"merged holds \[1.2\]; accuracy lies between 0 and 1"),
        (PERPLEXITY, [2.0], [0.5], r"single holds \[0.5\]; perplexity lies between 1 and inf"),
        (PERPLEXITY, [math.inf], [2.0], "merged holds"),
        (SIGNED, [math.nan], [0.5], "merged holds"),
        (HIGHER, [0.5, 0.5], [0.5, 0.0], "single-task f1 of task 1 is 0"),
        (LOWER, [[0.5, 0.5], [0.0, 0.5]], [0.5, 0.5], "merged error of task 0 is 0"),
        (HIGHER, [0.5, 0.5], [0.5], r"shape \(2,\) and single \(1,\)"),
        (SIGNED, [0.5, 0.5], [0.5], r"shape \(2,\) and single \(1,\)"),
        (SIGNED, [0.5], 0.5, r"single \(\)"),
        (Metric("reward"), [0.5], [0.5], "reward may be negative and has no bounds"),
    ],
)
def test_values_that_have_no_score_are_refused(metric, merged, single, message):
    with pytest.raises(ValueError, match=message):
        metric.score(merged, single)


def test_a_metric_that_may_be_negative_is_not_divided():
    with pytest.raises(ValueError, match="matthews may be negative"):
        SIGNED.normalized([0.5], [0.5])


@pytest.mark.parametrize(
    ("control", "metric", "before", "floor"),
    [
        (Control(), HIGHER, 0.8, 0.76),
        (Control(0.5), LOWER, 3.0, 6.0),
        (Control(units=0.25), HIGHER, 0.8, 0.55),
        (Control(units=0.25), LOWER, 3.0, 3.25),
        (Control(units=0.25), SIGNED, -0.5, -0.75),
        (Control(units=0.0), Metric("reward"), -3.0, -3.0),
        (Control(0.0), HIGHER, 0.8, 0.0),
        (Control(0.0), LOWER, 3.0, math.inf),
        (Control(0.0), LOWER, 0.0, math.inf),
        (Control(0.5), LOWER, 0.0, 0.0),
    ],
)
def test_a_control_allows_what_is_no_worse_than_its_floor(control, metric, before, floor):
    assert control.floor(metric, before) == pytest.approx(floor)
    if math.isfinite(floor):
        assert control.allows(metric, floor, before)
        worse = floor - metric.sign * np.array([1e-6, 1.0])
        assert not control.allows(metric, worse, before).any()
        assert control.allows(metric, floor + metric.sign * 0.1, before)
    else:
        assert control.allows(metric, [0.0, 1e9], before).all()
    pair = control.floor(metric, [before, before])
    close(pair, [floor, floor])


def test_controls_that_cannot_be_held_are_refused():
    with pytest.raises(ValueError, match=r"control's matthews may be negative.*in units"):
        Control().floor(SIGNED, 0.5)
    for retained in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=f"retained={retained}"):
            Control(retained)
    for units in (-0.1, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"units={units}"):
            Control(units=units)
