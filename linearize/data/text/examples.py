"""Documents to examples of classification and of answers in words."""

from collections.abc import Sequence

import numpy as np

from linearize.data.records import DataError
from linearize.data.text import tokens as tokenizing
from linearize.data.text.documents import Documents
from linearize.data.text.packing import NOT_ASKED, padded
from linearize.data.text.tokens import Tokenizer, TooLong, Wrap, encoded, unknown
from linearize.examples import Examples
from linearize.fields import integer
from linearize.types import PyTree


def masked(rows: Sequence[np.ndarray], length: int, pad: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """What an encoder takes of rows of tokens: themselves, and which are no padding.

    Returns:
        ``tokens`` (N, length) int32 and ``mask`` (N, length) booleans.
    """
    sizes = np.array([len(row) for row in rows])
    return padded(rows, length, pad), np.arange(length) < sizes[:, None]


def classification(
    documents: Documents,
    tokenizer: Tokenizer,
    length: int,
    *,
    pad: int = 0,
    too_long: TooLong = "error",
    wrap: Wrap | None = None,
    vocabulary: int | None = None,
    types: bool = False,
) -> Examples:
    """Inputs ``(tokens (N, L), mask (N, L))`` and ``labels`` (N,) of the documents' classes.

    Args:
        documents: with labels.
        tokenizer: as in :func:`linearize.data.text.tokens.encoded`; so are ``too_long``, ``wrap``
            and ``vocabulary``.
        length: L, in tokens.
        pad: any token; the mask hides it.
        too_long: of a document of more tokens.
        wrap: a template.
        vocabulary: how many tokens the model has.
        types: whether token types ``(N, L)`` int32 are a third input: 1 of a pair's second text,
            which BERT was trained to be told.

    Raises:
        DataError: documents without labels, a tokenizer that does not tell types, and as
            :func:`encoded`.
    """
    if documents.labels is None:
        raise DataError("the documents have no labels; name the column that holds them")
    rows, kept, said = _kept(documents, tokenizer, length, too_long, wrap, vocabulary)
    inputs: PyTree = masked(rows, length, pad)
    if types:
        kinds = [tokenizing.types(tokenizer, *texts) for texts in said]
        inputs = (*inputs, padded(kinds, length, 0))
    return Examples(inputs, {"labels": documents.labels[kept]})


def answers(
    documents: Documents,
    tokenizer: Tokenizer,
    length: int,
    words: Sequence[str] | None = None,
    *,
    answer_length: int | None = None,
    start: int = 0,
    pad: int = 0,
    too_long: TooLong = "error",
    wrap: Wrap | None = None,
    vocabulary: int | None = None,
) -> Examples:
    """Sources and the answers to them, as an encoder–decoder learns them.

    Inputs are ``(tokens (N, L), mask (N, L), answer (N, A))``, where ``answer`` is the start token
    and then the answer's own but the last; ``labels`` (N, A) are the answer's tokens, -1 behind.

    Args:
        documents: the sources.
        tokenizer: of both; what it sets behind a text (T5's ``</s>``) ends the answer too.
        length: L, of sources.
        words: an answer a document; by default the name of its class.
        answer_length: A; the longest answer's where None.
        start: the decoder's first token, T5's padding.
        pad: any token.
        too_long: of sources; an answer that is too long is always refused.
        wrap: a template of sources.
        vocabulary: how many tokens the model has.

    Raises:
        DataError: neither labels nor words, an answer that is empty, too long or unknown to the
            vocabulary, two that are the same tokens, and as :func:`encoded`.
    """
    if words is None:
        if documents.labels is None:
            raise DataError("the documents have no labels; give each one's answer as words=")
        words = [documents.classes[label] for label in documents.labels]
    if len(words) != len(documents):
        raise DataError(f"words has {len(words)} answers for {len(documents)} documents")
    places = [f"the answer to {documents.place(row)}" for row in range(len(words))]
    said = Documents(words, places=places)
    rows, kept, _ = _kept(documents, tokenizer, length, too_long, wrap, vocabulary)
    spoken, _ = encoded(said.take(kept), tokenizer, vocabulary=vocabulary)
    _check_answers(said.take(kept), spoken, tokenizer)
    sizes = np.array([len(row) for row in spoken])
    answer_length = int(sizes.max()) if answer_length is None else answer_length
    if sizes.max() > answer_length:
        place = places[kept[int(sizes.argmax())]]
        raise DataError(
            f"{place} has {sizes.max()} tokens and length={answer_length}; raise answer_length"
        )
    shifted = [np.array([start, *row[:-1]], np.int32) for row in spoken]
    tokens, mask = masked(rows, length, pad)
    return Examples(
        (tokens, mask, padded(shifted, answer_length, pad)),
        {"labels": padded(spoken, answer_length, NOT_ASKED)},
    )


def _check_answers(said: Documents, spoken: list[np.ndarray], tokenizer: Tokenizer) -> None:
    """Other words are other tokens: what a vocabulary lacks could never be told apart."""
    lacking = unknown(tokenizer)
    known: dict[bytes, str] = {}
    for row, (word, tokens) in enumerate(zip(said.texts, spoken, strict=True)):
        if lacking is not None and lacking in tokens:
            raise DataError(
                f"{said.place(row)}, {word[:40]!r}, is unknown to the vocabulary; name another word"
            )
        other = known.setdefault(tokens.tobytes(), word)
        if other.strip() != word.strip():
            raise DataError(
                f"{said.place(row)}, {word[:40]!r}, is the tokens of the answer {other[:40]!r}; "
                "choose words that the vocabulary tells apart"
            )


def _kept(
    documents: Documents,
    tokenizer: Tokenizer,
    length: int,
    too_long: TooLong,
    wrap: Wrap | None,
    vocabulary: int | None,
) -> tuple[list[np.ndarray], np.ndarray, list[tuple[str, ...]]]:
    length = integer("length", length, low=1)
    rows, kept, said = tokenizing.read(
        documents, tokenizer, length=length, too_long=too_long, wrap=wrap, vocabulary=vocabulary
    )
    if not rows:
        raise DataError(f"no document has at most length={length} tokens; raise it")
    return rows, kept, said
