"""Negation of language models: α, perplexity and shares as their definitions say."""

import dataclasses
import json
import re
import sys
import types
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import linearize as lz
from configs.toxicity import PRESETS
from experiments import report
from experiments.stand_ins import reviews
from experiments.toxicity import material, page, run, sources
from experiments.toxicity.claims import CLAIMS
from experiments.toxicity.config import FITTED, DecodingConfig, TextsConfig, ToxicityConfig
from experiments.toxicity.material import CONTROL, TARGET
from experiments.toxicity.results import MOST, Results
from linearize import io, scorers
from linearize.config import ConfigError
from linearize.methods import METHODS
from linearize.models.language import generate
from linearize.objectives import CausalLM
from linearize.report import node, schema
from linearize.study import Study
from linearize.task_vector import TaskVector

close = np.testing.assert_allclose
DEBUG = PRESETS["debug"]()


def dull(texts):
    """A scorer of one's own: the share of words that only bad reviews have."""
    bad = {"broken", "loose", "bad", "awful"}
    return [np.mean([w in bad for w in t.split()] or [0]) for t in texts]


BEGIN = 63


class BegunWords(reviews.Words):
    """Before every text stands a token, as before those of Llama and of Gemma."""

    def ids(self, texts, *, framed=False):
        return [[BEGIN, *row] if framed else row for row in super().ids(texts)]

    def encode(self, text):
        return self.ids([text], framed=True)[0]


@pytest.fixture(scope="module")
def finished(debug_run):
    return debug_run("toxicity")


@pytest.mark.slow
def test_methods_beside_the_regimes_are_told_apart_in_the_figure(finished):
    known = schema.read(Results, node.read(finished))
    curve, along = known.curves["linear"], known.along["linear"]
    more = {"tak": "TAK, negated", "mine": "Mine, negated"}
    both = dataclasses.replace(
        known,
        regimes=("linear", *more),
        curves=dict.fromkeys(("linear", *more), curve),
        along=dict.fromkeys(("linear", *more), along),
        labels={**known.labels, **more},
    )
    (legend,) = page.along(both).draw(False).legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "Linear, negated",
        *more.values(),
    ]
    assert len({line.get_color() for line in legend.legend_handles}) == 3


@pytest.fixture(scope="module")
def results(finished):
    return json.loads((finished / "results.json").read_text())


@pytest.fixture(scope="module")
def given():
    return material.load(DEBUG)


def perplexity(f, params, examples):
    """Exponential of the mean of −log p over what is asked for, in float64."""
    logits = np.asarray(f(params, examples.inputs), np.float64)
    logits -= logits.max(-1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    labels = examples.targets["labels"]
    rows, places = np.nonzero(labels >= 0)
    return np.exp(-log_p[rows, places, labels[rows, places]].mean())


def vector(finished, place, seed=0):
    return TaskVector.load(finished / f"seed_{seed}" / place / "task_vector.safetensors")


@pytest.mark.slow
def test_writes_everything_but_texts(finished, results):
    assert {p.stem for p in (finished / "figures").glob("*.png")} == {"along_alpha"}
    names = {p.stem for p in (finished / "tables").glob("*.md")}
    assert names == {"claims", "generations", "scorers"}
    assert len(results["claims"]) == len(CLAIMS)
    for row in results["edits"].values():
        assert row["texts"] == [[], []]
    assert "Generated text" not in (finished / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("regime", DEBUG.regimes)
def test_a_regime_is_negated_as_far_as_its_control_allows(finished, results, given, regime):
    """Perplexity from the definition, of f at θ0 − α τ or of its linearization there."""
    f, params0 = given.model.f, given.model.params
    tau = vector(finished, f"{'linear' if regime == 'linear' else 'nonlinear'}/{TARGET}")
    f = f if regime == "nonlinear" else lz.linearize(f, params0)

    def at(alpha, split):
        moved = tau.apply_to(params0, -alpha)
        return perplexity(f, moved, given.tasks[CONTROL].split(split))

    along = [at(alpha, "validation") for alpha in DEBUG.alphas]
    close(results["curves"][regime]["perplexity"][0], along, rtol=1e-5)
    allowed = [
        a for a, p in zip(DEBUG.alphas, along, strict=True) if p <= along[0] + DEBUG.tolerance
    ]
    found = results["edits"][regime]
    assert found["alpha"][0] == -max(allowed) < 0
    close(found["perplexity"][0], at(max(allowed), "test"), rtol=1e-5)
    close(found["rise"][0], at(max(allowed), "test") - at(0, "test"), atol=1e-3)


@pytest.mark.slow
def test_what_is_written_is_scored(finished, results, given):
    """Texts that ``generate`` gives at the same seed, by the same scorer."""
    tau, n = vector(finished, f"nonlinear/{TARGET}"), DEBUG.decoding.count
    found = generate(
        given.model,
        [given.prompts[i % len(given.prompts)].tolist() for i in range(n)],
        new=DEBUG.decoding.tokens,
        ends=0,
        tau=tau,
        alpha=1.0,
    )
    rows = [r[: c - e] for r, c, e in zip(found.tokens, found.lengths, found.finished, strict=True)]
    score = given.scores[FITTED](given.tokenizer.decode(rows))
    scored = results["edits"]["fine-tuned"]["scores"][FITTED]
    close(scored["share"][0], np.mean(score > DEBUG.threshold))
    close(scored["mean"][0], score.mean())
    assert scored["share"][0] > results["edits"]["pretrained"]["scores"][FITTED]["share"][0]


@pytest.mark.slow
def test_baselines_are_whole_vectors_of_their_own(finished, results, given):
    f, params0, test = given.model.f, given.model.params, given.tasks[CONTROL].test
    for row, place in {
        "pretrained": None,
        "fine-tuned": f"nonlinear/{TARGET}",
        "gradient_ascent": f"gradient_ascent/{TARGET}",
        "other text": "nonlinear/other",
    }.items():
        at = params0 if place is None else vector(finished, place).apply_to(params0)
        found = results["edits"][row]
        close(found["perplexity"][0], min(perplexity(f, at, test), MOST), rtol=1e-5)
        assert found["alpha"] == [0.0 if place is None else 1.0] * 2
    own = vector(finished, f"nonlinear/{TARGET}")
    alpha = results["edits"]["random"]["alpha"][0]
    at = lz.edit.random_like(own, 0).apply_to(params0, alpha)
    close(results["edits"]["random"]["perplexity"][0], perplexity(f, at, test), rtol=1e-5)


@pytest.mark.slow
def test_texts_are_shown_to_those_who_ask(results, tmp_path):
    values = json.loads(json.dumps(results))
    values["edits"]["linear"]["texts"] = [["the <lamp>"], ["a case"]]
    io.write_json(tmp_path / "results.json", values)
    page = report.read_page(tmp_path)
    (section,) = [s for s in page.sections if s.key == "texts"]
    assert len(section.parts) == 2
    assert "the &lt;lamp&gt;" in section.parts[0]


@pytest.mark.slow
def test_a_row_of_methods(given):
    """τJp, which keeps the control's text and the other text in mind."""
    name = "tau_jp_with_control"
    config = dataclasses.replace(DEBUG, regimes=(name,), training={name: DEBUG.linear})
    study = Study(
        given.model, given.tasks, CausalLM(), control=CONTROL, recipes=config.recipes, batch_size=8
    )
    meter = run.Meter(config, given, study)
    assert 0 < meter.vector(METHODS[name]).norm() < meter.vector(METHODS["linear"]).norm()


def test_shares_and_means_are_of_the_scorers_that_are_named():
    score = {"mine": lambda texts: scorers.scores(dull, texts, "mine")}
    given = SimpleNamespace(scores=score)
    meter = run.Meter(dataclasses.replace(DEBUG, threshold=0.4), given, None)
    found = meter.scored(["a broken lamp", "bad", "", "awful bad"])
    close(found["mine"]["mean"], (1 / 3 + 1 + 0 + 1) / 4)
    assert (set(found), found["mine"]["share"]) == ({"mine"}, 0.5)


def test_of_alphas_the_largest_that_is_allowed():
    meter = run.Meter(dataclasses.replace(DEBUG, tolerance=0.5, points_of_grid=5), None, None)
    assert meter.chosen(np.array([9.0, 9.2, 9.5, 9.6, 12.0])) == 0.5
    assert meter.chosen(np.array([9.0, 8.0, 11.0, 9.4, np.inf])) == 0.75
    assert meter.chosen(np.array([9.0, 10.0, 11.0, 12.0, np.nan])) == 0


def test_seeds_are_pooled_into_one_interval():
    mean, low, high = run.pooled(np.array([[0.7, 0.0], [0.9, 0.0]]), 5)
    close(mean, [0.8, 0])
    close(low, [0.490, 0], atol=1e-3)
    close(high, [0.943, 0.278], atol=1e-3)


def test_prompts_are_fixed_or_openings_or_a_column():
    given, words = sources.texts(DEBUG), reviews.Words()

    def prompts(**told):
        config = dataclasses.replace(DEBUG, decoding=DecodingConfig(**told))
        return material.prompts(config, words, given)

    (fixed,) = prompts(prompt="the lamp was")
    assert words.decode([fixed]) == ["the lamp was"]
    openings = words.decode(prompts(prompts="openings", opening=3))
    assert all(any(t.startswith(o) for t in given.target["test"].texts) for o in openings)
    assert {len(o.split()) for o in openings} == {3}
    with pytest.raises(ConfigError, match=r"decoding.opening=500: no test document"):
        prompts(prompts="openings", opening=500)
    column = dataclasses.replace(given, prompts=("the case was", "my lamp"))
    config = dataclasses.replace(
        DEBUG,
        decoding=DecodingConfig(prompts="column", longest=2),
        texts=dataclasses.replace(DEBUG.texts, prompts="toy_food"),
    )
    assert words.decode(material.prompts(config, words, column)) == ["case was", "my lamp"]
    begun, ids = BegunWords(), words.ids(["case was", "my lamp"])
    found = material.prompts(config, begun, column)
    assert [each.tolist() for each in found] == [[BEGIN, *own] for own in ids]
    first = begun.encode(given.target["test"].texts[0])[:4]
    shortest = dataclasses.replace(DEBUG, decoding=DecodingConfig(prompts="openings", opening=3))
    np.testing.assert_array_equal(material.prompts(shortest, begun, given)[0], first)
    fixed = dataclasses.replace(DEBUG, decoding=DecodingConfig(prompt="the lamp was"))
    (only,) = material.prompts(fixed, begun, given)
    np.testing.assert_array_equal(only, begun.encode("the lamp was"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": 65}, "length=65: toy_decoder reaches 64 tokens; lower it"),
        (
            {"control": dataclasses.replace(DEBUG.control, context=128)},
            r"control.context=128: toy_decoder reaches 64",
        ),
        (
            {"decoding": dataclasses.replace(DEBUG.decoding, tokens=62)},
            r"decoding.tokens=62: .* 64 tokens and the longest prompt has 3; lower it",
        ),
        ({"scorers": (f"{__name__}:vector",)}, "scorers: .*test_toxicity:vector gave no numbers"),
        ({"scorers": ("coments",)}, "scorers: .*did you mean 'comments'"),
    ],
)
def test_what_a_run_would_end_with_is_refused_before_it_begins(change, message):
    with pytest.raises(ConfigError, match=message):
        material.load(dataclasses.replace(DEBUG, **change))


def test_no_document_serves_two_purposes():
    """τ, the fitted scorer, and prompts each have a split of their own."""
    given = sources.texts(DEBUG)
    for kind in (given.target, given.other):
        sets = [set(kind[split].texts) for split in ("train", "validation", "test")]
        assert all(sets)
    assert set(given.target["train"].texts).isdisjoint(given.other["train"].texts)


def test_a_scorer_may_choose_the_text():
    name = f"{__name__}:dull"
    told = TextsConfig(
        kinds="toy_shop", positive=(), selector=name, above=0.19, below=0.01, control="toy_film"
    )
    found = sources.texts(dataclasses.replace(DEBUG, texts=told))
    assert min(dull(found.target["train"].texts)) > 0.19
    assert max(dull(found.other["train"].texts)) < 0.01
    assert name in found.chosen_by
    with pytest.raises(ConfigError, match="the scorer that chose the text is to measure nothing"):
        dataclasses.replace(DEBUG, texts=told, scorers=(name,))


def test_the_folder_that_the_docs_make_of_wikitext_is_read(tmp_path, monkeypatch):
    """Their commands, run with what stands for ``datasets``: the preset reads what they write."""
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text("utf-8")
    commands = re.search(r"<<'END'\n(.*?)\nEND\n", page, re.DOTALL)[1]
    rows = {
        split: [f" = {split} = \n", "", " It was so – once . \n"]
        for split in ("train", "validation", "test")
    }
    hub = types.ModuleType("datasets")
    hub.load_dataset = lambda repository, name, split: {"text": rows[split]}
    monkeypatch.setitem(sys.modules, "datasets", hub)
    monkeypatch.chdir(tmp_path)
    exec(commands, {})
    found = sources.controls(PRESETS["gpt2_large"]().texts)
    assert {split: each.texts for split, each in found.items()} == {
        split: ("\n\n".join(lines),) for split, lines in rows.items()
    }


def test_texts_of_ones_own(tmp_path):
    things = ("lamp", "boat", "river", "cloud", "garden", "violin", "winter", "copper", "meadow")
    rows = [(f"{a} is a {w} {a}", w) for a in things for w in ("mean", "kind")]
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    (tmp_path / "plain").mkdir()
    for thing in things[:6]:
        (tmp_path / "plain" / f"{thing}.txt").write_text(f"Of the {thing}: {thing}s are rare.")
    told = TextsConfig(
        kinds=str(tmp_path / "mine.jsonl"), positive=("mean",), control=str(tmp_path / "plain")
    )
    found = sources.texts(dataclasses.replace(DEBUG, texts=told))
    assert all("mean" in t for split in found.target.values() for t in split.texts)
    assert sum(len(split) for split in found.control.values()) == 6
    wrong = dataclasses.replace(DEBUG, texts=dataclasses.replace(told, positive=("meen",)))
    with pytest.raises(ConfigError, match=r"texts.positive=\('meen',\).*'kind', 'mean'"):
        sources.texts(wrong)
    nowhere = dataclasses.replace(DEBUG, texts=dataclasses.replace(told, control="austin"))
    with pytest.raises(ConfigError, match=r"'austin' is neither a file .*; did you mean 'austen'"):
        sources.texts(nowhere)
    for name in ("valid", "test", "latest_train"):
        (tmp_path / "plain" / f"{name}.txt").write_text("Of many things.")
    with pytest.raises(ConfigError, match=r"latest_train\.txt is named for train and test; rename"):
        sources.texts(dataclasses.replace(DEBUG, texts=told))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"regimes": ("nonlinaer",)}, "regimes='nonlinaer'.*did you mean 'nonlinear'"),
        ({"regimes": ("gradient_ascent",)}, "regimes='gradient_ascent'"),
        ({"scorers": ()}, "scorers=.*name 1 or more"),
        ({"threshold": 1.5}, "threshold=1.5"),
        ({"texts": TextsConfig(prompts="toxic_prompts")}, "goes with decoding.prompts='column'"),
        ({"training": {"linaer": DEBUG.linear}}, "training='linaer'"),
        ({"seeds": (0, 0)}, "name each once"),
    ],
)
def test_a_configuration_that_cannot_be_run_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(DEBUG, **change)


def test_parts_of_a_configuration_are_refused_where_they_are_made():
    with pytest.raises(ConfigError, match=r"texts.positive=\(\): name classes, or a selector"):
        TextsConfig(positive=())
    with pytest.raises(ConfigError, match=r"decoding.prompt=' '"):
        DecodingConfig(prompt=" ")
    with pytest.raises(ConfigError, match=r"control.stride=64: at most control.context=32"):
        dataclasses.replace(DEBUG.control, stride=64)
    assert isinstance(DEBUG, ToxicityConfig)
