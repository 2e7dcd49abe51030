"""What a run is given: domains' documents, and one model read in two ways."""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import count, takewhile
from typing import Any, NamedTuple

import numpy as np

from experiments.sentiment.config import PAPERS, AskedConfig, SentimentConfig
from experiments.speaker import check_length, speaker
from experiments.stand_ins import reviews, t5
from linearize.config import ConfigError
from linearize.config.files import said_as_configuration
from linearize.data import Limits, Task, text
from linearize.data.text import Documents, spans
from linearize.data.text.prompts import frame
from linearize.data.text.task import TextTask
from linearize.data.text.tokens import Wrap
from linearize.examples import Examples
from linearize.models import Model
from linearize.models.language import (
    LANGUAGE,
    LanguageModel,
    label_words,
    word_tokens,
)
from linearize.objectives import CausalLM, Classify, Objective, Seq2Seq
from linearize.study import computed_once

Make = Callable[[Documents], Examples]


class Reading(NamedTuple):
    """A way to read a language model, on every domain; its parameters are the model's own."""

    model: Model
    objective: Objective
    tasks: Mapping[str, Task]
    language: bool
    """Whether it models the text, without labels."""


class Material(NamedTuple):
    """What all seeds share."""

    name: str
    sentiment: Reading
    language: Reading


def load(config: SentimentConfig) -> Material:
    """The configuration's.

    Raises:
        ConfigError: a domain or a model that is not there, or a class without a word.
    """
    rehearse(config)
    model, tokenizer = speaker(config.model)
    return build(config, model, tokenizer, {name: domain(config, name) for name in config.domains})


def build(
    config: SentimentConfig, model: LanguageModel, tokenizer: Any, domains: Mapping[str, TextTask]
) -> Material:
    """The same of a model and domains that are at hand.

    Raises:
        ConfigError: texts longer than the model's context, or a class without a word.
    """
    check_length(model, config.length)
    for name, documents in domains.items():
        if len(documents.classes) != len(config.model.words):
            raise ConfigError(
                f"model.words={config.model.words}: {name} has the classes {documents.classes}; "
                "give a word for each"
            )
    kind = READINGS.get(LANGUAGE[model.name].inputs if model.name in LANGUAGE else "tokens")
    if kind is None:
        raise ConfigError(f"model.name={model.name!r} cannot say what comes next; take a decoder")

    def reading(ways: tuple[Model, Objective, Make], language: bool) -> Reading:
        used, objective, make = ways
        with said_as_configuration("domains"):
            tasks = {name: each.examples(make) for name, each in domains.items()}
        used, once = computed_once(used, tasks, config.trainable, batch_size=config.batch_size)
        return Reading(used, objective, once, language)

    felt, read = kind(config, model, tokenizer)
    return Material(model.name, reading(felt, False), reading(read, True))


def domain(config: SentimentConfig, name: str) -> TextTask:
    """A domain's documents, in three splits."""
    limit = Limits(config.train, config.validation, config.test)
    if name in reviews.DOMAINS:
        return reviews.task(name, limit, config.data_seed)
    with said_as_configuration("domains"):
        source = PAPERS.get(name, name)
        return text.load_text(source, limit=limit, seed=config.data_seed, data_dir=config.data_dir)


def rehearse(config: SentimentConfig) -> None:
    """Make the stand-ins that a configuration reads, unless they are there; nothing of any other.

    Raises:
        WeightsError: transformers, which writes the model, is not installed.
    """
    sentinels = [f"<extra_id_{i}>" for i in range(20)]
    asked = [*config.model.prompt.split(), *config.model.words, *sentinels]
    t5.rehearse(config.model.weights, config.data_dir, config.reads, asked)


def _decoder(
    config: SentimentConfig, model: LanguageModel, tokenizer: Any
) -> tuple[tuple[Model, Objective, Make], ...]:
    """Label words after the prompt; and the likelihood of texts, one after the other."""
    told, end, (_, behind) = config.model, tokenizer.special.get("eos"), frame(tokenizer)
    encoded = partial(text.encoded, tokenizer=tokenizer, vocabulary=model.vocabulary)

    def asked(documents: Documents) -> Examples:
        rows, kept = encoded(documents, length=config.length, too_long="cut", wrap=_prompt(told))
        last = np.array([len(row) - len(behind) - 1 for row in rows], np.int32)
        tokens = text.padded(rows, config.length, end or 0)
        return Examples((tokens, last), {"labels": documents.labels[kept]})

    def packed(documents: Documents) -> Examples:
        rows = text.packed(encoded(documents)[0], config.length, end=end)
        return rows.take(slice(len(documents)))

    with said_as_configuration("model.words"):
        words = word_tokens(tokenizer, told.words)
    return (label_words(model, words), Classify(), asked), (model, CausalLM(), packed)


def _encoder_decoder(
    config: SentimentConfig, model: LanguageModel, tokenizer: Any
) -> tuple[tuple[Model, Objective, Make], ...]:
    """Answers in words; and spans of the text that were taken out of it, as T5 was trained."""
    told = config.model
    start = model.about["config"].get("decoder_start_token_id", 0)
    same = {"pad": tokenizer.special.get("pad", 0), "start": start}

    def asked(documents: Documents) -> Examples:
        return text.answers(
            documents,
            tokenizer,
            config.length,
            [told.words[label] for label in documents.labels],
            too_long="cut",
            wrap=_prompt(told),
            vocabulary=model.vocabulary,
            **same,
        )

    numbers = (tokenizer.backend.token_to_id(f"<extra_id_{i}>") for i in count())
    sentinels = list(takewhile(lambda number: number is not None, numbers))

    def corrupted(documents: Documents) -> Examples:
        rows = tokenizer.ids(documents.texts)
        return spans.corrupted(rows, config.length, sentinels, end=tokenizer.eos, **same)

    answers, _ = text.encoded(Documents(told.words), tokenizer)
    says = Seq2Seq(answers=tuple(tuple(row.tolist()) for row in answers), metric="accuracy")
    return (model, says, asked), (model, CausalLM(), corrupted)


def _prompt(told: AskedConfig) -> Wrap:
    return lambda words, _: told.prompt.replace("{text}", words.strip())


READINGS: Mapping[str, Callable[..., tuple[tuple[Model, Objective, Make], ...]]] = {
    "tokens": _decoder,
    "tokens mask answer": _encoder_decoder,
}
"""By what a model takes: sentiment and language modelling, each a model, an objective, and what
makes examples of documents."""
