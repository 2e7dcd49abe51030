"""Sentiment by analogy on its smallest presets, against direct computation."""

import dataclasses

import jax
import numpy as np
import pytest

import linearize as lz
from configs.sentiment import PRESETS
from experiments import prepare_data
from experiments.claims import judge
from experiments.on_target import OF_TWO
from experiments.sentiment import material
from experiments.sentiment.claims import CLAIMS
from experiments.sentiment.results import Results
from experiments.speaker import speaker
from experiments.stand_ins import reviews
from linearize import tree
from linearize.config import ConfigError, MapConfig
from linearize.data.text import Documents
from linearize.data.text.task import TextTask
from linearize.report import schema
from linearize.task_vector import TaskVector

pytestmark = pytest.mark.slow

close = np.testing.assert_allclose
DEBUG = PRESETS["debug"]()
AUXILIARY, TARGET = DEBUG.analogies[1]


@pytest.fixture(scope="module")
def given():
    return material.load(DEBUG)


def load(run_dir, reading, regime, domain):
    regime = "nonlinear" if regime == "posthoc" else regime
    folder = run_dir / "seed_0" / reading / regime / domain
    return TaskVector.load(folder / "task_vector.safetensors")


def of(model, regime):
    return jax.jit(model.f if regime == "nonlinear" else lz.linearize(model.f, model.params))


@pytest.mark.parametrize("regime", DEBUG.regimes)
def test_an_analogy_adds_what_text_of_the_target_does(finished, results, given, regime):
    felt = {d: load(finished, "sentiment", regime, d) for d in (AUXILIARY, TARGET)}
    read = {d: load(finished, "language", regime, d) for d in (AUXILIARY, TARGET)}
    moved = read[TARGET] - read[AUXILIARY]
    model, task = given.sentiment.model, given.sentiment.tasks[TARGET]
    f = of(model, regime)

    def accuracy(tau, split="test"):
        examples = task.split(split)
        logits = f(tau.apply_to(model.params), *examples.inputs)
        return (np.asarray(logits).argmax(-1) == examples.labels).mean()

    (row,) = [a for a in results["analogies"] if a["target"] == TARGET]
    assert row["auxiliary"] == AUXILIARY
    found = row["regimes"][regime]
    close(found["pretrained"]["accuracy"][0], accuracy(0.0 * moved), atol=1e-6)
    close(found["target"]["accuracy"][0], accuracy(felt[TARGET]), atol=1e-6)
    close(found["analogy"]["at one"][0], accuracy(felt[AUXILIARY] + moved), atol=1e-6)
    close(found[OF_TWO]["at one"][0], accuracy(felt[AUXILIARY] + moved), atol=1e-6)
    axis = np.linspace(0, 1, 3 if regime == "nonlinear" else 5)
    alone = {s: accuracy(s * felt[AUXILIARY], "validation") for s in axis}
    alpha = found["auxiliary"]["alpha"][0]
    assert alone[alpha] == max(alone.values())
    close(found["auxiliary"]["accuracy"][0], accuracy(alpha * felt[AUXILIARY]), atol=1e-6)
    both = {
        (s, t): accuracy(s * felt[AUXILIARY] + t * moved, "validation")
        for s in axis for t in axis
    }  # fmt: skip
    alpha, beta = (found[OF_TWO][name][0] for name in ("alpha", "beta"))
    assert both[alpha, beta] == max(both.values())
    close(found[OF_TWO]["accuracy"][0], accuracy(alpha * felt[AUXILIARY] + beta * moved), atol=1e-6)


def test_language_modelling_is_of_the_same_parameters_and_lowers_perplexity(
    finished, results, given
):
    assert given.language.model.params is given.sentiment.model.params
    model, task = given.language.model, given.language.tasks[TARGET]
    tau, f = load(finished, "language", "nonlinear", TARGET), jax.jit(model.f)
    found = results["perplexity"]["nonlinear"][TARGET]
    for name, scale in (("before", 0.0), ("after", 1.0)):
        logits = np.asarray(f(tau.apply_to(model.params, scale=scale), task.test.inputs))
        labels = np.asarray(task.test.labels)
        chosen = np.take_along_axis(logits, np.maximum(labels, 0)[..., None], -1)[..., 0]
        nats = np.log(np.exp(np.float64(logits)).sum(-1)) - chosen
        close(found[name][0], np.exp(nats[labels >= 0].mean()), rtol=1e-4)
    assert found["after"][0] < 0.7 * found["before"][0]


@pytest.mark.parametrize("regime", DEBUG.regimes)
def test_error_maps_are_of_language_modelling(finished, results, given, regime):
    """At one point, by token and by distribution, over all tokens that are asked for."""
    pair = DEBUG.map.pairs[0]
    taus = [load(finished, "language", regime, domain) for domain in pair]
    model, f = given.language.model, of(given.language.model, regime)
    i, j = 2, 0
    point = [DEBUG.map.alphas[i], DEBUG.map.alphas[j]]
    expected = {"next token": [], "total variation": []}
    for t, domain in enumerate(pair):
        test = given.language.tasks[domain].test
        both, alone = (
            np.float64(f(sum((a * tau for a, tau in zip(at, taus, strict=True)),
                             start=0.0 * taus[0]).apply_to(model.params), test.inputs))
            for at in (point, [a * (k == t) for k, a in enumerate(point)])
        )  # fmt: skip
        asked = np.asarray(test.labels) >= 0
        p, q = (np.exp(z) / np.exp(z).sum(-1, keepdims=True) for z in (both, alone))
        changed = both.argmax(-1) != alone.argmax(-1)
        expected["next token"].append(changed[asked].mean())
        expected["total variation"].append(0.5 * np.abs(p - q).sum(-1)[asked].mean())
    for found in results["maps"]:
        value = np.array(found["per_task"][regime])[0, :, i, j]
        close(value, expected.pop(found["distance"]), rtol=1e-3, atol=2e-3)
    assert not expected


def test_what_is_asked_and_what_is_read(given):
    """A prompt's last token is the prompt's; text is asked for without prompt or labels."""
    words = reviews.Words()
    domain = reviews.task(TARGET, seed=DEBUG.data_seed)
    (tokens, last), labels = given.sentiment.tasks[TARGET].test.inputs, domain.test.labels
    row = [words.token(i) for i in tokens[3][: last[3] + 1]]
    assert row == [*domain.test.texts[3].split(), "Sentiment:"]
    np.testing.assert_array_equal(given.sentiment.tasks[TARGET].test.labels, labels[:60])
    stream = np.concatenate([[*words.encode(text), 0] for text in domain.test.texts[:60]])
    packed = given.language.tasks[TARGET].test
    asked = np.asarray(packed.labels)
    np.testing.assert_array_equal(asked[asked >= 0], stream[1:])
    every = {m for a in (given.sentiment, given.language) for m in tree.names(a.model.params)}
    assert every == set(tree.names(given.sentiment.model.params))


def test_claims_are_of_what_was_measured(results):
    found = schema.read(Results, results)
    assert len(judge(found, CLAIMS)) == 4 * len(DEBUG.regimes)
    fewer = dataclasses.replace(found, analogies=tuple(
        dataclasses.replace(a, regimes={"linear": a.regimes["linear"]}) for a in found.analogies
    ))  # fmt: skip
    assert len(judge(fewer, CLAIMS)) == 4


def test_every_domain_is_the_target_once(results):
    assert sorted(a["target"] for a in results["analogies"]) == sorted(DEBUG.domains)
    assert all(a["auxiliary"] != a["target"] for a in results["analogies"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"domains": ("toy_food",)}, "domains.*name 2 or more"),
        ({"domains": ("toy_food", "toy_food")}, "name each once"),
        ({"pairs": (("toy_food", "toy_foof"),)}, "^pairs='toy_foof': .*did you mean 'toy_food'"),
        ({"domains": ("toy_foof", "toy_film")}, "^domains='toy_foof': .*did you mean 'toy_food'"),
        ({"pairs": (("toy_food", "toy_food"),)}, "two different domains"),
        ({"map": MapConfig(pairs=(("toy_food", "toy_shop"),))}, "map.pairs='toy_shop'"),
        ({"regimes": ("linaer",)}, "did you mean 'linear'"),
        ({"seeds": ()}, "seeds"),
    ],
)
def test_a_configuration_that_cannot_be_run_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(DEBUG, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": "Sentiment:"}, r"write \{text\} once"),
        ({"words": ("good", "good")}, "a word of its own"),
    ],
)
def test_a_question_without_text_or_answers_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(DEBUG.model, **change)


def test_what_a_preset_reads_is_prepared_beforehand():
    for preset, names in (
        ("t5_small", ("amazon_us_reviews/", "yelp_polarity_reviews")),
        ("packaged", ("sentiment_amazon",)),
    ):
        (need,) = prepare_data.needs(prepare_data.Options((f"sentiment:{preset}",)))
        found = [target.name for target in need.targets]
        assert all(any(name in each for each in found) for name in names)


def test_what_does_not_fit_the_model_is_refused():
    domain = reviews.task("toy_food", seed=0)
    three = Documents(["the soup"], [2], ("bad", "so so", "good"))
    odd = TextTask("odd", three, three, three)
    model, tokenizer = speaker(DEBUG.model)
    with pytest.raises(ConfigError, match=r"odd has the classes \('bad', 'so so', 'good'\)"):
        material.build(DEBUG, model, tokenizer, {"toy_food": domain, "odd": odd})
    long = dataclasses.replace(DEBUG.model, words=("very bad", "good"))
    with pytest.raises(ConfigError, match=r"'very bad' is 2 tokens"):
        material.load(dataclasses.replace(DEBUG, model=long))
    misspelt = {"domains": ("toy_food", "sentiment_amazn"), "map": MapConfig()}
    with pytest.raises(ConfigError, match=r"sentiment_amazn.*sentiment_amazon"):
        material.load(dataclasses.replace(DEBUG, **misspelt))
