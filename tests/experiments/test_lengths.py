"""Lengths beyond a model's context are refused before a text is read."""

from dataclasses import replace

import pytest

from configs import nli, sentiment
from experiments.nli import material as of_tasks
from experiments.sentiment import material as of_domains
from experiments.stand_ins import reviews
from linearize.config import ConfigError
from linearize.models.language import load_language


@pytest.mark.parametrize(
    ("preset", "build"), [(nli.PRESETS, of_tasks.build), (sentiment.PRESETS, of_domains.build)]
)
def test_beyond_the_context(preset, build):
    model = load_language("toy_decoder", pretrained=False, blocks=1)
    config = replace(preset["debug"](), length=model.context + 1)
    with pytest.raises(ConfigError, match=r"length=65: toy_decoder reaches 64 tokens; lower it"):
        build(config, model, reviews.Words(), {})
