"""Texts to token numbers, with any tokenizer; what is too long is refused, cut or left out."""

import logging
from collections.abc import Callable
from typing import Any, Literal, Protocol

import numpy as np

from linearize.choices import one_of
from linearize.data.records import DataError
from linearize.data.text.documents import Documents
from linearize.fields import integer

log = logging.getLogger(__name__)

TooLong = Literal["error", "cut", "leave out"]
"""What becomes of a document of more tokens than there is room for."""

TOO_LONG: tuple[TooLong, ...] = ("error", "cut", "leave out")

Wrap = Callable[[str, str | None], str]
"""A text, and the second one of a pair or None, in a template."""


class Tokenizer(Protocol):
    """What makes tokens: those of ``tokenizers`` and of transformers, and this library's, which
    keep the former as ``backend``.
    """

    def encode(self, text: Any, /) -> Any:
        """Numbers of a text's tokens, or an object that has them as ``ids``; of a pair, where it is
        given a second text. Special tokens are those that the model wants around a text.
        """
        ...


def ids(tokenizer: Tokenizer, *texts: str) -> np.ndarray:
    """(n,) int32 tokens of a text, or of a pair of texts.

    Raises:
        DataError: the tokenizer gives anything but one list of numbers, or pads or truncates by
            itself.
    """
    found = _backend(tokenizer).encode(*texts)
    tokens = np.asarray(getattr(found, "ids", found))
    if tokens.ndim != 1 or (tokens.size and tokens.dtype.kind not in "iu"):
        raise DataError(
            f"{type(tokenizer).__name__}.encode gives {tokens.dtype}{tokens.shape}; expected the "
            "numbers of one text's tokens"
        )
    return tokens.astype(np.int32)


def types(tokenizer: Tokenizer, *texts: str) -> np.ndarray:
    """(n,) int32, of each token of :func:`ids`, which text of a pair it is of, as BERT is told.

    Raises:
        DataError: the tokenizer does not tell it.
    """
    backend = _backend(tokenizer)
    if callable(backend):  # transformers'
        found = backend(*texts).get("token_type_ids")
    else:
        found = getattr(backend.encode(*texts), "type_ids", None)
    if found is None:
        raise DataError(
            f"{type(tokenizer).__name__} tells no token types; read the model without them: "
            "types=False"
        )
    return np.asarray(found, np.int32)


def _backend(tokenizer: Tokenizer) -> Any:
    backend = getattr(tokenizer, "backend", tokenizer)
    if isinstance(backend, str):  # transformers 5 names its library
        return tokenizer
    ways = ("padding", "truncation")
    own = [how for how in ways if isinstance(getattr(backend, how, None), dict)]
    if own:  # as the file of a tokenizers.Tokenizer may say
        raise DataError(
            f"the tokenizer's own {' and '.join(own)} would make words of padding, or cut texts in "
            f"silence; call {' and '.join(f'no_{how}()' for how in own)} of it first"
        )
    return backend


def unknown(tokenizer: Tokenizer) -> int | None:
    """The token of what the vocabulary lacks, where the tokenizer says it."""
    special = getattr(tokenizer, "special", None)
    return getattr(tokenizer, "unk_token_id", None) if special is None else special.get("unk")


def encoded(
    documents: Documents,
    tokenizer: Tokenizer,
    *,
    length: int | None = None,
    too_long: TooLong = "error",
    wrap: Wrap | None = None,
    vocabulary: int | None = None,
) -> tuple[list[np.ndarray], np.ndarray]:
    """Each document's tokens.

    Args:
        documents: what to encode; both texts of a pair at once.
        tokenizer: anything with ``encode``.
        length: most tokens a document; None sets no bound.
        too_long: ``"error"`` refuses a longer one; ``"cut"`` shortens its text (the longer of a
            pair's) from the end until it fits, so that special tokens and the template stay;
            ``"leave out"`` drops it.
        wrap: the template; encodes ``wrap(text, pair)`` as one text.
        vocabulary: how many tokens the model has.

    Returns:
        (n,) int32 tokens of each document that is kept, and the (M,) row numbers of these.

    Raises:
        DataError: a document that is too long, that no cutting makes fit, that has no token, or
            that has one which the vocabulary lacks; with its place.
    """
    rows, kept, _ = read(
        documents, tokenizer, length=length, too_long=too_long, wrap=wrap, vocabulary=vocabulary
    )
    return rows, kept


def read(
    documents: Documents,
    tokenizer: Tokenizer,
    *,
    length: int | None = None,
    too_long: TooLong = "error",
    wrap: Wrap | None = None,
    vocabulary: int | None = None,
) -> tuple[list[np.ndarray], np.ndarray, list[tuple[str, ...]]]:
    """What :func:`encoded` returns, and of which text or pair each row's tokens are.

    Raises:
        DataError: likewise.
    """
    one_of("too_long", too_long, TOO_LONG, DataError)
    if length is not None:
        length = integer("length", length, low=1)
    rows, kept, said, cut = [], [], list[tuple[str, ...]](), 0
    for row, text in enumerate(documents.texts):
        pair = None if documents.pairs is None else documents.pairs[row]
        whole = _wrapped(text, pair, wrap)
        tokens = ids(tokenizer, *whole)
        place = documents.place(row)
        if length is not None and len(tokens) > length:
            if too_long == "error":
                raise DataError(
                    f"{place} has {len(tokens)} tokens and length={length}; raise it, or pass "
                    "too_long='cut' or 'leave out'"
                )
            if too_long == "leave out":
                continue
            tokens, whole = _cut(tokenizer, text, pair, wrap, length, place)
            cut += 1
        own = (text,) if pair is None else (text, pair)
        if wordless := own if not len(tokens) else [x for x in own if _wordless(tokenizer, x)]:
            raise DataError(f"{place} has no token: {wordless[0][:40]!r}; leave it out")
        _check_vocabulary(tokens, vocabulary, place)
        rows.append(tokens)
        kept.append(row)
        said.append(whole)
    if cut or len(kept) < len(documents):
        log.warning(
            "%d of %d documents have more than %d tokens: %s",
            cut or len(documents) - len(kept), len(documents), length,
            "cut" if cut else "left out",
        )  # fmt: skip
    return rows, np.array(kept, int), said


def _wordless(tokenizer: Tokenizer, text: str) -> bool:
    """Whether a text has no token of its own; letters and digits always have one."""
    return not any(map(str.isalnum, text)) and len(ids(tokenizer, text)) <= len(ids(tokenizer, ""))


def _check_vocabulary(tokens: np.ndarray, vocabulary: int | None, place: str) -> None:
    least, most = tokens.min(), tokens.max()
    if least < 0 or (vocabulary is not None and most >= vocabulary):
        bad = most if least >= 0 else least
        known = "" if vocabulary is None else f" and the model has 0 to {vocabulary - 1}"
        raise DataError(
            f"{place} has the token {bad}{known}: the tokenizer is another model's; take the one "
            "beside the weights"
        )


def _wrapped(text: str, pair: str | None, wrap: Wrap | None) -> tuple[str, ...]:
    """What the tokenizer is given."""
    if wrap is not None:
        return (wrap(text, pair),)
    return (text,) if pair is None else (text, pair)


def _cut(
    tokenizer: Tokenizer, text: str, pair: str | None, wrap: Wrap | None, length: int, place: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Tokens of the most characters that fit, and these; of a pair the longer gives way first.

    Of each text something is kept that has a token.
    """
    total = len(text) + len(pair or "")

    def shortened(characters: int) -> tuple[str, str | None]:
        if pair is None:
            return text[:characters], None
        short = min(len(text), len(pair), characters // 2)
        rest = characters - short
        return (
            (text[:short], pair[:rest]) if len(text) <= len(pair) else (text[:rest], pair[:short])
        )

    def tried(characters: int) -> tuple[np.ndarray, tuple[str, ...]] | None:
        whole = _wrapped(*shortened(characters), wrap)
        tokens = ids(tokenizer, *whole)
        return (tokens, whole) if len(tokens) <= length else None

    fits, too_many, best = 0 if pair is None else 1, total, None
    guess = min(total - 1, 4 * length)
    while too_many - fits > 1:
        if (found := tried(guess)) is None:
            too_many = guess
        else:
            fits, best = guess, found
        guess = (fits + too_many) // 2
        if fits:  # a long text is not encoded whole again
            guess = min(guess, 2 * fits)
    kept = [own for own in shortened(fits) if own is not None]
    if best is None or any(_wordless(tokenizer, own) for own in kept):
        raise DataError(
            f"{place} has no room for any of its text in length={length}: special tokens and the "
            "template take it; raise it"
        )
    return best
