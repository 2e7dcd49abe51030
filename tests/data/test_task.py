"""Tasks of any arrays: classes, numbers or nothing as targets, one input or several."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linearize.data import DataError, Split, Task, split_task
from linearize.data.records import SPLITS
from linearize.examples import Examples

X = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
Y = np.arange(60) % 3


def task(**change):
    given = {
        "train": (X, Y),
        "validation": {"inputs": X, "labels": Y},
        "test": Examples(X, {"labels": Y}),
    }
    return Task("mine", **{**given, **change})


def test_splits_in_any_form():
    made = task(classes=["a", "b", "c"])
    assert made.classes == ("a", "b", "c")
    for split in SPLITS:
        assert isinstance(made.split(split), Examples)
        assert made.split(split) is getattr(made, split)
        np.testing.assert_array_equal(made.split(split).labels, Y)
    assert made.counts == dict.fromkeys(SPLITS, 60)
    again = dataclasses.replace(made, test=(X[:5], Y[:5]))
    assert len(again.test) == 5


def test_without_classes_targets_may_be_anything():
    texts = np.arange(12).reshape(3, 4)
    sums = {"sums": X.sum(1)}
    made = task(train=((X, X), sums), validation=((X, X), sums), test={"inputs": texts})
    assert made.classes == ()
    assert made.train.arguments == ("inputs_0", "inputs_1")
    assert task(train=(X, Y + 7)).counts["train"] == 60


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ("one",)}, "two or more"),
        ({"classes": ("a", "b")}, r"'mine/train' must lie in 0\.\.1 .* row 2 has 2"),
        ({"classes": "abc", "validation": (X, {"sums": Y})}, r"'validation'.* are \['sums'\]"),
        ({"classes": "abc", "test": (X, Y / 2)}, "'test'.*expected integers"),
        ({"classes": "abc", "test": (X, Y[:, None])}, r"'mine/test' have the shape \(60, 1\)"),
        ({"test": (X, Y[:5])}, "task 'mine', split 'test': .*inputs: 60, labels: 5"),
        ({"test": None}, "split 'test': the examples are a NoneType"),
        ({"train": (X * np.nan, Y)}, "split 'train': inputs hold NaN"),
        ({"classes": "abcd", "every_class": True}, "no example of 1 of 4 classes: d"),
    ],
)
def test_what_is_no_task(change, message):
    with pytest.raises(DataError, match=message):
        task(**change)


def test_a_class_may_be_missing_where_it_is_not_promised():
    assert task(classes="abcd").classes == tuple("abcd")


def test_a_split_of_another_name():
    with pytest.raises(ValueError, match=r"split='valid'.*did you mean 'validation'"):
        task().split("valid")


def test_the_former_split_warns_and_makes_examples():
    with pytest.warns(DeprecationWarning, match=r"linearize\.Examples"):
        made = Split(X, Y)
    assert isinstance(made, Examples)
    np.testing.assert_array_equal(made.labels, Y)


def rows(made, split):
    return {x.tobytes() for x in made.split(split).inputs}


def test_shares_by_class():
    made = split_task("t", X, Y, validation=0.2, test=0.3, classes=("a", "b", "c"))
    for split, share in zip(SPLITS, (0.5, 0.2, 0.3), strict=True):
        assert np.bincount(made.split(split).labels).tolist() == [20 * share] * 3
        pairs = {x.tobytes(): y for x, y in zip(X, Y, strict=True)}
        for x, y in zip(made.split(split).inputs, made.split(split).labels, strict=True):
            assert pairs[x.tobytes()] == y
    assert rows(made, "train") | rows(made, "validation") | rows(made, "test") == set(pairs)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.floats(0.05, 0.4), st.floats(0.05, 0.4), st.integers(2, 9))
def test_equal_inputs_are_in_one_split_whatever_the_order(seed, validation, test, values):
    rng = np.random.default_rng(seed)
    tokens = np.concatenate([rng.integers(0, values, (80, 1)), np.arange(80)[:, None] // 2], 1)
    targets = {"score": rng.normal(size=80)}
    made = split_task("t", tokens, targets, validation=validation, test=test, seed=seed)
    assert sum(made.counts.values()) == 80
    assert not rows(made, "train") & rows(made, "test")
    assert not rows(made, "validation") & (rows(made, "test") | rows(made, "train"))
    order = rng.permutation(80)
    other = split_task(
        "t", tokens[order], {"score": targets["score"][order]},
        validation=validation, test=test, seed=seed,
    )  # fmt: skip
    for split in SPLITS:
        assert rows(made, split) == rows(other, split)


def test_several_inputs_decide_together():
    same = np.zeros((40, 2))
    made = split_task("t", (same, {"x": X[:40]}), {"sums": X[:40].sum(1)})
    assert made.counts == {"train": 32, "validation": 4, "test": 4}
    first, second = made.test.inputs
    np.testing.assert_allclose(second["x"].sum(1), made.test.targets["sums"], rtol=1e-5)
    assert first.shape == (4, 2)
    with pytest.raises(DataError, match=r"'t/validation' is empty.* 1 different examples"):
        split_task("t", same, np.zeros(40, int))


def test_another_seed_is_another_split():
    ours, theirs = (split_task("t", X, Y, seed=seed) for seed in (0, 1))
    assert rows(ours, "test") != rows(theirs, "test")
    np.testing.assert_array_equal(ours.test.inputs, split_task("t", X, Y).test.inputs)


@pytest.mark.parametrize(("validation", "test"), [(0, 0.1), (0.5, 0.5), (0.1, -0.1), (1.2, 0.1)])
def test_shares_that_leave_nothing(validation, test):
    with pytest.raises(DataError, match=f"validation={validation}, test={test}"):
        split_task("t", X, Y, validation=validation, test=test)
