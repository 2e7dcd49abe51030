"""Documents: texts as they are before any tokenizer, with what is known of each."""

import dataclasses
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from linearize.data.records import DataError, check_labels

_UNSEEN = ("Cc", "Cf", "Zl", "Zp", "Zs")
"""Unicode's categories of characters that leave no mark."""


@dataclasses.dataclass(frozen=True, eq=False)
class Documents:
    """N texts, or pairs of texts, with what is known of each; N may be 0.

    Attributes:
        texts: N strings; none is empty, of spaces or of what cannot be seen.
        labels: (N,) int32 numbers of classes; None where there are none.
        classes: the classes' names, by label.
        pairs: N second texts, such as hypotheses; None where texts stand alone.
        groups: N names of what must stay in one split, such as authors; None where near-duplicates
            alone decide.
        places: N places that messages name, such as ``reviews.csv, line 7``; numbers where None.

    Raises:
        DataError: a text that is empty or no string (with its place), fields of different lengths,
            labels out of range.

    >>> both = Documents(("a fine film", "a dull film"), [1, 0], ("bad", "good"))
    >>> len(both), both.take([1]).texts, both.place(1)
    (2, ('a dull film',), 'document 1')
    """

    texts: Sequence[str]
    labels: Any = None
    classes: Sequence[str] = ()
    pairs: Sequence[str] | None = None
    groups: Sequence[str] | None = None
    places: Sequence[str] | None = None

    def __post_init__(self) -> None:
        for name in ("texts", "pairs", "groups", "places"):
            given = getattr(self, name)
            if given is None:
                continue
            if isinstance(given, str):
                raise DataError(f"{name}={given[:40]!r}; expected a list of strings")
            object.__setattr__(self, name, tuple(given))
            if len(given) != len(self.texts):
                raise DataError(f"{name} has {len(given)} entries for {len(self.texts)} texts")
        for name in ("texts", "pairs"):
            for row, text in enumerate(getattr(self, name) or ()):
                if not isinstance(text, str):
                    raise DataError(
                        f"{self.place(row)} is a {type(text).__name__}; a string is expected"
                    )
                if blank(text):
                    raise DataError(
                        f"{self.place(row)} is empty; write something there, or leave it out"
                    )
                if not _encodes(text):
                    raise DataError(
                        f"{self.place(row)} holds half of a surrogate pair, which is no character; "
                        "write its text anew"
                    )
        object.__setattr__(self, "classes", tuple(map(str, self.classes)))
        if self.labels is not None:
            labels = np.asarray(self.labels)
            check_labels("the documents", labels, len(self.texts), len(self.classes))
            object.__setattr__(self, "labels", labels.astype(np.int32))

    def __len__(self) -> int:
        """N."""
        return len(self.texts)

    def place(self, row: int) -> str:
        """Where a document stands, for messages."""
        return f"document {row}" if self.places is None else self.places[row]

    def take(self, rows: Any) -> "Documents":
        """The documents at ``rows``: numbers, a slice or a mask.

        Raises:
            IndexError: a row that is not there, or a mask of another length.
        """
        chosen = np.atleast_1d(np.arange(len(self))[rows])
        changes: dict[str, Any] = {
            name: [given[row] for row in chosen.tolist()]
            for name in ("texts", "pairs", "groups", "places")
            if (given := getattr(self, name)) is not None
        }
        if self.labels is not None:
            changes["labels"] = self.labels[chosen]
        return dataclasses.replace(self, **changes)

    @property
    def contents(self) -> list[str]:
        """N strings of all the text that a document has: its own, and that of its pair."""
        if self.pairs is None:
            return list(self.texts)
        return [f"{text}\n{pair}" for text, pair in zip(self.texts, self.pairs, strict=True)]


def blank(text: str) -> bool:
    r"""Whether nothing of a text is seen: spaces, controls, formats such as a byte-order mark.

    >>> blank(" \u200b"), blank("é")
    (True, False)
    """
    return not any(c > " " and unicodedata.category(c) not in _UNSEEN for c in text)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def joined(documents: Documents, separator: str = "\n\n") -> Documents:
    """All texts as one, with a separator between: the stream that perplexity is measured along."""
    return Documents((separator.join(documents.texts),))
