"""Addition of language tasks: the smallest preset against direct computation, and a rehearsal."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import sklearn.metrics

import linearize as lz
from configs.nli import PRESETS
from experiments.nli.material import load, sick, wrapped
from experiments.nli.run import study
from experiments.nli.wordings import Wording
from experiments.stand_ins import texts
from linearize import edit
from linearize.config import ConfigError
from linearize.data import Limits
from linearize.methods import METHODS
from linearize.study import Store

pytestmark = pytest.mark.slow

DEBUG = PRESETS["debug"]()


def test_a_text_that_names_a_place_of_the_template_stays_as_it_is():
    wrap = wrapped(Wording("mine", "{text} / {pair} / {label}"))
    assert wrap(" the {pair} of {text} ", "{text}") == "the {pair} of {text} / {text} / {label}"


@pytest.fixture(scope="module")
def found(debug_run):
    place = debug_run("nli")
    material = load(DEBUG)
    there = study(DEBUG, material, 0, Store.of(place).under("seed_0"))
    return json.loads((place / "results.json").read_text()), there


def correlation(there, f, params, task):
    """Matthews correlation of the class whose word is the likelier, beside scikit-learn."""
    examples = there.split(task, "test")
    logits = np.asarray(jax.jit(f)(params, *examples.inputs))
    return sklearn.metrics.matthews_corrcoef(examples.labels, logits.argmax(1))


@pytest.mark.parametrize("regime", ["nonlinear", "linear"])
def test_sums_and_donors_are_those_of_the_vectors(found, regime):
    results, there = found
    model, row = there.model, results[regime]
    f = model.f if regime == "nonlinear" else lz.linearize(model.f, model.params)
    taus = there.vectors(METHODS[regime])
    subsets = results["subsets"][regime]
    for m in (3, len(subsets) - 1):
        total = edit.add([taus[there.names[t]] for t in subsets[m]])
        for name, scale in (("own", row["alpha"][0][m]), ("own_at_one", 1.0)):
            params = total.apply_to(model.params, scale=scale)
            expected = [correlation(there, f, params, there.names[t]) for t in subsets[m]]
            assert row[name][0][m] == pytest.approx(np.mean(expected), abs=1e-5)
            if len(expected) == len(there.names):
                whole = row[name.replace("own", "whole")][0]
                np.testing.assert_allclose(whole, expected, atol=1e-5)
    target, *others = there.names
    donors = row["donors"][target]
    chosen = int(donors["chosen"][0])
    alone = expected = taus[target].apply_to(model.params)
    if chosen >= 0:
        assert list(donors["best"]) == others
        both = taus[target] + donors["alpha"][0] * taus[others[chosen]]
        expected = both.apply_to(model.params)
    assert donors["value"][0] == pytest.approx(correlation(there, f, expected, target), abs=1e-5)
    assert row["single"][0][0] == pytest.approx(correlation(there, f, alone, target), abs=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": ("toy_food", "toy_filn")}, "tasks='toy_filn' is not one of"),
        ({"tasks": ("toy_food",)}, "name 2 or more"),
        ({"epochs": {"rte": 3.0}}, "epochs='rte': not one of tasks"),
        ({"donors": {"toy_food": "here"}}, "tasks have these names"),
        ({"coarse": 1}, "coarse=1"),
        (
            {
                "model": dataclasses.replace(DEBUG.model, read="classifier"),
                "donors": {"other": "there"},
            },
            "lack the head",
        ),
    ],
)
def test_a_configuration_that_cannot_be_run_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(DEBUG, **change)


@pytest.mark.parametrize(
    ("read", "name"),
    [("features", "toy_t5"), ("words", "toy_t5"), ("answers", "toy_decoder")],
)
def test_a_way_to_read_that_a_model_has_not_is_refused(read, name):
    model = dataclasses.replace(DEBUG.model, name=name, read=read)
    with pytest.raises(ConfigError, match=f"read='{read}': {name} is no"):
        load(dataclasses.replace(DEBUG, model=model))


def test_words_of_all_tasks_are_one_head_of_which_each_sees_its_own():
    found = load(DEBUG)
    task = found.tasks["toy_film"].test.take(slice(4))
    outputs = found.model.f(found.model.params, *task.inputs)
    assert outputs.shape == (4, 2)
    assert found.objectives["toy_film"].logits(outputs).shape == (4, 2)
    assert found.objectives["toy_film"].primary.name == "Matthews correlation"


def test_other_weights_are_donors(tmp_path):
    """A folder of the same model: what it moved by is one more vector."""
    model = dataclasses.replace(DEBUG.model, blocks=None)
    config = dataclasses.replace(DEBUG, model=model, tasks=("toy_food", "toy_film"))
    base = load(config).model
    moved = jax.tree.map(lambda x: x + 0.5, base.params)
    lz.io.save_tree(tmp_path / "other.safetensors", moved)
    found = load(dataclasses.replace(config, donors={"other": str(tmp_path / "other.safetensors")}))
    for leaf in found.donors["other"].delta.values():
        np.testing.assert_allclose(leaf, 0.5, atol=1e-6)


def test_stand_ins_are_of_what_tfds_knows_and_of_sick(tmp_path):
    """SICK's own splits and class names; a domain that is made up is passed over."""
    texts.make(tmp_path, ("toy_food", "sick"), count=30)
    task = sick(dataclasses.replace(DEBUG, data_dir=str(tmp_path)), Limits(None, None, None))
    assert task.classes == ("ENTAILMENT", "NEUTRAL", "CONTRADICTION")
    assert task.counts == {"train": 30, "validation": 10, "test": 10}
    assert task.train.pairs is not None
