"""Token types of pairs: all tasks of a study have them, or none; only of models that know them."""

from dataclasses import replace

import numpy as np
import pytest

from configs import nli
from experiments.kernel_behavior import few_shot
from experiments.nli import material
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
