"""Where a run's model and texts come from: packaged ones, files, TFDS, and made-up ones."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.stand_ins import reviews
from experiments.toxicity.config import LanguageConfig, TextsConfig, ToxicityConfig
from linearize import scorers
from linearize.config import ConfigError
from linearize.config.files import said_as_configuration
from linearize.data import text
from linearize.data.records import SPLITS
from linearize.data.text import Documents, TextTask
from linearize.models.language import LanguageModel, load_language, load_tokens

Splits = Mapping[str, Documents]


@dataclass(frozen=True, eq=False)
class Texts:
    """Documents by split: of a kind, others like them, and the control's."""

    target: Splits
    other: Splits
    control: Splits
    target_words: str
    """What the kind is, for the page."""
    other_words: str
    control_words: str
    chosen_by: str
    """What chose the target's documents, a sentence."""
    prompts: Sequence[str] = ()
    """A column of prompts, where there is one."""


def speaker(told: LanguageConfig) -> tuple[LanguageModel, Any]:
    """The model at θ0, and its tokenizer.

    Raises:
        ConfigError: there is no such model or tokenizer.
        WeightsError: the weights cannot be read.
    """
    with said_as_configuration("model"):
        model = load_language(
            told.name,
            weights=told.weights,
            pretrained=told.pretrained,
            seed=told.seed,
            dtype=told.dtype,
            scan=told.scan,
            remat=told.remat,
        )
        where = told.weights or model.about["weights"]
        if where is None:
            return model, reviews.Words()
        return model, load_tokens(where, vocabulary=model.vocabulary)


def texts(config: ToxicityConfig) -> Texts:
    """The configuration's.

    Raises:
        ConfigError: documents that are not there, a class that they have not, or a split without
            one of the kinds.
    """
    told = config.texts
    with said_as_configuration("texts"):
        both, plain = documents(told, told.kinds), documents(told, told.control)
        prompts = documents(told, told.prompts).test.texts if told.prompts else ()
    target, other = (_by_class if told.selector is None else _by_score)(told, both)
    for kind in (target, other):
        for split in SPLITS:
            if not len(kind[split]):
                raise ConfigError(
                    f"texts.kinds={told.kinds!r}: no {split} document of "
                    f"{'the kind' if kind is target else 'other text'} is left; take more, or "
                    "other classes"
                )
    limits = {"train": None, "validation": told.control_validation, "test": told.control_test}
    chosen = (
        "the text that is trained on is labelled so in its data set."
        if told.selector is None
        else f"the text that is trained on was chosen by the scorer {told.selector!r}."
    )
    return Texts(
        target,
        other,
        {split: plain.split(split).take(slice(limits[split])) for split in SPLITS},
        told.words or ", ".join(told.positive) or f"what {told.selector} scores high",
        told.other_words or "other text of the data set",
        told.control_words or told.control,
        chosen,
        prompts,
    )


def documents(told: TextsConfig, name: str) -> TextTask:
    """Documents in three splits, whole."""
    if name in reviews.DOMAINS:
        return reviews.task(name)
    if name in text.TEXT_TASKS:
        return text.load_text(name, seed=told.seed, fractions=told.fractions)
    path = Path(name)
    if not path.exists():
        return text.load_text(name)  # says which there are
    found = FILES.get(path.suffix, text.read_plain)(path)
    return text.split_documents(
        path.stem, found, seed=told.seed, fractions=told.fractions, provenance=name
    )


def _table(read: Callable[..., Documents]) -> Callable[[Path], Documents]:
    return lambda path: read(path, label="label")


FILES: Mapping[str, Callable[[Path], Documents]] = {
    ".csv": _table(text.read_csv),
    ".jsonl": _table(text.read_json_lines),
    ".json": _table(text.read_json_lines),
}
"""Readers of labelled documents by the file's suffix; of others plain text is read."""


def _by_class(told: TextsConfig, both: TextTask) -> tuple[Splits, Splits]:
    known = both.classes
    unknown = [name for name in told.positive if name not in known]
    if unknown or set(told.positive) >= set(known):
        raise ConfigError(
            f"texts.positive={told.positive}: name some, not all, of the classes of {told.kinds}, "
            f"{', '.join(map(repr, known)) or 'which has none'}"
        )
    wanted = [known.index(name) for name in told.positive]
    return _parted(told, both, lambda docs: np.where(np.isin(docs.labels, wanted), 1, 0))


def _by_score(told: TextsConfig, both: TextTask) -> tuple[Splits, Splits]:
    score = scorers.named(str(told.selector)).load()

    def sides(docs: Documents) -> np.ndarray:
        found = scorers.scores(score, docs.texts, str(told.selector))
        return np.select([found > told.above, found < told.below], [1, 0], -1)

    return _parted(told, both, sides)


def _parted(
    told: TextsConfig, both: TextTask, sides: Callable[[Documents], np.ndarray]
) -> tuple[Splits, Splits]:
    """Documents whose side is 1, and those whose side is 0."""
    found: tuple[dict[str, Documents], dict[str, Documents]] = ({}, {})
    for split in SPLITS:
        docs = both.split(split)
        side = sides(docs)
        for kind, wanted in zip(found, (1, 0), strict=True):
            kind[split] = docs.take(np.flatnonzero(side == wanted)[: getattr(told, split)])
    return found
