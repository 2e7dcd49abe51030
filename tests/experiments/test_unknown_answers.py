"""Answers that a model's vocabulary lacks are refused by every experiment that asks for words."""

from dataclasses import replace

import pytest

from configs import nli, sentiment
from experiments.nli import material as of_tasks
from experiments.sentiment import material as of_domains
from experiments.stand_ins import reviews
from linearize.config import ConfigError
from linearize.data import DataError
from linearize.models.language import load_language, load_tokens

tokenizers = pytest.importorskip("tokenizers")
SIZES = reviews.Limits(8, 4, 4)


@pytest.fixture
def speaking(tmp_path):
    """A small T5 of random weights, whose words are all that reviews have but one."""
    lacked = "positive"
    words = ["<pad>", "</s>", "<unk>", *(w for w in reviews.Words().words if w != lacked)]
    made = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>")
    )
    made.add_special_tokens(words[:3])
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    made.save(str(tmp_path / "tokenizer.json"))
    return load_language("toy_t5", pretrained=False), load_tokens(tmp_path)


def test_of_tasks(speaking):
    config = nli.PRESETS["debug"]()
    config = replace(config, model=replace(config.model, name="toy_t5", read="answers"))
    given = {name: reviews.task(name, SIZES) for name in config.tasks}
    with pytest.raises(DataError, match="'positive', is unknown to the vocabulary"):
        of_tasks.build(config, *speaking, given)


def test_of_domains(speaking):
    config = sentiment.PRESETS["debug"]()
    given = {name: reviews.task(name, SIZES) for name in config.domains}
    with pytest.raises(ConfigError, match="'positive', is unknown to the vocabulary"):
        of_domains.build(config, *speaking, given)
