"""Language modelling: tokens in rows of one length, each with the token after it as its label.

Every function gives :class:`linearize.Examples` of ``tokens`` (N, L) int32 and ``labels`` (N, L)
int32, the token after each position, -1 where none is asked for: what a decoder takes and
:class:`linearize.objectives.CausalLM` measures. Padding stands behind, where a decoder's earlier
positions do not see it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from linearize.choices import one_of
from linearize.data.records import DataError
from linearize.data.text.tokens import TOO_LONG, TooLong
from linearize.examples import Examples
from linearize.fields import integer

NOT_ASKED = -1
"""The label of a position whose next token is not asked for."""

Rows = Sequence[np.ndarray]
"""(n,) int tokens of each document."""


def packed(rows: Rows, length: int, *, end: int | None = None, pad: int = 0) -> Examples:
    """Documents one after the other, cut into rows of ``length``: no position is wasted.

    Each token but the first of all is asked for exactly once. Rows do not say where a document
    begins: attention reaches from a document into those before it in its row.

    Args:
        rows: tokens of each document.
        length: L.
        end: a token that is set behind each document and asked for, such as
            ``<|endoftext|>``; the next document's first token is then asked for too, as in
            GPT-2's training. Where None, the first token of a document is not asked for, since
            nothing before it tells that a document begins.
        pad: any token, for what is left of the last row.

    Raises:
        DataError: no document, or nothing that could be asked for.
        ValueError: ``end`` or ``pad`` is no token, from 0.
    """
    length = integer("length", length, low=1)
    closing = [] if end is None else [integer("end", end, low=0)]
    pieces = [np.array([*row, *closing], np.int32) for row in _some(rows)]
    stream = np.concatenate(pieces)
    labels = np.append(stream[1:], NOT_ASKED)
    if end is None:
        labels[np.cumsum([len(piece) for piece in pieces]) - 1] = NOT_ASKED
    # the last token is never an input: nothing comes after it
    starts = range(0, max(len(stream) - 1, 1), length)
    return _examples(
        ((stream[s : s + length], labels[s : s + length]) for s in starts), length, pad
    )


def one_a_row(
    rows: Rows,
    length: int,
    *,
    end: int | None = None,
    pad: int = 0,
    too_long: TooLong = "error",
) -> Examples:
    """One document a row, padding behind it.

    Args:
        rows: tokens of each document.
        length: L.
        end: a token that is asked for after a document's last one.
        pad: any token; what stands there is not asked for.
        too_long: of a document of more than ``length`` tokens that would be inputs: ``"cut"``
            keeps its first ones, with the token after them as the last label.

    Raises:
        DataError: no document, one without anything to ask for, or one that is too long.
    """
    one_of("too_long", too_long, TOO_LONG, DataError)
    length = integer("length", length, low=1)
    end = None if end is None else integer("end", end, low=0)
    pairs = []
    for number, row in enumerate(_some(rows)):
        whole = np.asarray(row if end is None else [*row, end], np.int32)
        if len(whole) < 2:
            raise DataError(
                f"document {number} has {len(whole)} token and nothing after it to ask for; leave "
                "it out, or give the end token"
            )
        if len(whole) > length + 1:
            if too_long == "leave out":
                continue
            if too_long == "error":
                raise DataError(
                    f"document {number} has {len(whole) - 1} tokens that others follow and "
                    f"length={length}; raise it, pass too_long='cut' or 'leave out', or use packed"
                )
        pairs.append((whole[:-1][:length], whole[1:][:length]))
    if not pairs:
        raise DataError(f"no document has at most length={length} tokens; raise it")
    return _examples(pairs, length, pad)


def strided(rows: Rows, context: int, stride: int | None = None, *, pad: int = 0) -> Examples:
    """Overlapping windows along each document: every token is scored with much before it.

    The recipe by which perplexities of GPT-2 on WikiText-103 are usually given (context 1,024,
    stride 512, all text as one document: :func:`linearize.data.text.documents.joined`). A window
    begins ``stride`` tokens after the one before it, and asks only for what that did not score. A
    document's first token is never asked for. With a stride below the context each other token is
    asked for exactly once.

    Args:
        rows: tokens of each document.
        context: L.
        stride: tokens from one window's begin to the next one's; half the context where None.
            As large as the context, it is the disjoint recipe.
        pad: any token.

    Raises:
        DataError: no document, no token that can be scored, or a stride that is not in
            1..context.
    """
    context = integer("context", context, low=2)
    stride = context // 2 if stride is None else integer("stride", stride, low=1)
    if stride > context:
        raise DataError(
            f"stride={stride} is above context={context}, which would leave tokens out; give at "
            "most the context"
        )
    return _examples(
        (pair for row in _some(rows) for pair in _windows(row, context, stride)), context, pad
    )


def _windows(row: np.ndarray, context: int, stride: int) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    scored = 1  # tokens of the document that need no more asking: the first is never asked for
    for begin in range(0, len(row), stride):
        stop = min(begin + context, len(row))
        tokens = np.asarray(row[begin:stop], np.int32)
        labels = np.full(len(tokens), NOT_ASKED, np.int32)
        first = max(scored, begin + 1)
        labels[first - begin - 1 : stop - begin - 1] = row[first:stop]
        if first < stop:
            yield tokens, labels
        scored = stop
        if stop == len(row):
            return


def disjoint(rows: Rows, context: int, *, pad: int = 0) -> Examples:
    """Windows that do not overlap: quicker than :func:`strided`, and of higher perplexity.

    The first token of each window has nothing before it there and is not asked for.
    """
    return strided(rows, context, context, pad=pad)


WINDOWS: Mapping[str, Callable[..., Examples]] = {"strided": strided, "disjoint": disjoint}
"""Recipes for perplexity by name, each of rows and a context."""


def buckets(sizes: Sequence[int], lengths: Sequence[int]) -> dict[int, np.ndarray]:
    """Which documents go into rows of which length: each into the smallest that holds it.

    One compilation a length, and little padding. Lengths that nothing needs are left out.

    Args:
        sizes: tokens of each document.
        lengths: of the rows, in any order.

    Raises:
        DataError: a document that no length holds, or lengths that are not positive.

    >>> {length: rows.tolist() for length, rows in buckets([3, 9, 4], [4, 16]).items()}
    {4: [0, 2], 16: [1]}
    """
    bounds = np.unique([integer("lengths", length, low=1) for length in lengths])
    which = np.searchsorted(bounds, sizes)
    if len(beyond := np.flatnonzero(which == len(bounds))):
        raise DataError(
            f"document {beyond[0]} has {sizes[beyond[0]]} tokens and the longest row "
            f"{max(bounds, default=0)} ({len(beyond)} such documents); add a longer one, or cut"
        )
    return {int(bounds[b]): np.flatnonzero(which == b) for b in np.unique(which)}


def _some(rows: Rows) -> Rows:
    if not len(rows):
        raise DataError("there is no document to make rows of; give at least one")
    for number, row in enumerate(map(np.asarray, rows)):
        if row.size and (row.ndim != 1 or row.dtype.kind not in "iu" or row.min() < 0):
            raise DataError(
                f"document {number} is {row.dtype}{row.shape}, from {row.min()}; expected numbers "
                "of tokens, (n,) integers from 0"
            )
    return rows


def _examples(pairs: Iterable[tuple[np.ndarray, np.ndarray]], length: int, pad: int) -> Examples:
    """Pieces of tokens and labels as rows of one length."""
    pad = integer("pad", pad, low=0)
    both = list(pairs)
    labels = padded([asked for _, asked in both], length, NOT_ASKED)
    if not (labels >= 0).any():
        raise DataError("no token follows another: there is nothing to ask for; give longer texts")
    return Examples(padded([tokens for tokens, _ in both], length, pad), {"labels": labels})


def padded(rows: Rows, length: int, pad: int) -> np.ndarray:
    """(N, length) int32: the rows, and ``pad`` behind each."""
    table = np.full((len(rows), length), pad, np.int32)
    for row, values in zip(table, rows, strict=True):
        row[: len(values)] = values
    return table
