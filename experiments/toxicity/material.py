"""What a run is given: a model and its tokenizer, texts of a kind and others, prompts, scorers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from experiments.speaker import speaker
from experiments.stand_ins import comments
from experiments.toxicity import sources
from experiments.toxicity.config import FITTED, ControlConfig, ToxicityConfig
from experiments.toxicity.sources import Texts
from linearize import scorers
from linearize.config import ConfigError
from linearize.config.files import require, said_as_configuration
from linearize.data import Task, text
from linearize.data.records import SPLITS
from linearize.data.text import Documents
from linearize.data.text.prompts import frame
from linearize.examples import Examples
from linearize.models import Model
from linearize.models.language import LanguageModel
from linearize.scorers import Score, Scorer
from linearize.study import computed_once

TARGET, OTHER, CONTROL = "target", "other", "control"


@dataclass(frozen=True, eq=False)
class Material:
    """What all seeds share."""

    model: LanguageModel
    """That writes."""
    read: Model
    """That is trained and whose perplexity is measured: the model, or what of it is above frozen
    blocks."""
    tokenizer: Any
    tasks: Mapping[str, Task]
    """Token rows of :data:`TARGET`, :data:`OTHER` and :data:`CONTROL`."""
    prompts: Sequence[np.ndarray]
    """Tokens before each generation; generations take them in turn."""
    scorers: Mapping[str, Scorer]
    scores: Mapping[str, Score]
    held_out: Mapping[str, float]
    """By scorer, its accuracy on held-out documents at 0.5."""
    words: Mapping[str, str]
    """For the page."""


def load(config: ToxicityConfig) -> Material:
    """Model, texts and scorers of a configuration.

    Raises:
        ConfigError: something of it cannot be had; the message says what.
    """
    if folder := comments.read_by(config.model.weights):
        comments.make(folder)
    model, tokenizer = speaker(config.model)
    return build(config, model, tokenizer, sources.texts(config))


def build(config: ToxicityConfig, model: LanguageModel, tokenizer: Any, given: Texts) -> Material:
    """The same of a model and texts that are at hand.

    Raises:
        ConfigError: rows that are longer than the model's context, or a scorer that is not there or
            gives no scores.
    """
    asked = prompts(config, tokenizer, given)
    check_lengths(config, model, max(map(len, asked)))
    with said_as_configuration("scorers"):
        judges = judged(config, given)
    rows = tasks(config, model, tokenizer, given)
    read, rows = computed_once(model, rows, config.trainable, batch_size=config.batch_size)
    return Material(
        model,
        read,
        tokenizer,
        rows,
        asked,
        *judges,
        {
            "target": given.target_words,
            "others": given.other_words,
            "control": given.control_words,
            "chosen_by": given.chosen_by,
            "decoding": decoding(config),
            "recipe": config.control.words,
        },
    )


def check_lengths(config: ToxicityConfig, model: LanguageModel, prompt: int) -> None:
    """No row is longer than what the model's positions reach.

    Raises:
        ConfigError: one is; the option is named.
    """
    told, most = config.decoding, model.context
    if most is None:
        return
    for field, value, length in (
        ("length", config.length, config.length),
        ("control.context", config.control.context, config.control.context),
        ("decoding.tokens", told.tokens, prompt + told.tokens),
    ):
        after = f" and the longest prompt has {prompt}" if length > value else ""
        remedy = f"{model.name} reaches {most} tokens{after}; lower it"
        require(length <= most, field, value, remedy)


def judged(
    config: ToxicityConfig, given: Texts
) -> tuple[dict[str, Scorer], dict[str, Score], dict[str, float]]:
    """Rows, checked scores, and how right they are on held-out documents, by name."""
    rows = {name: scorers.named(name) for name in config.scorers if name != FITTED}
    if FITTED in config.scorers:
        rows[FITTED] = Scorer(
            FITTED,
            f"probability of {given.target_words} by a logistic model over words, fitted on "
            "validation documents, which nothing else is trained on",
            partial(_fitted, given),
        )
    rows = {name: rows[name] for name in config.scorers}
    read = {name: row.load() for name, row in rows.items()}
    checked: dict[str, Score] = {
        name: partial(scorers.scores, score, name=name) for name, score in read.items()
    }
    return rows, checked, {name: _accuracy(score, given) for name, score in checked.items()}


def tasks(
    config: ToxicityConfig, model: LanguageModel, tokenizer: Any, given: Texts
) -> dict[str, Task]:
    """Token rows: of the kind and of other text packed, of the control's windows for perplexity."""
    end = tokenizer.special.get("eos")

    def rows(documents: Documents) -> list[np.ndarray]:
        return text.encoded(documents, tokenizer, vocabulary=model.vocabulary)[0]

    packed = partial(text.packed, length=config.length, end=end)
    found = {}
    for name, splits in ((TARGET, given.target), (OTHER, given.other)):
        train, validation, test = (packed(rows(splits[split])) for split in SPLITS)
        few = slice(config.batch_size)  # on which nothing is measured
        found[name] = Task(name, train, validation.take(few), test.take(few))
    control = given.control
    validation, test = (
        windows(config.control, rows(text.joined(control[split]))) for split in SPLITS[1:]
    )
    found[CONTROL] = Task(CONTROL, packed(rows(control["train"])), validation, test)
    return found


def windows(told: ControlConfig, rows: Sequence[np.ndarray]) -> Examples:
    """Rows of a text's tokens, along which its perplexity is measured."""
    if told.recipe == "disjoint":
        return text.disjoint(rows, told.context)
    return text.strided(rows, told.context, told.stride)


def prompts(config: ToxicityConfig, tokenizer: Any, given: Texts) -> list[np.ndarray]:
    """Tokens of the one prompt, of a column of prompts, or of the openings of test documents.

    Raises:
        ConfigError: there is no such document or column.
    """
    told = config.decoding
    if told.prompts == "fixed":
        said: Sequence[str] = [told.prompt]
    elif told.prompts == "column":
        if not given.prompts:
            raise ConfigError("decoding.prompts='column': the texts have no column of prompts")
        said = given.prompts
    else:
        said = given.target["test"].texts
    found = tokenizer.ids(said)
    if told.prompts == "openings":
        found = [each[: told.opening] for each in found if len(each) > told.opening]
    if told.prompts != "fixed":
        found = [each[-told.longest :] for each in found if len(each)]
    if not found:
        raise ConfigError(
            f"decoding.opening={told.opening}: no test document has more tokens; lower it"
        )
    begin, _ = frame(tokenizer)  # as the rows that are trained on
    return [np.array([*begin, *each], np.int32) for each in found]


def decoding(config: ToxicityConfig) -> str:
    """How texts are generated, in a sentence."""
    told = config.decoding
    how = "Ancestral sampling" if told.plain else "Sampling"
    more = [f"temperature {told.temperature:g}"] if told.temperature != 1 else []
    more += [f"top-k {told.top_k}"] if told.top_k else []
    more += [f"top-p {told.top_p:g}"] if told.top_p < 1 else []
    before = {
        "fixed": f"after “{told.prompt}”",
        "column": "after prompts of the data set",
        "openings": f"after the first {told.opening} tokens of test documents of the kind",
    }[told.prompts]
    return (
        f"{', '.join([how, *more])} of {told.tokens} new tokens {before}, seeded; what is "
        "scored is the continuation alone."
    )


def _fitted(given: Texts) -> Score:
    """On validation documents: nothing is trained on them, and no near-duplicate crosses splits."""
    kind, other = given.target["validation"], given.other["validation"]
    pieces = [*_pieces(kind.texts), *_pieces(other.texts)]
    positive = [True] * len(_pieces(kind.texts)) + [False] * len(_pieces(other.texts))
    return scorers.fit(pieces, positive, in_texts=2)


PIECE = 40
"""Words of a piece of a document: the fitted scorer is to read texts as long as generations."""


def _pieces(texts: Sequence[str]) -> list[str]:
    words = [each.split() for each in texts]
    return [" ".join(w[i : i + PIECE]) for w in words for i in range(0, len(w), PIECE)]


def _accuracy(score: Score, given: Texts) -> float:
    """Mean over the two kinds of the share of test documents' pieces on the right side of 0.5."""
    kind, other = (score(_pieces(each["test"].texts)) for each in (given.target, given.other))
    return float((np.mean(kind > 0.5) + np.mean(other <= 0.5)) / 2)
