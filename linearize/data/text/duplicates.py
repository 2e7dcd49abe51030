"""Texts that are equal or nearly so: by content, then by shingles, every pair that there is."""

import functools
import math
import re
from collections.abc import Iterator, Sequence

import numpy as np
from scipy.sparse import csr_matrix

from linearize.data.split import name_keys

SHINGLE = 5
"""Characters of a shingle."""
THRESHOLD = 0.7
"""Share of two texts' shingles that they have in common (Jaccard) from which on they are linked."""
_CROWD = 32
"""Candidates of one text beyond which those alone are compared that nothing joins to it yet."""
_HELD = 1 << 14
"""Texts of which the shingles are held while pairs are compared."""
_PIECE = 512
_TABLE = 24
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
    share of their shingles in common. Nothing is drawn: whatever such pairs join, the links join,
    and the same texts in any order are joined alike.

    Args:
        texts: N strings.
        threshold: that share; 1 links equal texts alone.

    Returns:
        (P, 2) int32 row numbers, the smaller first: every pair, but that equal texts are linked
        through the first of them, and that of a text like more than 32 others a link is left out
        where other links join the two.
    """
    plain = [normalised(text) for text in texts]
    _, first, inverse = np.unique(name_keys(plain), return_index=True, return_inverse=True)
    rows = np.arange(len(plain))
    pairs = {(int(a), int(b)) for a, b in zip(first[inverse], rows, strict=True) if a < b}
    if threshold < 1 and len(first) > 1:
        pairs |= set(_alike(plain, first, threshold))
    return np.array(sorted(pairs), np.int32).reshape(-1, 2)


def _alike(plain: Sequence[str], rows: np.ndarray, threshold: float) -> Iterator[tuple[int, int]]:
    """Pairs of these rows, whose order is their contents' and not the documents'."""
    joined = np.arange(len(rows))

    @functools.lru_cache(maxsize=_HELD)
    def of(row: int) -> np.ndarray:
        return shingles(plain[rows[row]])

    for row, others in _candidates([plain[row] for row in rows], threshold):
        crowded = len(others) > _CROWD
        for other in others[joined[others] != joined[row]] if crowded else others:
            if crowded and joined[other] == joined[row]:
                continue
            if _jaccard(of(int(row)), of(int(other))) >= threshold:
                if joined[other] != joined[row]:
                    joined[joined == joined[other]] = joined[row]
                a, b = sorted((int(rows[row]), int(rows[other])))
                yield a, b


def _jaccard(a: np.ndarray, b: np.ndarray) -> float:
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / (len(a) + len(b) - common)


def _candidates(texts: Sequence[str], threshold: float) -> Iterator[tuple[int, np.ndarray]]:
    """Each row with larger ones that may be above the threshold; every pair that is, is once there.

    Two sets of a and b shingles above the threshold t have t (a + b) / (1 + t) or more in common,
    and at least ta and tb. Of each set the first ``a - ⌈ta⌉ + 1`` in one order of all shingles, the
    rarest first, are kept. What two sets have in common up to the earlier of the two last that are
    kept, is kept of both; beyond it the set whose last that is has ``⌈ta⌉ - 1`` left. (Prefix
    filtering: Bayardo, Ma and Srikant 2007.)
    """
    sizes, kept = _rarest(texts, threshold)
    bounds = np.cumsum([0, *map(len, kept)])
    _, column, often = np.unique(
        np.concatenate([*kept, np.zeros(0, np.uint64)]), return_inverse=True, return_counts=True
    )
    shared = often[column] > 1
    ends = np.concatenate([[0], np.cumsum(shared)])[bounds]
    shape = (len(texts), len(often))
    held = csr_matrix((np.ones(ends[-1], np.int32), column[shared], ends), shape=shape)
    left = sizes - np.array([len(each) for each in kept], np.int64)
    order = np.argsort(sizes, kind="stable")
    held, sizes, left = held[order], sizes[order], left[order]
    for start in range(0, len(order), _PIECE):
        largest = sizes[min(start + _PIECE, len(order)) - 1]
        stop = int(np.searchsorted(sizes, largest / max(threshold, 1e-9) + 1e-6, "right"))
        common = (held[start : start + _PIECE] @ held[start:stop].T).tocoo()
        later = common.col > common.row
        row, other = common.row[later] + start, common.col[later] + start
        most = np.minimum(common.data[later] + left[other], sizes[row])
        may = most > threshold / (1 + threshold) * (sizes[row] + sizes[other]) - 1e-6
        row, other = row[may], other[may]
        by_row = np.lexsort((other, row))
        names, begin = np.unique(row[by_row], return_index=True)
        for name, others in zip(names, np.split(other[by_row], begin[1:]), strict=False):
            yield int(order[name]), order[others]


def _rarest(texts: Sequence[str], threshold: float) -> tuple[np.ndarray, list[np.ndarray]]:
    """Numbers of shingles, (N,) int64; and those of each text that are kept, the rarest.

    Shingles are counted in a table by a part of their hash: any one order of all will do.
    """
    counts = np.zeros(1 << _TABLE, np.uint32)
    place = np.uint64(64 - _TABLE)
    for text in texts:
        counts[shingles(text) >> place] += 1
    sizes, kept = np.zeros(len(texts), np.int64), []
    for row, text in enumerate(texts):
        found = shingles(text)
        sizes[row] = len(found)
        most = len(found) - math.ceil(threshold * len(found) - 1e-6) + 1
        order = np.lexsort((found, counts[found >> place]))
        kept.append(found[order[:most]])
    return sizes, kept
