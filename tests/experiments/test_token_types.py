"""Token types of pairs: all tasks of a study have them, or none; only of models that know them."""

import json
from dataclasses import replace

import numpy as np
import pytest

from configs import nli, sentiment
from experiments.kernel_behavior import few_shot
from experiments.nli import material
from experiments.sentiment import material as sentiment_material
from experiments.stand_ins import reviews
from linearize.data.text import Documents, TextTask
from linearize.models.language import load_language, load_tokens

pytest.importorskip("tokenizers")


@pytest.fixture
def tokenizer(tmp_path):
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (tmp_path / "vocab.txt").write_text("\n".join([*special, *reviews.Words().words]) + "\n")
    return load_tokens(tmp_path)


def paired(name):
    whole = reviews.task("toy_film", reviews.Limits(8, 4, 4))
    parts = [
        Documents(p.texts, p.labels, p.classes, pairs=p.texts[::-1])
        for p in (whole.train, whole.validation, whole.test)
    ]
    return TextTask(name, *parts)


@pytest.mark.parametrize(
    ("types", "tasks", "inputs"),
    [(2, ("rte", "toy_food"), 3), (2, ("toy_food",), 2), (1, ("rte",), 2), (0, ("rte",), 2)],
)
def test_of_tasks(types, tasks, inputs, tokenizer):
    """With as many types as BERT, RoBERTa and MPNet have."""
    config = nli.PRESETS["debug"]()
    config = replace(config, model=replace(config.model, read="features"), length=40)
    single = reviews.task("toy_food", reviews.Limits(8, 4, 4))
    given = {name: single if name == "toy_food" else paired(name) for name in tasks}
    there = load_language("toy_bert", pretrained=False, blocks=1)
    told = {**there.about["architecture"], "types": types}
    there = replace(there, about={**there.about, "architecture": told})
    for name, task in material.build(config, there, tokenizer, given).tasks.items():
        tokens, mask, *found = task.train.inputs
        assert len(found) == inputs - 2
        if found and name == "toy_food":
            assert not np.any(found[0])
        elif found:
            ends = tokens == 3
            assert (ends.sum(1) == 2).all()
            behind = (np.cumsum(ends, 1) - ends == 1) & mask
            np.testing.assert_array_equal(found[0], behind)


def test_of_shots(tokenizer):
    model = load_language("toy_bert", pretrained=False, blocks=1)
    own = few_shot.Reader(model, tokenizer, "")
    assert len(few_shot._texts(own, paired("rte").train, 40).inputs) == 3
    single = reviews.task("toy_food", reviews.Limits(8, 4, 4)).train
    assert len(few_shot._texts(own, single, 40).inputs) == 2


@pytest.mark.parametrize("normalized", [True, False])
def test_features_are_pooled_as_the_files_beside_the_weights_say(tokenizer, tmp_path, normalized):
    """Here by the first token, of which the mean knows nothing."""
    config = nli.PRESETS["debug"]()
    config = replace(config, model=replace(config.model, read="features"), length=40)
    made = load_language("toy_bert", pretrained=False, blocks=1)
    where = tmp_path / "mine.safetensors"
    kinds = ("Transformer", "Pooling", "Normalize")[: 2 + normalized]
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": kind} for kind in kinds]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "Pooling").mkdir()
    (tmp_path / "Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    there = replace(made, about={**made.about, "weights": where})
    given = {"toy_food": reviews.task("toy_food", reviews.Limits(8, 4, 4))}
    built = material.build(config, there, tokenizer, given)
    tokens, mask = (x[:3] for x in built.tasks["toy_food"].train.inputs)
    found = built.model.f(made.params, tokens, mask)
    expected = made.hidden(made.params, tokens, mask)[:, 0]
    if normalized:
        expected = expected / np.linalg.norm(expected, axis=-1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


class Closing(reviews.Words):
    """With an end behind each text, as some tokenizers of decoders are told to set."""

    def ids(self, texts, *, framed=False):
        return [[*row, 0] if framed else row for row in super().ids(texts)]

    def encode(self, text):
        return self.ids([text], framed=True)[0]


@pytest.mark.parametrize("experiment", [nli, sentiment])
def test_a_decoder_is_asked_after_its_prompt(experiment):
    """And not behind the token that ends it, where it would begin another text."""
    config, model = experiment.PRESETS["debug"](), load_language("toy_decoder", pretrained=False)
    given = {"toy_food": reviews.task("toy_food", reviews.Limits(8, 4, 4))}
    built = {nli: material, sentiment: sentiment_material}[experiment].build
    built = built(config, model, Closing(), given)
    tasks = built.tasks if experiment is nli else built.sentiment.tasks
    tokens, last = tasks["toy_food"].train.inputs
    asked = reviews.Words().words.index("Sentiment:")
    assert np.asarray(tokens)[np.arange(len(last)), last].tolist() == [asked] * len(last)
