"""Span corruption: what an encoder–decoder learns of text alone.

Spans of a text are each replaced by a sentinel, and the answer says what stood there: T5's
objective (Raffel et al. 2020, arXiv 1910.10683, §3.1.4), spans drawn as in T5's own
``random_spans_noise_mask``.
"""

from collections.abc import Sequence

import numpy as np

from linearize.data.records import DataError
from linearize.data.text.examples import masked
from linearize.data.text.packing import NOT_ASKED, Rows, padded
from linearize.examples import Examples
from linearize.fields import integer


def corrupted(
    rows: Rows,
    length: int,
    sentinels: Sequence[int],
    *,
    end: int,
    start: int = 0,
    pad: int = 0,
    density: float = 0.15,
    span: float = 3.0,
    seed: int = 0,
) -> Examples:
    """Texts without some spans, and these spans as the answers.

    Inputs are ``(tokens (N, L), mask (N, L), answer (N, A))`` and ``labels`` (N, A), as of
    :func:`linearize.data.text.answers`; A is what L tokens may need, whatever the documents are. A
    text begins with what is kept and ends with a span.

    Args:
        rows: (n,) tokens of each document, without an end; longer ones are cut into pieces. A last
            piece of one token is left out, since nothing of it could be kept.
        length: L.
        sentinels: tokens that stand for the first span, the second, and so on.
        end: the token that ends text and answer.
        start: the decoder's first token.
        pad: any token.
        density: share of the tokens that are taken out.
        span: mean length of a span.
        seed: of the draw; a document's spans depend on its place among the rows too.

    Raises:
        DataError: no piece of two tokens or more, too few sentinels or one twice, a token that is
            one, or numbers out of range.
        ValueError: a length or a seed that is none.
    """
    length, seed = integer("length", length, low=3), integer("seed", seed, low=0)
    if not 0 < density < 1 or not span >= 1:
        raise DataError(
            f"density={density}, span={span}; expected a share in (0, 1), and 1 or more"
        )
    known, texts, spoken = {*map(int, sentinels)}, [], []
    if len(known) < len(sentinels) or known & {start, end}:
        raise DataError(
            f"sentinels={list(sentinels)!r:.80}; expected tokens, each once, and neither start nor "
            "end"
        )
    for number, row in enumerate(rows):
        rng = np.random.default_rng([seed, number])
        if taken := sorted(known.intersection(np.asarray(row).tolist())):
            raise DataError(f"document {number} holds the token {taken[0]}, which is a sentinel")
        for begin in range(0, len(row), length - 1):
            piece = np.asarray(row[begin : begin + length - 1], np.int32)
            if len(piece) > 1:
                text, answer = _split(piece, _spans(len(piece), density, span, rng), sentinels)
                texts.append(np.append(text, np.int32(end)))
                spoken.append(np.append(answer, np.int32(end)))
    if not texts:
        raise DataError("no document has two tokens, one to keep and one to take out")
    tokens, mask = masked(texts, length, pad)
    width = sum(_counts(length - 1, density, span)) + 1
    shifted = [np.array([start, *row[:-1]], np.int32) for row in spoken]
    return Examples(
        (tokens, mask, padded(shifted, width, pad)),
        {"labels": padded(spoken, width, NOT_ASKED)},
    )


def _spans(n: int, density: float, span: float, rng: np.random.Generator) -> np.ndarray:
    """(K, 2) lengths that sum to n: of what is kept, and of the span taken out behind it."""
    noise, count = _counts(n, density, span)

    def parts(whole: int) -> np.ndarray:
        cuts = np.sort(rng.permutation(whole - 1)[: count - 1]) + 1
        return np.diff([0, *cuts, whole])

    return np.stack([parts(n - noise), parts(noise)], -1)


def _counts(n: int, density: float, span: float) -> tuple[int, int]:
    """How many of n tokens are taken out, in how many spans; neither falls as n grows."""
    noise = min(max(round(n * density), 1), n - 1)
    return noise, min(max(round(noise / span), 1), noise, n - noise)


def _split(
    piece: np.ndarray, spans: np.ndarray, sentinels: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    if len(spans) > len(sentinels):
        raise DataError(
            f"a text of {len(piece)} tokens has {len(spans)} spans and there are {len(sentinels)} "
            "sentinels; give more, or shorten length"
        )
    text: list[int] = []
    answer: list[int] = []
    begin = 0
    for (kept, taken), sentinel in zip(spans.tolist(), sentinels, strict=False):
        middle, stop = begin + kept, begin + kept + taken
        text += [*piece[begin:middle].tolist(), sentinel]
        answer += [sentinel, *piece[middle:stop].tolist()]
        begin = stop
    return np.array(text, np.int32), np.array(answer, np.int32)
