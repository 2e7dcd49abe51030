"""Texts that are equal or nearly so: by content, then by shingles, found through minhash."""

import itertools
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from linearize.data.split import name_keys

SHINGLE = 5
"""Characters of a shingle."""
THRESHOLD = 0.7
"""Share of two texts' shingles that they have in common (Jaccard) from which on they are linked."""
_HASHES, _ROWS = 64, 4
"""Minima that are kept of a text, and how many must agree in a band of them: at the threshold a
pair is found with probability 1 - (1 - 0.7⁴)¹⁶ = 0.988, at 0.8 with 0.9998."""
_CROWD = 32
"""Texts in one bucket beyond which each is compared with the first and the next alone."""
_PIECE = 1024
_WORD = re.compile(r"\w+")


def normalised(text: str) -> str:
    """A text without capitals, punctuation and white space; itself where nothing else is in it.

    >>> normalised("  Great film -- GREAT!"), normalised(":-)")
    ('great film great', ':-)')
    """
    return " ".join(_WORD.findall(text.casefold())) or text.strip()


def shingles(text: str) -> np.ndarray:
    """(n,) uint64: hashes of the different runs of :data:`SHINGLE` characters, sorted."""
    letters = np.frombuffer(text.encode("utf-32-le"), "<u4").astype(np.uint64)
    letters = np.pad(letters, (0, max(0, SHINGLE - len(letters))))
    count = len(letters) - SHINGLE + 1
    mixed = np.zeros(count, np.uint64)
    for i in range(SHINGLE):
        mixed = mixed * np.uint64(0x100000001B3) + letters[i : i + count]
    return np.unique(mixed * np.uint64(0x9E3779B97F4A7C15))


def near_duplicates(texts: Sequence[str], threshold: float = THRESHOLD) -> np.ndarray:
    """Pairs of texts that are equal or nearly so.

    Texts are linked that are equal without capitals, punctuation and white space, or that have a
    share of their shingles in common. The same texts give the same pairs, in any order.

    Args:
        texts: N strings.
        threshold: that share; 1 links equal texts alone.

    Returns:
        (P, 2) int32 row numbers, the smaller first; equal texts are linked through the first of
        them.
    """
    plain = [normalised(text) for text in texts]
    _, first, inverse = np.unique(name_keys(plain), return_index=True, return_inverse=True)
    rows = np.arange(len(plain))
    pairs = {(int(a), int(b)) for a, b in zip(first[inverse], rows, strict=True) if a < b}
    if threshold < 1:
        pairs |= set(_alike(plain, first, threshold))
    return np.array(sorted(pairs), np.int32).reshape(-1, 2)


def _alike(plain: Sequence[str], rows: np.ndarray, threshold: float) -> Iterator[tuple[int, int]]:
    """Pairs of these rows, whose order is their contents' and not the documents'."""
    minima = _minima([plain[row] for row in rows])
    tried: set[tuple[int, int]] = set()
    sets: dict[int, np.ndarray] = {}
    for band in range(0, _HASHES, _ROWS):
        buckets = defaultdict(list)
        for row, key in zip(rows.tolist(), minima[:, band : band + _ROWS], strict=True):
            buckets[key.tobytes()].append(row)
        for crowd in buckets.values():
            for pair in _pairs(crowd):
                if pair in tried:
                    continue
                tried.add(pair)
                a, b = (sets.setdefault(row, shingles(plain[row])) for row in pair)
                if _jaccard(a, b) >= threshold:
                    yield min(pair), max(pair)


def _pairs(crowd: Sequence[int]) -> Iterator[tuple[int, int]]:
    if len(crowd) <= _CROWD:
        return itertools.combinations(crowd, 2)
    return itertools.chain(((crowd[0], row) for row in crowd[1:]), itertools.pairwise(crowd))


def _jaccard(a: np.ndarray, b: np.ndarray) -> float:
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / (len(a) + len(b) - common)


def _minima(texts: Sequence[str]) -> np.ndarray:
    """(N, hashes) uint32: the least value of each hash over a text's shingles."""
    draw = np.random.default_rng(0)
    factor, term = draw.integers(1 << 32, size=(2, _HASHES, 1), dtype=np.uint32)
    factor |= np.uint32(1)
    found = np.full((len(texts), _HASHES), np.iinfo(np.uint32).max, np.uint32)
    for row, text in zip(found, texts, strict=True):
        whole = (shingles(text) >> np.uint64(32)).astype(np.uint32)
        for start in range(0, len(whole), _PIECE):
            mixed = factor * whole[start : start + _PIECE]
            mixed += term
            np.minimum(row, mixed.min(1), out=row)
    return found
