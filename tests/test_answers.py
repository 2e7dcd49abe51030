"""Metrics of a confusion matrix, answers of encoder–decoders and masked classes, beside others'."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

import linearize as lz
from linearize.objectives import Classify, Control, Seq2Seq, columns
from linearize.objectives.confusion import OF_CONFUSION

pytestmark = pytest.mark.usefixtures("quick_compilation")
close = np.testing.assert_allclose
ANSWERS = ((3, 4, 1), (5, 1))
METRICS = {
    "matthews": ("Matthews correlation", sklearn.metrics.matthews_corrcoef),
    "f1": ("F1", lambda y, p: sklearn.metrics.f1_score(y, p, labels=[1], average="macro")),
    "macro_f1": ("macro F1", lambda y, p: sklearn.metrics.f1_score(y, p, average="macro")),
}


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("metric", METRICS)
def test_metrics_of_a_confusion_matrix_equal_scikit_learn(metric, classes):
    labels = np.array([0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 1] if classes == 2 else [0, 2, 1, 1, 2, 0, 0])
    logits = drawn(len(labels), classes) + 0.8 * np.eye(classes, dtype=np.float32)[labels]
    logits[3] = np.nan  # no class: as if it were one more, which is never true
    said = np.where(np.isnan(logits[:, 0]), classes, logits.argmax(1))
    name, theirs = METRICS[metric]
    given = Classify(metric=metric)
    found = given.measure(jnp.asarray(logits), {"labels": labels})
    assert list(found) == [each.name for each in given.metrics] == [name, "accuracy"]
    if metric == "macro_f1":  # a class that is never true has F1 = 0, and is left out here
        expected = theirs(labels, said) * len(set(labels) | set(said)) / classes
    else:
        expected = theirs(labels, said)
    assert found[name] == pytest.approx(expected, abs=1e-12)
    assert found["accuracy"] == pytest.approx((said == labels).mean())


def test_a_correlation_of_nothing_is_zero():
    """As scikit-learn has it, where all are called alike, or F1 of a class that is not there."""
    same = {"labels": np.array([0, 1, 0])}
    constant = jnp.asarray([[1.0, 0.0]] * 3)
    for metric in METRICS:
        assert np.isfinite(list(Classify(metric=metric).measure(constant, same).values())).all()
    assert Classify(metric="matthews").measure(constant, same)["Matthews correlation"] == 0
    absent = {"labels": np.zeros(3, int)}
    assert Classify(metric="f1").measure(constant, absent)["F1"] == 0
    assert Classify(metric="macro_f1").measure(constant, absent)["macro F1"] == 1


def test_a_misspelt_metric_is_named():
    with pytest.raises(ValueError, match=r"metric='mathews' is not one of .*'matthews'"):
        Classify(metric="mathews")
    with pytest.raises(ValueError, match="metric='f1' is of classes; give answers"):
        Seq2Seq(metric="f1")


def test_columns_leave_the_others_out_of_loss_and_metric():
    x, labels = drawn(6, 3, seed=2), np.array([0, 1, 1, 0, 0, 1])
    own = x[:, [0, 2]].astype(np.float64)
    nats = np.log(np.exp(own).sum(1)) - own[np.arange(6), labels]
    given, batch = Classify(columns([0, 2])), {"labels": labels}
    close(given.loss(jnp.asarray(x), batch), nats, rtol=1e-5)
    changed = jnp.asarray(x + np.float32([[0, 9, 0]]))
    close(given.loss(changed, batch), nats, rtol=1e-5)
    assert given.measure(changed, batch) == {"accuracy": (own.argmax(1) == labels).mean()}


@pytest.mark.parametrize(
    ("classes", "said"), [([0], "two columns"), ([1, 1], "each once"), ([0, 3], "have 3 columns")]
)
def test_columns_that_are_not_there_are_refused(classes, said):
    with pytest.raises(ValueError, match=said):
        columns(classes)(jnp.zeros((1, 3)))


def told(labels):
    """Labels padded as data are."""
    width = max(map(len, labels))
    return {"labels": np.array([[*row, *[-1] * (width - len(row))] for row in labels])}


def test_exact_match_and_perplexity_of_answers():
    rows = [ANSWERS[i] for i in (0, 1, 1, 0, 0)]
    batch, logits = told(rows), drawn(5, 3, 7, seed=3)
    for i, j in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (3, 0), (3, 1)):
        logits[i, j, rows[i][j]] += 9
    found = Seq2Seq().measure(jnp.asarray(logits), batch)
    greedy = [all(logits[i, j].argmax() == t for j, t in enumerate(r)) for i, r in enumerate(rows)]
    spread = np.log(np.exp(logits.astype(np.float64)).sum(-1))
    nats = [spread[i, j] - logits[i, j, t] for i, r in enumerate(rows) for j, t in enumerate(r)]
    assert 0 < sum(greedy) < 5
    assert found["exact match"] == pytest.approx(np.mean(greedy))
    assert found["perplexity"] == pytest.approx(np.exp(np.mean(nats)), rel=1e-5)
    # NaN is no answer, and an answer of which nothing is asked is none either
    assert Seq2Seq().measure(jnp.full((5, 3, 7), jnp.nan), batch)["exact match"] == 0
    nothing = {"labels": np.full((5, 3), -1)}
    assert int(Seq2Seq().total(jnp.asarray(logits), nothing)["whole"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["accuracy", *OF_CONFUSION])
def test_answers_of_classes_are_measured_where_they_part(metric):
    labels = np.array([0, 1, 1, 0, 0, 1, 1])
    batch, logits = told([ANSWERS[i] for i in labels]), drawn(7, 3, 7, seed=4)
    said = (logits[:, 0, 5] > logits[:, 0, 3]).astype(int)
    given = Seq2Seq(answers=ANSWERS, metric=metric)
    found = given.measure(jnp.asarray(logits), batch)
    assert next(iter(found)) == given.primary.name
    assert found["accuracy"] == pytest.approx((said == labels).mean())
    if metric in METRICS:
        name, theirs = METRICS[metric]
        assert found[name] == pytest.approx(theirs(labels, said), abs=1e-12)


def test_answers_of_other_classes_share_what_is_compiled():
    one, other = Seq2Seq(answers=ANSWERS), Seq2Seq(answers=[[6, 1], [2, 1]])
    shapes = [jax.eval_shape(lambda x: x, each.alike([one, other])) for each in (one, other)]
    assert jax.tree.structure(shapes[0]) == jax.tree.structure(shapes[1])
    assert jax.tree.leaves(shapes[0])[0].shape == jax.tree.leaves(shapes[1])[0].shape == (2, 3)
    assert jax.tree.structure(one.training()) == jax.tree.structure(other.training())
    batch, logits = told([(6, 1, -1), (2, 1, -1)]), jnp.asarray(drawn(2, 3, 7, seed=5))
    assert other.alike([one, other]).measure(logits, batch) == other.measure(logits, batch)


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([[3, 1]], "two classes or more"),
        ([[3, 1], [3, 1]], "no one token tells them apart"),
        ([[3, 1], [3, 2], [4, 1]], "no one token tells them apart"),
        ([[3], [3, 1]], "no one token tells them apart"),
    ],
)
def test_answers_that_no_token_tells_apart_are_refused(answers, said):
    with pytest.raises(ValueError, match=said):
        Seq2Seq(answers=answers)


def test_labels_that_are_no_answer_are_refused():
    given, outputs = Seq2Seq(answers=ANSWERS), jnp.zeros((2, 3, 7))
    with pytest.raises(ValueError, match=r"labels hold \[5, 4, 1\], which is none of the answers"):
        given.measure(outputs, told([(3, 4, 1), (5, 4, 1)]))
    with pytest.raises(ValueError, match="labels reach 9"):
        Seq2Seq().measure(outputs, told([(9, 4, 1), (5, 4, 1)]))
    with pytest.raises(ValueError, match="have room for 2 tokens"):
        given.measure(outputs[:, :2], told([(5, 1), (5, 1)]))


@pytest.mark.slow
def test_a_correlation_runs_through_the_comparison(tmp_path):
    """Every view, search, table and figure takes a metric that may be negative."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 90, 5)).astype(np.float32)
    tasks = [
        lz.data.split_task(f"task_{i}", z, (z @ rng.normal(size=5) > 0).astype(int))
        for i, z in enumerate(x)
    ]
    start = {"w": (rng.normal(size=(5, 2)) / 5).astype(np.float32)}
    brief = lz.train.TrainConfig(steps=6, batch_size=8, checkpoint_every=0)
    study = lz.Study(
        (lambda params, x: jnp.tanh(x) @ params["w"], start),
        tasks[:2],
        Classify(metric="matthews"),
        control=tasks[2],
        store=tmp_path,
        recipes=dict.fromkeys(("nonlinear", "linear"), brief),
    )
    plan = lz.Plan(alphas=np.linspace(0, 1, 3), tolerance=Control(units=0.2))
    found = lz.compare(study, plan=plan)
    page = found.report().read_text()
    assert "Matthews correlation" in page
    single = found.results.single["linear"]
    for at, task in enumerate(study.names):
        tau = study.vectors(lz.METHODS["linear"])[task].delta["w"]
        examples = study.split(task, "test")
        logits = np.tanh(examples.inputs) @ (start["w"] + np.asarray(tau))
        expected = sklearn.metrics.matthews_corrcoef(examples.labels, logits.argmax(1))
        assert np.ravel(single)[at] == pytest.approx(expected, abs=1e-6)
