"""What a run is given: tasks of text, one model that reads them, and what their numbers are."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.nli.config import NliConfig, ReadConfig
from experiments.nli.wordings import SHARED, WORDINGS, Wording
from experiments.speaker import as_encoder, check_length, speaker
from experiments.stand_ins import reviews, t5
from linearize.config import ConfigError
from linearize.config.files import said_as_configuration
from linearize.data import Limits, Task, text
from linearize.data.text import Documents, TextTask
from linearize.data.text.prompts import frame
from linearize.data.text.tokens import Wrap
from linearize.examples import Examples
from linearize.models import Model
from linearize.models.language import (
    LanguageModel,
    classifier,
    has_types,
    label_words,
    word_tokens,
)
from linearize.objectives import Classify, Objective, Seq2Seq, columns
from linearize.study.heads import Heads, Prototypes
from linearize.task_vector import TaskVector

SICK = "sick"
Make = Callable[[str, Documents], Examples]
"""A task's documents to examples."""


class Reading(NamedTuple):
    """A way to read a language model: what is trained, on what, and what is measured."""

    model: Model
    objectives: Mapping[str, Objective] | Heads
    make: Make


class Material(NamedTuple):
    """What all seeds share."""

    name: str
    model: Model
    tasks: Mapping[str, Task]
    objectives: Mapping[str, Objective] | Heads
    donors: Mapping[str, TaskVector]


def load(config: NliConfig) -> Material:
    """The configuration's.

    Raises:
        ConfigError: a task, a model or a donor that is not there, or a way to read that the model
            does not have.
    """
    rehearse(config)
    given = {name: documents(config, name) for name in config.tasks}  # before weights are fetched
    return build(config, *speaker(config.model), given)


def rehearse(config: NliConfig) -> None:
    """Make the stand-ins that a configuration reads, unless they are there; nothing of any other.

    Raises:
        WeightsError: transformers, which writes the model, is not installed.
    """
    rows = [WORDINGS[name] for name in config.tasks]
    asked = " ".join(words for row in rows for words in (row.template, *row.words))
    gated = config.model.read == "classifier"  # as T5-v1.1 is
    t5.rehearse(config.model.weights, config.data_dir, config.reads, asked.split(), gated=gated)


def build(
    config: NliConfig, model: LanguageModel, tokenizer: Any, given: Mapping[str, TextTask]
) -> Material:
    """The same of a model and documents that are at hand.

    Raises:
        ConfigError: texts longer than the model's context, or a way to read that it does not have.
    """
    check_length(model, config.length)
    with said_as_configuration("model"):
        read, objectives, make = READINGS[config.model.read](config, model, tokenizer, given)
    tasks = {name: each.examples(partial(make, name)) for name, each in given.items()}
    donors = {name: donor(config.model, model, where) for name, where in config.donors.items()}
    return Material(model.name, read, tasks, objectives, donors)


def documents(config: NliConfig, name: str) -> TextTask:
    """A task's documents, in three splits."""
    limit, source = Limits(config.train, config.validation, config.test), WORDINGS[name].source
    with said_as_configuration("tasks"):
        if source in reviews.DOMAINS:
            return reviews.task(source, limit, config.data_seed)
        if source == SICK:
            return sick(config, limit)
        return text.load_text(source, limit=limit, seed=config.data_seed, data_dir=config.data_dir)


def sick(config: NliConfig, limit: Limits) -> TextTask:
    """``SICK.txt`` of Marelli et al. 2014, which is no set of TFDS, in its own three splits."""
    path = Path(config.data_dir or ".") / SICK / "SICK.txt"
    read = partial(text.read_csv, path, text="sentence_A", pair="sentence_B", delimiter="\t")
    found = read(label="entailment_label", classes=[name.upper() for name in SHARED])
    split = read(label="SemEval_set", classes=("TRAIN", "TRIAL", "TEST")).labels
    train, validation, test = (found.take(split == i) for i in range(3))
    return text.split_documents(
        SICK, train=train, validation=validation, test=test,
        limit=limit, seed=config.data_seed, provenance=str(path),
    )  # fmt: skip


def donor(config: ReadConfig, model: LanguageModel, where: str) -> TaskVector:
    """From θ0 to other weights of the model.

    Raises:
        ConfigError: there are none, or they are of another model.
    """
    other = replace(config, weights=where, pretrained=True).load("donors")
    with said_as_configuration("donors"):
        return TaskVector.between(model.params, other.params)


def wrapped(wording: Wording) -> Wrap | None:
    """A template; None where there is none."""
    if not wording.template:
        return None
    told = wording.template

    def wrap(own: str, pair: str | None) -> str:  # at once: a text may hold "{pair}"
        held = {"{text}": own.strip(), "{pair}": pair or ""}
        return re.sub(r"\{(?:text|pair)\}", lambda match: held[match[0]], told)

    return wrap


def words_of(name: str, given: TextTask) -> tuple[str, ...]:
    """A task's answers by class.

    Raises:
        ConfigError: there are others than classes.
    """
    words = WORDINGS[name].words or given.classes
    if len(words) != len(given.classes):
        raise ConfigError(
            f"task {name!r} has the classes {given.classes} and the words {words}; one each"
        )
    return words


def _features(
    config: NliConfig, model: LanguageModel, tokenizer: Any, given: Mapping[str, TextTask]
) -> Reading:
    """Features of an encoder, pooled as its files say, under heads of a few examples."""
    if model.step is not None:
        raise ConfigError(f"read='features': {model.name} is no encoder; read its words or answers")
    return Reading(
        as_encoder(model),
        Prototypes(config.model.shots),
        _texts(config, model, tokenizer, given),
    )


def _texts(
    config: NliConfig, model: LanguageModel, tokenizer: Any, given: Mapping[str, TextTask]
) -> Make:
    """Tokens and mask of a text as it is, or of a pair, with its class.

    Token types too, of all tasks alike, where one is of pairs and the model was trained with them.
    """
    types = has_types(model) and any(task.train.pairs is not None for task in given.values())

    def make(name: str, documents: Documents) -> Examples:
        return text.classification(
            documents,
            tokenizer,
            config.length,
            pad=tokenizer.special.get("pad", 0),
            too_long="cut",
            vocabulary=model.vocabulary,
            types=types,
        )

    return make


def _words(
    config: NliConfig, model: LanguageModel, tokenizer: Any, given: Mapping[str, TextTask]
) -> Reading:
    """A decoder's next word after the prompt: of all tasks' words, a task sees its own."""
    if model.cache is None:
        raise ConfigError(f"read='words': {model.name} is no decoder; read its features or answers")
    words = {name: words_of(name, task) for name, task in given.items()}
    every = list(dict.fromkeys(word for own in words.values() for word in own))
    tokens, (_, end) = word_tokens(tokenizer, every), frame(tokenizer)

    def make(name: str, documents: Documents) -> Examples:
        rows, kept = text.encoded(
            documents, tokenizer, length=config.length, too_long="cut",
            wrap=wrapped(WORDINGS[name]), vocabulary=model.vocabulary,
        )  # fmt: skip
        last = np.array([len(row) - len(end) - 1 for row in rows], np.int32)
        padded = text.padded(rows, config.length, tokenizer.special.get("eos") or 0)
        return Examples((padded, last), {"labels": documents.labels[kept]})

    objectives = {
        name: Classify(
            columns([every.index(word) for word in own]), metric=WORDINGS[name].classes_metric
        )
        for name, own in words.items()
    }
    return Reading(label_words(model, tokens), objectives, make)


def _answers(
    config: NliConfig, model: LanguageModel, tokenizer: Any, given: Mapping[str, TextTask]
) -> Reading:
    """An encoder–decoder's answers in words."""
    if model.encode is None:
        raise ConfigError(f"read='answers': {model.name} is no encoder–decoder; read its features")
    spoken, objectives = {}, {}
    for name, task in given.items():
        spoken[name] = words_of(name, task)
        rows, _ = text.encoded(Documents(spoken[name]), tokenizer, vocabulary=model.vocabulary)
        objectives[name] = Seq2Seq(answers=rows, metric=WORDINGS[name].metric)
    longest = max(each.answers.shape[1] for each in objectives.values())
    start = model.about["architecture"]["start"]

    def make(name: str, documents: Documents) -> Examples:
        return text.answers(
            documents,
            tokenizer,
            config.length,
            [spoken[name][label] for label in documents.labels],
            answer_length=longest,
            start=start,
            pad=tokenizer.special.get("pad", 0),
            too_long="cut",
            wrap=wrapped(WORDINGS[name]),
            vocabulary=model.vocabulary,
        )

    return Reading(model, objectives, make)


def _classes(
    config: NliConfig, model: LanguageModel, tokenizer: Any, given: Mapping[str, TextTask]
) -> Reading:
    """An encoder–decoder's classes, of a head that tasks share; what a task lacks is masked."""
    for name, task in given.items():
        if len(WORDINGS[name].labels) != len(task.classes):
            raise ConfigError(
                f"read='classifier': task {name!r} has the classes {task.classes}, and its row "
                f"says labels {WORDINGS[name].labels} of {SHARED}; one each"
            )
    objectives = {
        name: Classify(columns(WORDINGS[name].labels), metric=WORDINGS[name].classes_metric)
        for name in given
    }
    read = classifier(model, len(SHARED), seed=config.model.seed)
    return Reading(read, objectives, _texts(config, model, tokenizer, given))


READINGS: Mapping[str, Callable[..., Reading]] = {
    "features": _features,
    "words": _words,
    "answers": _answers,
    "classifier": _classes,
}
"""By name, how a model is read."""
