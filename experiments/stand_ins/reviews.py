"""Made-up reviews of a few domains, and a tokenizer of their words: text without a download."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from linearize.data import Limits
from linearize.data.records import SPLITS
from linearize.data.text import Documents
from linearize.data.text.task import TextTask

CLASSES = ("negative", "positive")


class Domain(NamedTuple):
    """What is spoken of, and words that only its bad and its good reviews have."""

    things: tuple[str, ...]
    bad: tuple[str, ...]
    good: tuple[str, ...]


DOMAINS: Mapping[str, Domain] = {
    "toy_food": Domain(("soup", "bread", "rice", "tea"), ("stale", "bland"), ("fresh", "tasty")),
    "toy_film": Domain(("plot", "cast", "ending", "music"), ("dull", "long"), ("funny", "moving")),
    "toy_shop": Domain(("phone", "case", "cable", "lamp"), ("broken", "loose"), ("solid", "handy")),
}
EVERYWHERE = Domain(("it",), ("bad", "awful"), ("good", "great"))
OTHER = ("the", "was", "and", "very", "a", "my", "really")
SIZES = Limits(200, 60, 100)


def task(name: str, limit: Limits = SIZES, seed: int = 0) -> TextTask:
    """A domain's reviews, half of them good; no more than :data:`SIZES`."""

    def made(i: int, split: str) -> Documents:
        count, most = getattr(limit, split), getattr(SIZES, split)
        return written(name, most if count is None else min(count, most), [seed, i])

    train, validation, test = (made(i, split) for i, split in enumerate(SPLITS))
    return TextTask(name, train, validation, test, licence="made up", provenance="random words")


def written(name: str, count: int, seed: Sequence[int]) -> Documents:
    """So many reviews, drawn by a seed."""
    rng = np.random.default_rng([*seed, list(DOMAINS).index(name)])
    labels = np.arange(count) % 2

    def clause(label: int) -> str:
        domain = DOMAINS[name] if rng.random() < 0.7 else EVERYWHERE
        adjective = rng.choice((domain.bad, domain.good)[label])
        much = rng.choice(["", "very", "really"])
        return (
            f"{rng.choice(['the', 'my'])} {rng.choice(DOMAINS[name].things)} was {much} {adjective}"
        )

    texts = [
        " ".join(" and ".join(clause(int(y)) for _ in range(rng.integers(1, 4))).split())
        for y in labels
    ]
    return Documents(texts, labels, CLASSES)


class Words:
    """A word, a token; what language models' tokenizers have of methods, as far as is needed."""

    source = "made-up reviews"
    special: Mapping[str, int] = {"eos": 0}
    eos = 0
    ends = (0,)

    @property
    def backend(self) -> "Words":
        """What encodes one text."""
        return self

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The vocabulary; the first ends a text."""
        known = [
            word for domain in (*DOMAINS.values(), EVERYWHERE) for kind in domain for word in kind
        ]
        sentinels = [f"<extra_id_{i}>" for i in range(8)]
        return ("<end>", "Sentiment:", *CLASSES, *OTHER, *known, *sentinels)

    def ids(self, texts: Sequence[str], *, framed: bool = False) -> list[list[int]]:
        """Tokens of each text, around which none stand; what is no word is left out."""
        number = {word: i for i, word in enumerate(self.words)}
        return [[number[word] for word in text.split() if word in number] for text in texts]

    def encode(self, text: str) -> list[int]:
        """Tokens of a text."""
        return self.ids([text])[0]

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Texts of tokens, without ends; what is no word is left out."""
        known = range(1, len(self.words))
        return [" ".join(self.words[token] for token in row if token in known) for row in rows]

    def token_to_id(self, word: str) -> int | None:
        """The number of a word; None of one that there is not."""
        return self.words.index(word) if word in self.words else None

    def token(self, number: int) -> str:
        """A word by its number."""
        return self.words[number]
