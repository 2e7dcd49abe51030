"""A task of texts: three splits of documents, none of them nearly alike across splits."""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from linearize.choices import one_of
from linearize.data.prepare import Placed
from linearize.data.records import SPLITS, DataError, Limits, Task
from linearize.data.split import DROPPED, FRACTIONS, FREE, assign, name_keys, together
from linearize.data.text.documents import Documents
from linearize.data.text.duplicates import near_duplicates
from linearize.examples import Examples

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class TextTask:
    """Three splits of documents, before any tokenizer.

    Attributes:
        name: as in ``TEXT_TASKS``, or the user's.
        train, validation, test: documents of the same classes, if they have any.
        licence: what the texts' publishers state.
        provenance: where the texts come from.
        skipped: how many documents were left out, by split and reason.
    """

    name: str
    train: Documents
    validation: Documents
    test: Documents
    licence: str = "not stated"
    provenance: str = "given by the user"
    skipped: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        known = {split: self.split(split).classes for split in SPLITS}
        if len(set(known.values())) > 1:
            raise DataError(
                f"task {self.name!r} has other classes in its splits ({known}); read each with the "
                "same classes="
            )

    def split(self, name: str) -> Documents:
        """The documents of ``train``, ``validation`` or ``test``.

        Raises:
            ValueError: another name; the nearest is suggested.
        """
        return getattr(self, one_of("split", name, SPLITS))

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes' names, by label; empty where there are none."""
        return tuple(self.train.classes)

    @property
    def counts(self) -> dict[str, int]:
        """Number of documents by split."""
        return {split: len(self.split(split)) for split in SPLITS}

    def examples(self, make: Callable[[Documents], Examples]) -> Task:
        """The task that a model is trained and tested on.

        Args:
            make: documents to examples, such as ``functools.partial(classification,
                tokenizer=tokenizer, length=128)``.

        Raises:
            DataError: as ``make`` does, with the split's name.
        """
        made: list[Examples] = []
        for split in SPLITS:
            try:
                made.append(make(self.split(split)))
            except DataError as error:
                raise DataError(f"task {self.name!r}, split {split!r}: {error}") from error
        of_classes = all(np.ndim(np.asarray(each.targets.get("labels", 0))) == 1 for each in made)
        train, validation, test = made
        return Task(
            self.name, train, validation, test,
            classes=self.classes if of_classes else (),
            licence=self.licence,
            provenance=self.provenance,
            skipped=self.skipped,
        )  # fmt: skip


def place(documents: Documents, given: np.ndarray | None = None) -> Placed:
    """What decides the splits of documents: hashes, near-duplicates, groups.

    Args:
        documents: all of them.
        given: (N,) 0, 1 or 2 where the split is fixed, -1 where it is not; None fixes none.
    """
    contents = documents.contents
    keys = name_keys(contents)
    links = near_duplicates(contents)
    labels = np.zeros(len(keys), np.int32) if documents.labels is None else documents.labels
    return Placed(
        labels,
        keys,
        together(keys, links) if documents.groups is None else name_keys(documents.groups),
        links,
        np.full(len(keys), FREE, np.int8) if given is None else np.asarray(given, np.int8),
    )


def build(
    documents: Documents,
    placed: Placed,
    name: str,
    limit: Limits | int | None = None,
    seed: int = 0,
    fractions: Sequence[float] = FRACTIONS,
    **about: Any,
) -> TextTask:
    """The task of documents whose places are decided.

    Raises:
        DataError: as :meth:`linearize.data.prepare.Placed.rows`.
    """
    rows = placed.rows(name, limit, seed, fractions)
    train, validation, test = (documents.take(rows[split]) for split in SPLITS)
    return TextTask(name, train, validation, test, **about)


def split_documents(
    name: str,
    documents: Documents | None = None,
    *,
    train: Documents | None = None,
    validation: Documents | None = None,
    test: Documents | None = None,
    limit: Limits | int | None = None,
    seed: int = 0,
    fractions: Sequence[float] = FRACTIONS,
    licence: str = "not stated",
    provenance: str = "given by the user",
) -> TextTask:
    """Documents in three splits, of which no text in one is nearly equal to one in another.

    Splits that are given are kept, but for training documents that are nearly equal to one of
    validation or test, and validation documents nearly equal to one of test: these are left out,
    with a warning in the log, and counted in ``TextTask.skipped``. What is not given is cut out of
    ``train``, or all three out of ``documents``, by a hash of the text: groups and near-duplicates
    together, classes in proportion. Files that are re-ordered split alike.

    Args:
        name: of the task.
        documents: to be split; or else
        train: given, with or without the others.
        validation: given, or cut out of ``train``.
        test: likewise.
        limit: at most so many training documents, or :class:`Limits` for each split; a smaller one
            keeps a subset.
        seed: of the split and of the order.
        fractions: shares of train, validation and test where they are cut.
        licence: to be shown with results.
        provenance: likewise.

    Raises:
        DataError: neither or both ways of giving documents, splits of other classes, a split that
            is left without documents, a limit below the number of classes.
    """
    given = {"train": train, "validation": validation, "test": test}
    parts = {split: part for split, part in given.items() if part is not None}
    if (documents is None) == (train is None) or (documents is not None and parts):
        raise DataError(
            "give documents to be split, or train with or without validation and test; got "
            f"documents={documents is not None} and {list(parts)}"
        )
    if documents is not None:
        whole, codes = documents, np.full(len(documents), FREE, np.int8)
    else:
        whole = together_as_one(list(parts.values()))
        codes = np.concatenate(
            [np.full(len(part), SPLITS.index(split), np.int8) for split, part in parts.items()]
        )
        if len(parts) < len(SPLITS):
            codes[codes == 0] = FREE
    placed = place(whole, codes)
    left = (
        assign(placed.labels, placed.groups, placed.links, codes, fractions, seed, chained=True)
        == DROPPED
    )
    skipped = {
        f"{split}: nearly equal to a document of a later split": int(n)
        for code, split in enumerate(SPLITS)
        if (n := np.sum(left & ((codes == code) | ((codes == FREE) & (code == 0)))))
    }
    for reason, n in skipped.items():
        log.warning("%s: left out %d documents, %s", name, n, reason)
    return build(
        whole, placed, name, limit, seed, fractions,
        licence=licence, provenance=provenance, skipped=skipped,
    )  # fmt: skip


def together_as_one(parts: Sequence[Documents]) -> Documents:
    """Documents one after the other.

    Raises:
        DataError: other classes, or fields that some have and others lack.
    """
    if len({part.classes for part in parts}) > 1:
        shown = "; ".join(", ".join(part.classes) or "none" for part in parts)
        raise DataError(
            f"the documents have other classes in each part ({shown}); read all with the same "
            "classes="
        )
    fields: dict[str, Any] = {}
    for name in ("texts", "labels", "pairs", "groups", "places"):
        values = [getattr(part, name) for part in parts]
        lacking = sum(value is None for value in values)
        if 0 < lacking < len(values) and name != "places":
            raise DataError(f"some documents have {name} and others none; read all alike")
        if not lacking:
            fields[name] = [item for value in values for item in value]
    return Documents(classes=parts[0].classes, **fields)
