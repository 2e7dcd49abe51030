"""Kernels with prompts on their smallest preset: shapes, a solution by hand, what is refused."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from configs.kernel_behavior import PRESETS
from experiments import report
from experiments.kernel_behavior import few_shot, few_shot_page, few_shot_results
from experiments.kernel_behavior.run import run
from linearize import tree
from linearize.config import ConfigError
from linearize.models.language import LANGUAGE
from linearize.report import schema
from linearize.study import Store

pytestmark = pytest.mark.slow
DEBUG = PRESETS["prompts_debug"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """With a prompt alone, for the time that programs take to compile."""
    run_dir = tmp_path_factory.mktemp("prompts")
    run(dataclasses.replace(DEBUG(), plain=None), run_dir, "prompts_debug")
    return run_dir, json.loads((run_dir / "results.json").read_text())


def test_every_measure_has_its_shape_and_the_page_shows_it(finished):
    run_dir, results = finished
    assert set(results["few_shot"]) == {"prompted"}
    cell = results["few_shot"]["prompted"]["toy_food"]["4"]
    assert np.shape(cell["zero_shot"]) == (2,)
    assert set(cell["kernels"]) == {f"{rule} no_embeddings" for rule in SIGNS}
    assert set(cell["kernels"]["sgd no_embeddings"]) == {"least_squares", "logistic_rows"}
    for name in ("gap", "feature_change", "drift"):
        assert (np.asarray(cell["tuned"]["sgd"][name]) > 0).all()
    assert {p.stem for p in (run_dir / "tables").glob("*.md")} == {
        *(f"{table}_prompted_4" for table in ("accuracy", "behaviour", "chosen")),
        "claims",
    }
    assert (run_dir / "figures" / "methods.svg").exists()
    assert report.read_page(run_dir).headlines[0] == "accuracy_prompted_4"


def test_what_was_chosen_is_told_by_seed_and_not_rounded_away():
    half = [0.5, 0.5]
    solved = {"accuracy": half, "development": half, "share": [1e-3, 0.1], "f0_scale": [0, 1]}
    cell = {"zero_shot": half, "kernels": {"sgd": {"least_squares": solved}}, "tuned": {}}
    head = {"experiment": "kernel_behavior", "preset": "p", "seeds": [0, 1], "tasks": ["a"]}
    told = {"shots": [4], "readers": {"plain": "m"}, "few_shot": {"plain": {"a": {"4": cell}}}}
    found = few_shot_page.chosen(schema.read(few_shot_results.Results, head | told), "plain", 4)
    assert [cell.text for cell in found.rows[0][2:]] == ["0.001, 0.1", "0, 1"]


SIGNS = {
    "sgd": (np.asarray, np.asarray),
    "signgd": (np.sign, np.sign),
    "asymmetric_signgd": (np.asarray, np.sign),
}
"""What becomes of the gradients on the left and, of the training examples, on the right."""


def dense(study):
    """Jacobians (N C, P) and outputs (N, C) on both splits, by forward mode."""
    f, params = study.model.f, study.model.params
    names = [n for n in tree.names(params) if "embedding" not in n and not n.startswith("head/")]

    def jacobian(split):
        inputs = study.split("toy_food", split).inputs
        flat = {n: tree.flatten(params)[n] for n in names}
        rows = jax.jit(jax.jacfwd(lambda p: f(tree.update(params, p), *inputs)))(flat)
        rows = [np.asarray(r, np.float64).reshape(*r.shape[:2], -1) for r in rows.values()]
        return np.concatenate(rows, 2), np.asarray(f(params, *inputs), np.float64)

    (train, f0), (test, f0_test) = jacobian("train"), jacobian("test")
    train, test = (x.reshape(-1, x.shape[-1]) for x in (train, test))
    return train, f0, test, f0_test


def by_hand(study, of_study, found, rule="sgd"):
    """Test accuracy of least squares with what was chosen, on dense Jacobians."""
    train, f0, test, f0_test = of_study
    own, along = SIGNS[rule]
    kernel, s = own(train) @ along(train).T, found["f0_scale"]
    ridge = found["share"] * np.linalg.norm(kernel, 2) * np.eye(len(kernel))
    labels = np.asarray(study.split("toy_food", "train").labels)
    solved = np.linalg.solve(kernel + ridge, (np.eye(2)[labels] - s * f0).ravel())
    seen = s * f0_test + (own(test) @ (along(train).T @ solved)).reshape(f0_test.shape)
    right = seen.argmax(1) == np.asarray(study.split("toy_food", "test").labels)
    return right.mean()


def a_study(config, way):
    own, given = few_shot.reader(config.readers[way]), few_shot.documents(config, "toy_food")
    return few_shot.prepared(config, own, way, given, 4, 0, Store.of(None))


def test_a_solution_with_a_prompt_is_the_dense_jacobians(finished):
    study = a_study(DEBUG(), "prompted")
    jacobians, kernels = (
        dense(study),
        finished[1]["few_shot"]["prompted"]["toy_food"]["4"]["kernels"],
    )
    for rule in SIGNS:
        found = kernels[f"{rule} no_embeddings"]["least_squares"]
        found = {name: values[0] for name, values in found.items()}
        assert by_hand(study, jacobians, found, rule) == pytest.approx(found["accuracy"])


def test_a_solution_without_a_prompt_is_the_dense_jacobians():
    config = DEBUG()
    study = a_study(config, "plain")
    splits = {s: study.split("toy_food", s) for s in ("train", "validation", "test")}
    leaves = few_shot.pattern("plain", "", "no_embeddings")
    found = few_shot.solved(config, study, splits, "sgd", leaves)["least_squares"]
    assert by_hand(study, dense(study), found) == pytest.approx(found["accuracy"])


def test_variants_pick_leaves_of_the_model_alone():
    config = DEBUG()
    own = few_shot.reader(config.prompted)
    picked = {
        v: set(tree.select(own.model.params, few_shot.pattern("prompted", "", v)))
        for v in few_shot.WITHOUT
    }
    every = picked["all"]
    assert every == set(tree.names(own.model.params))
    assert {n.split("/")[0] for n in every - picked["no_embeddings"]} == {
        *("token_embedding", "position_embedding", "type_embedding", "embedding_norm")
    }
    assert {n.split("/")[0] for n in every - picked["no_head"]} == {
        *("head_transform", "head_norm", "head_bias")
    }
    assert picked["biases"] == {n for n in every if n.endswith("bias")}
    some = tree.select(own.model.params, few_shot.pattern("prompted", "^block_0/", "biases"))
    assert some
    assert all(n.startswith("block_0/") and n.endswith("bias") for n in some)


HEADS = {
    "gpt2": ({"n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 20, "n_positions": 8}, ()),
    "llama": (
        {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2},
        ("head/kernel",),
    ),
}
EMBEDDINGS = {
    "gpt2": {"token_embedding", "positions"},
    "llama": {"token_embedding"},
}


@pytest.mark.parametrize("name", HEADS)
def test_variants_of_decoders(name):
    """GPT-2's positions are embeddings, and a head of a decoder's own is a head."""
    told, heads = HEADS[name]
    module = LANGUAGE[name].module(**LANGUAGE[name].configure(told, "here"))
    params = module.init(jax.random.key(0), np.ones((1, 2), np.int32), method=_with_head)["params"]
    every = set(tree.names(params))
    kept = {
        v: set(tree.select(params, few_shot.pattern("prompted", "", v)))
        for v in ("no_embeddings", "no_head")
    }
    assert every - kept["no_embeddings"] == EMBEDDINGS[name]
    assert every - kept["no_head"] == set(heads)
    own = few_shot.Reader(SimpleNamespace(params=params, name=name), None, "")
    config = dataclasses.replace(DEBUG(), variants=("all", "no_head"))
    if heads:
        few_shot.check_variants(config, "prompted", own)
        return
    with pytest.raises(ConfigError, match=r"variants='no_head': it leaves out none .* of gpt2"):
        few_shot.check_variants(config, "prompted", own)
    biases = dataclasses.replace(DEBUG(), variants=("biases",))
    with pytest.raises(ConfigError, match=r"variants='biases': it leaves none .* of gpt2"):
        few_shot.check_variants(biases, "prompted", own._replace(trainable="^positions$"))


def _with_head(module, tokens):
    return module.logits(module(tokens))


def test_numbers_of_another_order_are_refused_before_a_model_is_read(tmp_path, monkeypatch):
    """Those of *rte*, whose 0 is published as entailment and is the prompt's *No*."""
    folder = tmp_path / "texts" / "rte"
    folder.mkdir(parents=True)
    for split, count in (("train", 24), ("test", 8)):
        rows = [f"{i % 2},{split} text {i} of it,pair {i * i} of {split}" for i in range(count)]
        (folder / f"{split}.csv").write_text("\n".join(["label,text,pair", *rows]) + "\n")
    config = dataclasses.replace(DEBUG(), tasks=("rte",), texts=str(tmp_path / "texts"))
    monkeypatch.setattr(few_shot, "reader", None)
    with pytest.raises(ConfigError, match=r"tasks: .*'not_entailment', 'entailment'.* is not told"):
        run(config, tmp_path / "run", "custom")


def test_a_configuration_that_asks_nothing_is_refused():
    for change, message in (
        ({"prompted": None, "plain": None}, "give a model"),
        ({"tasks": ("sst-2",)}, "there are"),
        ({"shots": ()}, "name 1 or more"),
        ({"kernels": ("sgd", "sgd")}, "name each once"),
    ):
        with pytest.raises(ConfigError, match=message):
            dataclasses.replace(DEBUG(), **change)
