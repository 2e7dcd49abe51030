"""Train, validation and test by content: what looks alike stays together.

A row's place depends on a hash of its content (or of its group's name) and the seed, never on its
position in a file, so a data set that is re-ordered or extended splits alike.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from linearize.data.records import DataError

FRACTIONS = (0.7, 0.1, 0.2)
"""Default shares of train, validation and test."""

FREE, DROPPED = -1, -2


def name_keys(names: Sequence[str]) -> np.ndarray:
    """(N,) uint64: a hash of each string."""
    return _keys([name.encode() for name in names])


def content_keys(images: Sequence[np.ndarray]) -> np.ndarray:
    """(N,) uint64: a hash of each image's shape and bytes; equal images have equal keys."""
    return _keys([str(np.shape(x)).encode() + np.ascontiguousarray(x).tobytes() for x in images])


def _keys(contents: Sequence[bytes]) -> np.ndarray:
    digests = b"".join(hashlib.blake2b(content, digest_size=8).digest() for content in contents)
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def mix(keys: np.ndarray, seed: int) -> np.ndarray:
    """(N,) uint64: keys scattered anew by each seed (splitmix64's finaliser)."""
    golden = (0x9E3779B97F4A7C15 * (seed + 1)) % 2**64
    z = keys.astype(np.uint64) + np.uint64(golden)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def near_duplicates(thumbnails: np.ndarray, keys: np.ndarray, threshold: float) -> np.ndarray:
    """Pairs of images that are equal or nearly so.

    Two images are linked when their keys are equal, or when the root mean square difference of
    their thumbnails, as they are or one of them mirrored, is below the threshold.

    Args:
        thumbnails: (N, h, w, ...) uint8, small.
        keys: (N,) content keys.
        threshold: as a share of the full range 0..255; 0 links equal keys alone.

    Returns:
        (P, 2) int32 row numbers, the smaller first; images with equal keys are linked through the
        first of them.
    """
    rows = np.arange(len(keys))
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    pairs = [np.stack([first[inverse], rows])]
    if threshold > 0 and len(keys) > 1:
        scaled = thumbnails.astype(np.float32) / 255
        flat = scaled.reshape(len(keys), -1)
        pairs += _close_pairs(flat, flat, threshold)
        pairs += _close_pairs(scaled[:, :, ::-1].reshape(len(keys), -1), flat, threshold)
    low, high = np.sort(np.concatenate(pairs, axis=1), axis=0).astype(np.int64)
    codes = np.unique((low * len(keys) + high)[low < high])
    return np.stack([codes // len(keys), codes % len(keys)], 1).astype(np.int32)


def components(links: np.ndarray, n: int) -> np.ndarray:
    """(n,) int32 numbers of the components that the links (P, 2) join."""
    graph = coo_matrix((np.ones(len(links), bool), (links[:, 0], links[:, 1])), (n, n))
    return connected_components(graph, directed=False)[1].astype(np.int32)


def together(keys: np.ndarray, links: np.ndarray) -> np.ndarray:
    """(N,) uint64: the groups that the links (P, 2) join, each by the least of its keys."""
    joined = components(links, len(keys))
    groups = np.full(joined.max(initial=-1) + 1, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(groups, joined, keys)
    return groups[joined]


def _close_pairs(
    left: np.ndarray, right: np.ndarray, threshold: float, chunk: int = 1024
) -> list[np.ndarray]:
    """Pairs (2, P) of rows whose RMS difference is below the threshold.

    Means differ by less than the RMS does, so sorted by mean only a band needs comparing.
    """
    mean_left, mean_right = left.mean(1), right.mean(1)
    order_left, order_right = np.argsort(mean_left), np.argsort(mean_right)
    sorted_means = mean_right[order_right]
    one = np.ones((len(left), 1), np.float32)
    # One product gives |x|² - 2xy + |y|², so that no pass over all pairs is spent on sums.
    queries = np.hstack([-2 * left, np.sum(left**2, 1, keepdims=True), one])[order_left]
    stored = np.hstack([right, one, np.sum(right**2, 1, keepdims=True)])[order_right]
    bound = left.shape[1] * threshold**2
    found = []
    for start in range(0, len(left), chunk):
        rows = order_left[start : start + chunk]
        lo = np.searchsorted(sorted_means, mean_left[rows[0]] - threshold)
        hi = np.searchsorted(sorted_means, mean_left[rows[-1]] + threshold)
        i, j = np.nonzero(queries[start : start + chunk] @ stored[lo:hi].T < bound)
        found.append(np.stack([rows[i], order_right[lo + j]]))
    return found


def assign(
    labels: np.ndarray,
    groups: np.ndarray,
    links: np.ndarray,
    given: np.ndarray,
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
    *,
    chained: bool = False,
) -> np.ndarray:
    """The split of each row: 0 train, 1 validation, 2 test, or -2 where it is dropped.

    Whole groups are assigned, within strata of the rarest class that a group holds, in the order
    of their mixed keys. Where near-duplicates still lie in two splits (across named groups, or
    across splits that the source gives), the row in the earlier split is dropped.

    Args:
        labels: (N,) integers.
        groups: (N,) uint64 keys; rows of one group are never parted.
        links: (P, 2) near-duplicate pairs.
        given: (N,) 0, 1 or 2 where the source fixes the split, -1 elsewhere.
        fractions: shares of train, validation and test among the rows not given. Where the
            source gives some splits, the others share in proportion.
        seed: of the assignment.
        chained: whether rows count as near-duplicates that are linked through others only; where
            not, the links must name all pairs.

    Raises:
        DataError: fractions that are not three shares of 1.
    """
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise DataError(
            f"fractions={tuple(fractions)} must be three shares of train, validation and test "
            "that add up to 1"
        )
    split = np.array(given, np.int8)
    free = split == FREE
    if free.any():
        open_splits = [0] + [s for s in (1, 2) if not (given == s).any() and fractions[s] > 0]
        shares = np.array([fractions[s] if s in open_splits else 0.0 for s in range(3)])
        shares = shares / shares.sum() if shares.sum() else np.array([1.0, 0.0, 0.0])
        split[free] = _by_group(labels[free], groups[free], shares, seed)
    last = split.copy()
    if chained:
        joined = components(links, len(split))
        latest = np.full(joined.max(initial=-1) + 1, -1, split.dtype)
        np.maximum.at(latest, joined, split)
        last = latest[joined]
    else:
        np.maximum.at(last, links[:, 0], split[links[:, 1]])
        np.maximum.at(last, links[:, 1], split[links[:, 0]])
    split[split < last] = DROPPED
    return split


def _by_group(labels: np.ndarray, groups: np.ndarray, shares: np.ndarray, seed: int) -> np.ndarray:
    names, group = np.unique(groups, return_inverse=True)
    sizes = np.bincount(group)
    stratum = _rarest_class(labels, group)
    mixed = mix(names, seed)
    place = np.zeros(len(names), np.int8)
    for value in np.unique(stratum):
        members = np.flatnonzero(stratum == value)
        members = members[np.argsort(mixed[members])]
        place[members] = _cut(sizes[members], shares)
    return place[group]


def _rarest_class(labels: np.ndarray, group: np.ndarray) -> np.ndarray:
    """For each group, the class in it that the fewest groups hold."""
    classes = int(labels.max()) + 1
    group_of, label_of = np.divmod(np.unique(group * classes + labels), classes)
    spread = np.bincount(label_of)
    order = np.lexsort((label_of, spread[label_of], group_of))
    _, first = np.unique(group_of[order], return_index=True)
    return label_of[order][first]


def _cut(sizes: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Test, then validation, then train, along the cumulated sizes; none empty if avoidable."""
    middle = (np.cumsum(sizes) - sizes / 2) / sizes.sum()
    place = np.where(middle < shares[2], 2, np.where(middle < shares[2] + shares[1], 1, 0))
    wanted = [s for s in (0, 1, 2) if shares[s] > 0]
    if len(sizes) >= len(wanted):
        small = list(np.argsort(sizes, kind="stable"))
        for s in wanted:
            if not (place == s).any():
                counts = np.bincount(place, minlength=3)
                donor = next(g for g in small if counts[place[g]] > 1)
                place[donor] = s
    return place.astype(np.int8)


def stratified_order(labels: np.ndarray, keys: np.ndarray, seed: int) -> np.ndarray:
    """(N,) row numbers such that every prefix has the classes in proportion.

    The first example of every class comes first, so a prefix as long as the number of classes
    holds them all; a shorter prefix is contained in a longer one.
    """
    mixed = mix(keys, seed + 0x5EED)
    by_class = np.lexsort((mixed, labels))
    counts = np.bincount(labels)
    starts = np.cumsum(counts) - counts
    rank = np.empty(len(labels), np.int64)
    rank[by_class] = np.arange(len(labels)) - starts[labels[by_class]]
    position = np.where(rank == 0, -1.0, (rank + 0.5) / counts[labels])
    return np.lexsort((mixed, position))


def limited(
    labels: np.ndarray, keys: np.ndarray, seed: int, limit: int | None, what: str
) -> np.ndarray:
    """The rows of :func:`stratified_order`, at most ``limit`` of them.

    Raises:
        DataError: a limit below the number of classes.
    """
    order = stratified_order(labels, keys, seed)
    if limit is None:
        return order
    classes = len(np.unique(labels))
    if limit < classes:
        raise DataError(
            f"limit of {what} is {limit}, below the {classes} classes; raise it to {classes} or "
            "more so that each class is there"
        )
    return order[:limit]
