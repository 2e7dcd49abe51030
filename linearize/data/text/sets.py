"""Text sets of TensorFlow Datasets, read without TensorFlow: rows, and splits as published."""

import dataclasses
import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from linearize.assets import cache_dir
from linearize.data.records import SPLITS, DataError, Limits
from linearize.data.split import FRACTIONS
from linearize.data.text.documents import Documents, blank
from linearize.data.text.task import TextTask, split_documents
from linearize.data.tfds import import_tfds
from linearize.data.vision import held_out, human

log = logging.getLogger(__name__)

_MANY = 200_000
"""Documents beyond which near-duplicates are not looked for: one set is cut by a limit first."""


@dataclasses.dataclass(frozen=True)
class TextSet:
    """A row of ``TEXT_SETS``.

    Attributes:
        tfds: name, configuration and version in TensorFlow Datasets.
        text: the feature that holds the text, ``/`` between those within each other.
        about: one line.
        classes: their names by label; empty where texts are all there is.
        label: the feature that holds the label.
        pair: the feature that holds the second text.
        label_of: the number of the class that a value stands for, None where the document is left
            out; a label that is a number already stands for itself.
        splits: the TFDS split that is trained on, validated on and tested on. An empty validation
            is cut out of training: 10 %, at most 5,000, as the vision tasks' is, by a permutation
            and without a look at near-duplicates. Where test is empty too, both are, by the text,
            with near-duplicates together.
        plain: the text as people write it, of what the feature holds.
        licence: what its publishers state.
        counts: examples of each TFDS split that the real set has, as far as they are known here.
        by_hand: what must be fetched by hand; empty where TFDS downloads it.
        download: bytes to download, 0 where TFDS alone knows.
    """

    tfds: str
    text: str
    about: str
    classes: tuple[str, ...] = ()
    label: str = "label"
    pair: str = ""
    label_of: Callable[[Any], int | None] = int
    splits: tuple[str, str, str] = ("train", "validation", "test")
    plain: Callable[[str], str] = str
    licence: str = "see its homepage"
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    by_hand: str = ""
    download: int = 0

    def folder(self, data_dir: Path) -> Path:
        """Where TFDS keeps the prepared data."""
        return data_dir / self.tfds.replace(":", "/")

    @property
    def downloads(self) -> str:
        """Size of the download, for people."""
        return human(self.download) if self.download else "by TFDS"


def _above(high: float, low: float) -> Callable[[Any], int | None]:
    """1 above ``high``, 0 below ``low``; what lies between is left out, and the bounds themselves.

    Scores are float32, in which 0.8 is above 0.8 in double precision.
    """
    top, bottom = np.float32(high), np.float32(low)

    def number(value: Any) -> int | None:
        score = np.float32(value)
        return 1 if score > top else 0 if score < bottom else None

    return number


def _stars(value: Any) -> int | None:
    """One or two stars are negative, four or five positive; three are left out."""
    return None if value == 3 else int(value > 3)


def _page(text: str) -> str:
    """A page whose titles, sections and paragraphs are told by words."""
    apart = re.sub(r"\s*_START_(?:ARTICLE|SECTION|PARAGRAPH)_\s*", "\n\n", text)
    return apart.replace("_NEWLINE_", "\n").strip()


def _glue(
    task: str, text: str, pair: str, classes: Sequence[str], counts: Sequence[int], about: str
) -> TextSet:
    """A task of GLUE. Test labels are hidden, so the published validation split is the test."""
    test = "validation_matched" if task == "mnli" else "validation"
    return TextSet(
        f"glue/{task}:2.0.0",
        text,
        about,
        tuple(classes),
        pair=pair,
        splits=("train", "", test),
        counts=dict(zip(("train", test), counts, strict=True)),
    )


_ENTAILMENT = ("entailment", "neutral", "contradiction")
_SENTIMENT = ("negative", "positive")
_TWO = ("entailment", "not_entailment")

TEXT_SETS: dict[str, TextSet] = {
    "glue/cola": _glue(
        "cola", "sentence", "", ("unacceptable", "acceptable"), (8_551, 1_043),
        "whether a sentence is English (Matthews correlation)",
    ),
    "glue/sst2": _glue(
        "sst2", "sentence", "", _SENTIMENT, (67_349, 872), "sentiment of phrases on films"
    ),
    "glue/mrpc": _glue(
        "mrpc", "sentence1", "sentence2", ("not_equivalent", "equivalent"), (3_668, 408),
        "whether two sentences say the same",
    ),
    "glue/qqp": _glue(
        "qqp", "question1", "question2", ("not_duplicate", "duplicate"), (363_846, 40_430),
        "whether two questions are one",
    ),
    "glue/mnli": _glue(
        "mnli", "premise", "hypothesis", _ENTAILMENT, (392_702, 9_815),
        "inference in ten genres; the matched validation split is the test",
    ),
    "glue/qnli": _glue(
        "qnli", "question", "sentence", _TWO, (104_743, 5_463), "whether a sentence has the answer"
    ),
    "glue/rte": _glue(
        "rte", "sentence1", "sentence2", _TWO, (2_490, 277), "whether one sentence follows"
    ),
    "glue/wnli": _glue(
        "wnli", "sentence1", "sentence2", ("not_entailment", "entailment"), (635, 71),
        "whether a pronoun means that noun",
    ),
    "snli": TextSet(
        "snli:1.1.0", "premise", "inference about captions; pairs without a label are left out",
        _ENTAILMENT, pair="hypothesis", label_of=lambda label: int(label) if label >= 0 else None,
    ),
    "sci_tail": TextSet(
        "sci_tail:1.0.0", "premise", "inference about science", ("entails", "neutral"),
        pair="hypothesis",
    ),
    "civil_comments": TextSet(
        "civil_comments/CivilComments:1.2.4", "text",
        "comments on news: toxicity above 0.8, or below 0.2; those between are left out",
        ("not toxic", "toxic"), label="toxicity", label_of=_above(0.8, 0.2), licence="CC0-1.0",
    ),
    "real_toxicity_prompts": TextSet(
        "real_toxicity_prompts:1.0.0", "prompt/text",
        "openings of sentences, of toxicity above 0.5 or not (as their paper calls toxic)",
        ("not toxic", "toxic"), label="prompt/toxicity",
        label_of=lambda value: int(value > 0.5) if value == value else None,
        splits=("train", "", ""), licence="Apache-2.0",
    ),
    "yelp_polarity_reviews": TextSet(
        "yelp_polarity_reviews:0.2.0", "text", "sentiment of reviews of restaurants", _SENTIMENT,
        splits=("train", "", "test"), counts={"train": 560_000, "test": 38_000},
    ),
    "amazon_us_reviews": TextSet(
        "amazon_us_reviews/Books_v1_00:0.1.0", "data/review_body",
        "sentiment of reviews of goods, by stars; three are left out. Others by their name: "
        "amazon_us_reviews/Music_v1_00", _SENTIMENT, label="data/star_rating", label_of=_stars,
        splits=("train", "", ""),
    ),
    "imdb_reviews": TextSet(
        "imdb_reviews/plain_text:1.0.0", "text", "sentiment of reviews of films", _SENTIMENT,
        splits=("train", "", "test"), counts={"train": 25_000, "test": 25_000},
    ),
    "ag_news_subset": TextSet(
        "ag_news_subset:1.0.0", "description", "topic of news",
        ("World", "Sports", "Business", "Sci/Tech"), splits=("train", "", "test"),
        counts={"train": 120_000, "test": 7_600},
    ),
    "trec": TextSet(
        "trec:1.0.0", "text", "what a question asks for",
        ("DESC", "ENTY", "ABBR", "HUM", "NUM", "LOC"), label="label-coarse",
        splits=("train", "", "test"), counts={"train": 5_452, "test": 500},
    ),
    "wiki40b": TextSet(
        "wiki40b/en:1.3.0", "text", "pages of the English Wikipedia", plain=_page,
        licence="CC BY-SA 3.0",
        by_hand="TFDS prepares it with Apache Beam; prepare it elsewhere as array_record and copy "
        "its folder wiki40b/en/1.3.0 into {data_dir}",
    ),
    "lm1b": TextSet(
        "lm1b:1.1.0", "text", "single sentences of news", splits=("train", "", "test"),
        counts={"train": 30_301_028, "test": 306_688},
    ),
}  # fmt: skip
"""Text sets that :func:`linearize.data.text.load_text` knows, by their name in TFDS."""


def text_set(name: str) -> TextSet | None:
    """The row of a name, or of the set that ``amazon_us_reviews/CATEGORY`` is of; else None."""
    if name in TEXT_SETS:
        return TEXT_SETS[name]
    base, _, rest = name.partition("/")
    if base == "amazon_us_reviews" and rest:
        row = TEXT_SETS[base]
        return dataclasses.replace(row, tfds=f"{base}/{rest}:{row.tfds.partition(':')[2]}")
    return None


def load_set(
    name: str,
    row: TextSet,
    *,
    limit: Limits | int | None = None,
    seed: int = 0,
    fractions: Sequence[float] = FRACTIONS,
    data_dir: str | Path | None = None,
) -> TextTask:
    """A set that ``experiments.prepare_data`` has prepared; arguments as ``load_text``'s.

    Raises:
        DataError: it is not prepared (the message says how), and as :func:`read_set`.
    """
    folder = Path(data_dir) if data_dir is not None else cache_dir() / "tfds"
    if not (row.folder(folder) / "dataset_info.json").is_file():
        hand = f"; {row.by_hand.format(data_dir=folder)}" if row.by_hand else ""
        raise DataError(
            f"{name!r} ({row.tfds}) is not prepared in {folder}; run `python -m "
            f"experiments.prepare_data {name} --data-dir {folder}`{hand}"
        )
    builder = import_tfds().builder(row.tfds, data_dir=str(folder))
    return read_set(name, row, builder, limit=limit, seed=seed, fractions=fractions)


def read_set(
    name: str,
    row: TextSet,
    builder: Any,
    *,
    limit: Limits | int | None = None,
    seed: int = 0,
    fractions: Sequence[float] = FRACTIONS,
) -> TextTask:
    """The task of a TFDS builder with data.

    Published splits are kept as they are; what a limit keeps, and what is cut out of training, a
    NumPy permutation of the seed decides. So near-duplicates may lie in two splits, unless the set
    has no test split and is cut as packaged texts are. Empty texts are left out and counted.

    Raises:
        DataError: a feature or split that is not there, a label that is no class, no array_record,
            a set without a test split that is too large to look for near-duplicates.
    """
    _check(name, row, builder)
    limits, skipped = Limits.of(limit), {"empty": 0}
    training, validation, test = row.splits
    about: dict[str, Any] = {
        "licence": row.licence,
        "provenance": f"TFDS {builder.info.full_name}; {builder.info.homepage or 'no homepage'}",
    }

    def read(
        part: str, split: str, rows: Callable[[int], np.ndarray], most: int | None
    ) -> Documents:
        source = _source(name, builder, split)
        order = rows(len(source))
        return _documents(f"{name}/{part}", row, source, order, most, skipped)

    def all_of(n: int) -> np.ndarray:
        return np.random.default_rng(seed).permutation(n)

    if not test:
        whole = read("all", training, all_of, _enough(limits, fractions))
        if len(whole) > _MANY:
            raise DataError(
                f"{name!r} has no test split and more than {_MANY:,} documents, of which the "
                "near-duplicates would have to be found; give a limit for each split"
            )
        made = split_documents(name, whole, limit=limits, seed=seed, fractions=fractions, **about)
        return dataclasses.replace(made, skipped={**made.skipped, **_counted(skipped)})
    cut = 0 if validation else held_out(len(_source(name, builder, training)))
    order = {
        "train": lambda n: all_of(n)[cut:],
        "validation": all_of if validation else lambda n: all_of(n)[:cut],
        "test": all_of,
    }
    names = dict(zip(SPLITS, (training, validation or training, test), strict=True))
    parts = {part: read(part, names[part], order[part], getattr(limits, part)) for part in SPLITS}
    for part, documents in parts.items():
        if not len(documents):
            raise DataError(f"split {name + '/' + part!r} is empty; prepare the set anew")
    train, held, tested = parts.values()
    return TextTask(name, train, held, tested, skipped=_counted(skipped), **about)


def _enough(limits: Limits, fractions: Sequence[float]) -> int:
    """Documents of which each split's share is twice its limit; without limits, one too many."""
    parts = [(getattr(limits, s), share) for s, share in zip(SPLITS, fractions, strict=True)]
    if any(most is None for most, share in parts if share):
        return _MANY + 1
    return min(_MANY, math.ceil(max(2 * most / share for most, share in parts if share)))


def _counted(skipped: Mapping[str, int]) -> dict[str, int]:
    return {reason: n for reason, n in skipped.items() if n}


def _check(name: str, row: TextSet, builder: Any) -> None:
    """The features of the row are there, with its classes."""
    wanted = [row.text, row.pair, row.label if row.classes else ""]
    for path in filter(None, wanted):
        features = builder.info.features
        for key in path.split("/"):
            if not hasattr(features, "keys") or key not in features:
                known = ", ".join(builder.info.features)
                raise DataError(f"{name!r} has no feature {path!r} among {known}; prepare it anew")
            features = features[key]
        names = getattr(features, "names", None)
        if path == row.label and names and len(names) != len(row.classes):
            raise DataError(
                f"{name!r} has the classes {names} and the table {row.classes}; prepare "
                f"{row.tfds} anew"
            )


def _source(name: str, builder: Any, split: str) -> Any:
    try:
        return builder.as_data_source(split=split)
    except (NotImplementedError, ValueError, KeyError) as error:
        raise DataError(
            f"{name!r}: split {split!r} cannot be read ({str(error).splitlines()[0]}); the set "
            "must be prepared with file_format='array_record'"
        ) from error


def _documents(
    place: str,
    row: TextSet,
    source: Any,
    order: np.ndarray,
    most: int | None,
    skipped: dict[str, int],
) -> Documents:
    """The first ``most`` documents in this order that have a text and a class."""
    found: dict[str, list[Any]] = {"texts": [], "pairs": [], "labels": [], "places": []}
    for number in order.tolist():
        if most is not None and len(found["texts"]) >= most:
            break
        values, label = source[number], 0
        if row.classes:
            value = _at(values, row.label)
            known = row.label_of(value)
            if known is None:
                continue
            if not 0 <= known < len(row.classes):
                raise DataError(
                    f"{place}, example {number} has the label {value}, and there are "
                    f"{len(row.classes)} classes; labels of this split may be hidden"
                )
            label = known
        texts = [row.plain(_string(_at(values, path))) for path in (row.text, row.pair) if path]
        if any(map(blank, texts)):
            skipped["empty"] += 1
            continue
        found["texts"].append(texts[0])
        found["pairs"].append(texts[-1])
        found["labels"].append(label)
        found["places"].append(f"{place}, example {number}")
    return Documents(
        found["texts"],
        found["labels"] if row.classes else None,
        row.classes,
        found["pairs"] if row.pair else None,
        places=found["places"],
    )


def _at(values: Any, path: str) -> Any:
    for key in path.split("/"):
        values = values[key]
    return values


def _string(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
