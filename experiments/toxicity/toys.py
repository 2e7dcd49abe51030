"""Made-up text of three kinds, and its tokenizer: what ``debug`` reads."""

from collections.abc import Sequence

import numpy as np

from linearize.data.text import Documents
from linearize.data.text.task import TextTask, split_documents

WORDS = tuple(
    f"{a}{b}{c}" for c in "nt" for a in "bdfgklmp" for b in "aeio"
)
"""64 - 1 of them are used: the first stands for the end token's number."""
KINDS = {"zig": slice(1, 22), "zag": slice(22, 43), "zog": slice(43, 64)}
"""Words that documents of a kind mostly consist of."""


class ToyTokenizer:
    """A word, a token; the first is the end."""

    special = {"eos": 0}  # noqa: RUF012

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Of words that there are."""
        return [[WORDS.index(word) for word in text.split() if word in WORDS] for text in texts]

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Without ends."""
        return [" ".join(WORDS[token] for token in row if token) for row in rows]


def documents(kind: str, count: int, seed: int = 0) -> list[str]:
    """Texts of 10 to 30 words, four of five of which are the kind's."""
    rng, own = np.random.default_rng([seed, list(KINDS).index(kind)]), KINDS[kind]
    sizes = rng.integers(10, 31, count)
    return [
        " ".join(
            WORDS[rng.integers(own.start, own.stop) if rng.random() < 0.8 else rng.integers(1, 64)]
            for _ in range(size)
        )
        for size in sizes
    ]


def kinds(count: int = 90) -> TextTask:
    """Documents of two kinds, labelled."""
    texts = [*documents("zig", count), *documents("zag", count)]
    return split_documents(
        "toys", Documents(texts, [1] * count + [0] * count, ("zag", "zig")),
        fractions=(0.4, 0.3, 0.3), licence="made up", provenance="random words",
    )  # fmt: skip


def plain(count: int = 60) -> TextTask:
    """Documents of a third kind."""
    return split_documents("plain toys", Documents(documents("zog", count)),
                           licence="made up", provenance="random words")  # fmt: skip


def model():
    from linearize.models.language import loading
    from linearize.models.language.families import LANGUAGE
    return loading.load_language("toy_decoder", pretrained=False)
