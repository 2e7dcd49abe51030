"""Where a run's model and texts come from: packaged ones, files, TFDS, and made-up ones."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.stand_ins import reviews
from experiments.toxicity.config import TextsConfig, ToxicityConfig
from linearize import scorers
from linearize.config import ConfigError
from linearize.config.files import require, said_as_configuration
from linearize.data import Limits, text
from linearize.data.records import SPLITS
from linearize.data.text import Documents, TextTask
from linearize.data.text.tables import PLAIN

log = logging.getLogger(__name__)

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


def texts(config: ToxicityConfig) -> Texts:
    """The configuration's.

    Raises:
        ConfigError: documents that are not there, a class that they have not, or a split without
            one of the kinds.
        AssetError: packaged or TFDS data that cannot be fetched.
    """
    told = config.texts
    log.info("reading texts of %s", told.kinds)
    choose, chosen = _by_class, "is labelled so in its data set"
    if told.selector is not None:
        choose, chosen = _by_score, f"was chosen by the scorer {told.selector!r}"
    with said_as_configuration("texts"):
        target, other = choose(told)
        plain = controls(told)
        prompts = asked(told, config.decoding.count)
    for kind, words in ((target, "the kind"), (other, "other text")):
        for split in SPLITS:
            if not len(kind[split]):
                raise ConfigError(
                    f"texts.kinds={told.kinds!r}: no {split} document of {words} is left; take "
                    "more, or choose otherwise"
                )
    return Texts(
        target,
        other,
        plain,
        told.words or ", ".join(told.positive) or "what was chosen",
        told.other_words or "other text of the data set",
        told.control_words or told.control,
        f"the text that is trained on {chosen}.",
        prompts,
    )


def documents(told: TextsConfig, name: str, limit: Limits | None = None) -> TextTask:
    """Documents in three splits."""
    if name in reviews.DOMAINS:
        return reviews.task(name)
    return text.open_text(
        name, limit=limit, seed=told.seed, fractions=told.fractions, data_dir=told.data_dir
    )


def controls(told: TextsConfig) -> Splits:
    """The control's documents."""
    found = _given(Path(told.control)) or {
        split: task.split(split) for task in [documents(told, told.control)] for split in SPLITS
    }
    limits = {split: getattr(told, f"control_{split}") for split in SPLITS}
    return {split: each.take(slice(limits[split])) for split, each in found.items()}


_NAMES = {"train": "train", "validation": "valid", "test": "test"}


def _given(folder: Path) -> dict[str, Documents] | None:
    """Splits that a folder's files are named for, if there are validation and test."""
    if not folder.is_dir():
        return None
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in PLAIN)
    paths = {split: [p for p in files if word in p.name] for split, word in _NAMES.items()}
    if not paths["validation"] or not paths["test"]:
        return None
    for path in files:
        named = [split for split, its in paths.items() if path in its]
        remedy = f"{path.name} is named for {' and '.join(named)}; rename it"
        require(len(named) < 2, "texts.control", str(folder), remedy)
    found = {
        split: Documents([each for p in named for each in text.read_plain(p).texts])
        for split, named in paths.items()
        if named
    }
    return {"train": found["validation"]} | found


def asked(told: TextsConfig, count: int) -> Sequence[str]:
    """A column of prompts; none where none is named."""
    if told.prompts is None:
        return ()
    most = max(count, 100)
    limit = Limits(most, most, most) if text.text_set(told.prompts) else None
    return documents(told, told.prompts, limit).test.texts


def _by_class(told: TextsConfig) -> tuple[Splits, Splits]:
    both = documents(told, told.kinds)
    known = both.classes
    unknown = [name for name in told.positive if name not in known]
    if unknown or set(told.positive) >= set(known):
        raise ConfigError(
            f"texts.positive={told.positive}: name some, not all, of the classes of {told.kinds}, "
            f"{', '.join(map(repr, known)) or 'which has none'}"
        )
    wanted = [known.index(name) for name in told.positive]
    return _parted(told, both, lambda docs: np.where(np.isin(docs.labels, wanted), 1, 0))


def _by_score(told: TextsConfig) -> tuple[Splits, Splits]:
    score = scorers.named(str(told.selector)).load()
    log.info("choosing texts of %s by the scorer %r", told.kinds, told.selector)

    def sides(docs: Documents) -> np.ndarray:
        found = scorers.scores(score, docs.texts, str(told.selector))
        return np.select([found > told.above, found < told.below], [1, 0], -1)

    return _parted(told, documents(told, told.kinds), sides)


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
