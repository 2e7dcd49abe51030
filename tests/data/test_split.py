"""Splits by content: whole groups, every class, no twins across, the order of rows no matter."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linearize.data import DataError, split

SEEDS = st.integers(0, 5)


@st.composite
def grouped(draw):
    """Labels, group keys and links of up to 120 rows, groups holding one or more classes."""
    n = draw(st.integers(1, 120))
    generator = np.random.default_rng(draw(st.integers(0, 10**6)))
    group = generator.integers(0, draw(st.integers(1, 40)), n)
    labels = generator.integers(0, draw(st.integers(1, 5)), n)
    links = np.sort(generator.integers(0, n, (draw(st.integers(0, 20)), 2)), axis=1)
    return labels, split.name_keys([str(g) for g in group]), links[links[:, 0] < links[:, 1]]


@given(grouped(), SEEDS)
@settings(max_examples=100, deadline=None)
def test_groups_stay_whole_and_no_twins_cross(rows, seed):
    labels, groups, links = rows
    place = split.assign(labels, groups, links, np.full(len(labels), -1), seed=seed)
    kept = place >= 0
    for key in np.unique(groups[kept]):
        assert len(set(place[kept & (groups == key)])) == 1
    for i, j in links:
        if kept[i] and kept[j]:
            assert place[i] == place[j]


@given(grouped(), SEEDS, st.randoms())
@settings(max_examples=60, deadline=None)
def test_the_order_of_rows_does_not_matter(rows, seed, random):
    labels, groups, _ = rows
    none = np.empty((0, 2), np.int32)
    order = np.array(random.sample(range(len(labels)), len(labels)))
    given_ = np.full(len(labels), -1)
    place = split.assign(labels, groups, none, given_, seed=seed)
    again = split.assign(labels[order], groups[order], none, given_, seed=seed)
    np.testing.assert_array_equal(place[order], again)


@given(grouped(), SEEDS)
@settings(max_examples=60, deadline=None)
def test_what_the_source_gives_is_kept_unless_it_leaks(rows, seed):
    labels, groups, links = rows
    fixed = np.where(np.arange(len(labels)) % 3 == 0, 2, -1)
    groups = np.where(fixed == 2, groups + np.uint64(1), groups)
    place = split.assign(labels, groups, links, fixed, seed=seed)
    assert (place[fixed == 2] == 2).all()
    assert not (place[fixed == -1] == 2).any()


def test_shares_are_met_by_class_for_single_rows():
    labels = np.repeat(np.arange(4), [1000, 500, 200, 100])
    keys = split.name_keys([str(i) for i in range(len(labels))])
    none = np.empty((0, 2), np.int32)
    place = split.assign(labels, keys, none, np.full(len(labels), -1), (0.6, 0.15, 0.25))
    for label, n in enumerate([1000, 500, 200, 100]):
        counts = np.bincount(place[labels == label], minlength=3)
        np.testing.assert_allclose(counts, np.array([0.6, 0.15, 0.25]) * n, atol=1)


def test_a_stratum_of_three_groups_reaches_every_split():
    labels = np.repeat([0, 1], 3)
    keys = split.name_keys(list("abcdef"))
    for seed in range(10):
        place = split.assign(
            labels, keys, np.empty((0, 2), int), np.full(6, -1), (0.98, 0.01, 0.01), seed
        )
        assert sorted(place[:3]) == sorted(place[3:]) == [0, 1, 2]


def test_seeds_differ():
    keys = split.name_keys([str(i) for i in range(300)])
    places = [
        split.assign(np.zeros(300, int), keys, np.empty((0, 2), int), np.full(300, -1), seed=s)
        for s in (0, 1)
    ]
    assert (places[0] != places[1]).mean() > 0.2


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.5, 0.5, 0.5), (1.2, -0.1, -0.1)])
def test_wrong_fractions_are_refused(fractions):
    with pytest.raises(DataError, match="three shares"):
        split.assign(
            np.zeros(3, int), np.arange(3), np.empty((0, 2), int), np.full(3, -1), fractions
        )


def brute_force_pairs(thumbnails, keys, threshold):
    flat = thumbnails.astype(np.float64) / 255
    found = set()
    for i in range(len(keys)):
        for j in range(i + 1, len(keys)):
            near = min(
                np.sqrt(np.mean((flat[i] - other) ** 2)) for other in (flat[j], flat[j][:, ::-1])
            )
            if near < threshold or keys[i] == keys[j]:
                found.add((i, j))
    return found


@pytest.mark.parametrize("colours", [(), (3,)])
def test_near_duplicates_equal_a_pass_over_all_pairs(colours):
    generator = np.random.default_rng(0)
    base = generator.integers(0, 256, (30, 6, 6, *colours))
    noise = generator.normal(0, 12, (3, 30, 6, 6, *colours))
    images = np.clip(np.concatenate([base, *(base + noise)]), 0, 255).astype(np.uint8)
    images[60:] = images[60:, :, ::-1]
    keys = split.content_keys(images)
    links = split.near_duplicates(images, keys, 0.06)
    expected = brute_force_pairs(images, keys, 0.06)
    assert 30 < len(expected) < 400
    assert set(map(tuple, links.tolist())) == expected


def test_a_zero_threshold_links_equal_keys_alone():
    images = np.zeros((4, 2, 2), np.uint8)
    images[3, 0, 0] = 1
    keys = split.content_keys(images)
    links = split.near_duplicates(images, keys, 0.0)
    assert links.tolist() == [[0, 1], [0, 2]]
    assert split.components(links, 4).tolist() == [0, 0, 0, 1]


def test_content_keys_see_every_byte_and_the_shape():
    a = np.zeros((4, 4), np.uint8)
    b = a.copy()
    b[3, 3] = 1
    keys = split.content_keys([a, b, a.reshape(2, 8), a.copy()])
    assert len(set(keys.tolist())) == 3
    assert keys[0] == keys[3]


@given(st.integers(1, 6), st.integers(0, 200), SEEDS)
@settings(max_examples=60, deadline=None)
def test_prefixes_are_stratified_and_nested(classes, extra, seed):
    generator = np.random.default_rng(extra)
    labels = np.concatenate([np.arange(classes), generator.integers(0, classes, extra)])
    keys = split.name_keys([str(i) for i in range(len(labels))])
    order = split.stratified_order(labels, keys, seed)
    assert sorted(order) == list(range(len(labels)))
    assert set(labels[order[:classes]]) == set(range(classes))
    counts = np.bincount(labels)
    for n in range(classes, len(labels)):
        share = np.bincount(labels[order[:n]], minlength=classes)
        assert np.abs(share - counts * n / len(labels)).max() <= classes


def test_a_limit_below_the_classes_is_refused():
    labels = np.arange(5)
    with pytest.raises(DataError, match=r"x/test is 4, below the 5 classes"):
        split.limited(labels, labels.astype(np.uint64), 0, 4, "x/test")
