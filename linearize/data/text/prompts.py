"""Prompts: a template around a text or a pair, and a label word for each class.

Those of *A Kernel-Based View of Language Model Fine-Tuning* (Malladi et al. 2023), whose pieces are
tokenised one by one and cut as in its code, and a user's own.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np

from linearize.choices import one_of
from linearize.data.records import DataError
from linearize.data.text.documents import Documents
from linearize.data.text.packing import padded

Cut = Literal["texts", "tail"]
CUTS: tuple[Cut, ...] = ("texts", "tail")

_FIELD = re.compile(r"( ?)\{([^{}]*)\}")
_WAYS = {
    "stem": lambda text: text[:-1],
    "lower": lambda text: text[:1].lower() + text[1:],
}
"""What may stand behind a text's name: without its last character (its full stop); with its first
letter in lower case."""


class Words(Protocol):
    """What makes tokens: :class:`linearize.models.language.LanguageTokenizer` does."""

    special: Mapping[str, int]

    def ids(self, texts: Sequence[str], *, framed: bool = False) -> list[list[int]]:
        """The tokens of each text, with those around it where ``framed``."""
        ...


@dataclass(frozen=True)
class Prompt:
    """How a task asks, and how its classes answer.

    A template holds ``{text}`` once, of pairs ``{pair}``, and ``{mask}`` once: where a masked
    model is asked, or after which a decoder goes on. ``{text.stem}`` leaves the text's last
    character out, ``{pair.lower}`` begins in lower case. A space before a text is the text's; one
    before the mask is nobody's, for the label words bring it.

    Attributes:
        template: as above.
        words: a label word a class, as they stand in a sentence.
        limits: most tokens of the text, and of the second one of a pair; None sets no bound.
        length: L, most tokens of the whole; None where the caller says.
        classes: the classes' names in the words' order; where it is empty, the words are in the
            order of the documents' classes.
        numbered: whether the classes' published numbers are in that order too, so that labels 0, 1,
            ... of a file are these.

    Raises:
        DataError: a template without its text or mask, or with what it does not know.

    >>> Prompt("{text} It was {mask}.", ("terrible", "great")).pieces
    (('text', '', ()), ' It was', ('mask', '', ()), '.')
    """

    template: str
    words: tuple[str, ...]
    limits: tuple[int | None, int | None] = (None, None)
    length: int | None = None
    classes: tuple[str, ...] = ()
    numbered: bool = False

    def __post_init__(self) -> None:
        names = [piece[0] for piece in self.pieces if isinstance(piece, tuple)]
        for name, needed in (("text", True), ("mask", True), ("pair", False)):
            if names.count(name) > 1 or (needed and name not in names):
                raise DataError(
                    f"template {self.template!r} holds {{{name}}} {names.count(name)} times; "
                    "expected once"
                )
        if len(self.words) < 2 or len(set(self.words)) < len(self.words):
            raise DataError(f"words={self.words}; expected two or more, each of one class")
        if self.classes and len(self.classes) != len(self.words):
            raise DataError(f"classes={self.classes} and words={self.words}; one each")

    @cached_property
    def pieces(self) -> tuple[str | tuple[str, str, tuple[str, ...]], ...]:
        """Words of the template, and (name, space before, ways) of what is filled in."""
        found: list[Any] = []
        end = 0
        for match in _FIELD.finditer(self.template):
            name, *ways = match[2].split(".")
            if name not in ("text", "pair", "mask") or any(way not in _WAYS for way in ways):
                raise DataError(
                    f"template {self.template!r} holds {match[0].strip()}; there are {{text}}, "
                    f"{{pair}} and {{mask}}, and behind a text's name .{' and .'.join(_WAYS)}"
                )
            found.append(self.template[end : match.start()])
            found.append((name, "" if name == "mask" else match[1], tuple(ways)))
            end = match.end()
        found.append(self.template[end:])
        return tuple(piece for piece in found if piece)

    def words_for(self, classes: Sequence[str]) -> tuple[str, ...]:
        """The label words in the order of a data set's classes.

        Classes that are called 0, 1, ... are in the prompt's order where ``numbered``.

        Raises:
            DataError: the prompt has other classes, or another number of them, or they are numbers
                of which it does not know the order.

        >>> KLM["rte"].words_for(("entailment", "not_entailment"))
        ('Yes', 'No')
        """
        given = tuple(classes)
        numbers = given == tuple(map(str, range(len(self.words))))
        if self.classes and numbers and not self.numbered:
            raise DataError(
                f"the classes are {given}, and which number is which of {self.classes} is not told "
                f"of {self.template!r}; write these names in place of the numbers"
            )
        if self.classes and not numbers:
            if sorted(given) != sorted(self.classes):
                raise DataError(
                    f"the classes are {given}, and {self.template!r} has words for {self.classes}; "
                    "name a prompt's classes as the data do"
                )
            return tuple(self.words[self.classes.index(name)] for name in given)
        if len(given) != len(self.words):
            raise DataError(f"{len(given)} classes {given} for the words {self.words}; one each")
        return self.words

    @property
    def of_pairs(self) -> bool:
        """Whether a second text is filled in."""
        return any(isinstance(piece, tuple) and piece[0] == "pair" for piece in self.pieces)

    def encode(
        self,
        documents: Documents,
        tokenizer: Words,
        length: int | None = None,
        *,
        masked: bool,
        cut: Cut = "texts",
        pad: int | None = None,
    ) -> tuple[np.ndarray, ...]:
        """Tokens, and where the answer is asked: the inputs of label words' models.

        Args:
            documents: texts, or pairs of them.
            tokenizer: the model's.
            length: L; the prompt's own by default.
            masked: whether the model is a masked one, in whose prompts the mask token stands and
                which its own tokens begin and end; a decoder's begin alike and end before the mask.
            cut: of what is too long once ``limits`` are applied: ``"texts"`` shortens the longer
                text from its end, so that the template stays; ``"tail"`` drops what is behind,
                the closing token too, as the paper's code.
            pad: the token behind; the tokenizer's by default.

        Returns:
            ``(tokens, mask, at)`` of a masked model, ``(tokens, at)`` of a decoder: (N, L) int32,
            (N, L) booleans, (N,) int32; ``at`` is the mask's place, or the last token's. A prompt
            is one text, of a pair too: all its token types are 0, which BERT takes by itself.

        Raises:
            DataError: no length; pairs where the template has none, or the other way round; a
                tokenizer without a mask token; a decoder's prompt that asks before its text; and
                documents without a token, or of which the cut leaves no mask or no text, with
                their places.
        """
        one_of("cut", cut, CUTS, DataError)
        length = self.length if length is None else length
        if length is None or length < 2:
            raise DataError(f"length={length}; give the most tokens of a prompt, 2 or more")
        if self.of_pairs != (documents.pairs is not None):
            raise DataError(
                f"template {self.template!r} is of {'pairs' if self.of_pairs else 'single texts'}, "
                f"and the documents are {'not' if self.of_pairs else 'pairs'}"
            )
        parts = self._parts(masked)
        filled = [self._filled(part, documents, tokenizer) for part in parts]
        begin, end = frame(tokenizer)
        end = end if masked else []  # behind it a decoder would go on to another text
        texts = [i for i, part in enumerate(parts) if isinstance(part, tuple) and part[0] != "mask"]
        (asked,) = [i for i, p in enumerate(parts) if isinstance(p, tuple) and p[0] == "mask"] or [
            len(parts)
        ]
        rows, places = [], []
        for n in range(len(documents)):
            own = [list(piece[n]) for piece in filled]
            if wordless := [i for i in texts if not own[i]]:
                name = parts[wordless[0]][0]
                raise DataError(f"{documents.place(n)} has no token: its {name}; leave it out")
            for i in texts:
                limit = self.limits[parts[i][0] == "pair"]
                own[i] = own[i][:limit]
            over = len(begin) + len(end) + sum(map(len, own)) - length
            if cut == "texts":
                _shorten(own, texts, over, documents.place(n), length)
            row = [*begin, *(token for piece in own for token in piece), *end][:length]
            at = len(begin) + sum(map(len, own[:asked])) - (not masked)
            if at >= len(row):
                raise DataError(
                    f"{documents.place(n)}: the mask is behind length={length} tokens; raise it, "
                    "set limits, or pass cut='texts'"
                )
            rows.append(np.array(row, np.int32))
            places.append(at)
        where = np.array(places, np.int32)
        special = tokenizer.special
        behind = special.get("pad", special.get("eos", 0)) if pad is None else pad
        tokens = padded(rows, length, behind)
        if not masked:
            return tokens, where
        sizes = np.array([len(row) for row in rows])
        return tokens, np.arange(length) < sizes[:, None], where

    def _parts(self, masked: bool) -> list[Any]:
        if masked:
            return list(self.pieces)
        names = [piece[0] if isinstance(piece, tuple) else "" for piece in self.pieces]
        before = list(self.pieces[: names.index("mask")])
        if any(name in ("text", "pair") for name in names[names.index("mask") :]):
            raise DataError(
                f"template {self.template!r} asks before it has read all; a decoder's ends with "
                "{mask}"
            )
        if before and isinstance(before[-1], str):  # the answer brings the space
            before[-1] = before[-1].rstrip(" ")
        return [part for part in before if part]

    def _filled(self, part: Any, documents: Documents, tokenizer: Words) -> list[list[int]]:
        """The tokens of a piece in every document."""
        if isinstance(part, str):
            return tokenizer.ids([part]) * len(documents)
        name, space, ways = part
        if name == "mask":
            if "mask" not in tokenizer.special:
                raise DataError(
                    "the tokenizer has no mask token; take that of a masked language model, or "
                    "masked=False of a decoder"
                )
            return [[tokenizer.special["mask"]]] * len(documents)
        texts = documents.texts if name == "text" else documents.pairs or ()
        for way in ways:
            texts = [_WAYS[way](text) for text in texts]
        return tokenizer.ids([space + text for text in texts])


def frame(tokenizer: Words) -> tuple[list[int], list[int]]:
    """The tokens that stand before and behind a text.

    Raises:
        DataError: they change the text's own.
    """
    (plain,), (framed,) = tokenizer.ids(["a"]), tokenizer.ids(["a"], framed=True)
    for start in range(len(framed) - len(plain) + 1):
        if framed[start : start + len(plain)] == plain:
            return framed[:start], framed[start + len(plain) :]
    raise DataError(f"the tokenizer makes {framed} of 'a' framed, and {plain} alone")


def _shorten(
    own: list[list[int]], texts: Sequence[int], over: int, place: str, length: int
) -> None:
    """Take ``over`` tokens from the ends of the texts, always of the longest."""
    for _ in range(max(0, over)):
        longest = max(texts, key=lambda i: len(own[i]))
        if len(own[longest]) < 2:
            raise DataError(
                f"{place}: the template leaves no token of length={length} to the text; raise it"
            )
        own[longest].pop()


_IT_WAS = "{text} It was {mask}."
_THIS_IS = "{text} This is {mask}."
_ENTAILS = "{text.stem}? {mask}, {pair.lower}"
_SAME = "{text}{mask}, {pair.lower}"
_GOOD, _YES, _INFER = ("terrible", "great"), ("No", "Yes"), ("No", "Maybe", "Yes")
_SENTIMENT = ("negative", "positive")
_SHADES = ("very negative", "negative", "neutral", "positive", "very positive")
_INFERRED = ("contradiction", "neutral", "entailment")
_ENTAILED = ("not_entailment", "entailment")
_LONG, _FIRST, _BOTH = (240, None), (110, None), (110, 50)
_NONE = (None, None)

KLM: Mapping[str, Prompt] = {
    "sst2": Prompt(_IT_WAS, _GOOD, _NONE, 128, _SENTIMENT, True),
    "sst5": Prompt(
        _IT_WAS, ("terrible", "bad", "okay", "good", "great"), _NONE, 128, _SHADES, True
    ),
    "mr": Prompt(_IT_WAS, _GOOD, _BOTH, 128, _SENTIMENT, True),
    "cr": Prompt(_IT_WAS, _GOOD, _BOTH, 128, _SENTIMENT, True),
    "mpqa": Prompt(_IT_WAS, _GOOD, _FIRST, 128, _SENTIMENT, True),
    "subj": Prompt(_THIS_IS, ("subjective", "objective"), _BOTH, 128, ("subjective", "objective")),
    "trec": Prompt(
        "{mask}: {text}",
        ("Description", "Entity", "Expression", "Human", "Location", "Number"),
        _FIRST,
        128,
        ("DESC", "ENTY", "ABBR", "HUM", "LOC", "NUM"),
    ),
    "ag_news": Prompt(
        "{text} This article is about {mask} news.",
        ("world", "sports", "business", "tech"),
        _LONG,
        256,
        ("World", "Sports", "Business", "Sci/Tech"),
        True,
    ),
    "mnli": Prompt(_ENTAILS, _INFER, _LONG, 256, _INFERRED),
    "snli": Prompt(_ENTAILS, _INFER, _NONE, 256, _INFERRED),
    "qnli": Prompt(_ENTAILS, _YES, _NONE, 128, _ENTAILED),
    "rte": Prompt(_ENTAILS, _YES, _LONG, 256, _ENTAILED),
    "mrpc": Prompt(_SAME, _YES, _NONE, 128, ("not_equivalent", "equivalent"), True),
    "qqp": Prompt(_SAME, _YES, _NONE, 128, ("not_duplicate", "duplicate"), True),
    "cola": Prompt(
        _THIS_IS, ("incorrect", "correct"), _NONE, 128, ("unacceptable", "acceptable"), True
    ),
}
"""The paper's tasks, as its code asks them (``run_fewshot.sh``): template, label words, limits and
length, to be cut by the ``"tail"``; classes as TFDS calls them, and so in whatever order it has.
Numbers are refused where publishers have another order than the paper, or several."""
