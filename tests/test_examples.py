"""Examples: every way of writing them, rows of them, and what is refused."""

import warnings
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linearize import examples, tree
from linearize.examples import Examples, count
from linearize.train.identity import data_fingerprint

X = np.arange(6, dtype=np.float32).reshape(3, 2)
Y = np.array([0, 2, 1], np.int32)


@pytest.mark.parametrize(
    "given",
    [
        Examples(X, {"labels": Y}),
        (X, Y),
        [X, [0, 2, 1]],
        (X, {"labels": Y}),
        {"inputs": X, "labels": Y},
        SimpleNamespace(images=X, labels=Y),
    ],
    ids=lambda given: type(given).__name__,
)
def test_one_thing_written_in_many_ways(given):
    found = Examples.of(given)
    assert found.inputs is X
    np.testing.assert_array_equal(found.labels, Y)
    assert len(found) == 3
    assert set(found.arrays()) == {"inputs", "labels"}


@pytest.mark.parametrize(
    "inputs", [X, (X, X + 1), (X,), {"a": X, "b": (X, Y)}, tuple(X + i for i in range(11))]
)
def test_arrays_and_back(inputs):
    ours = Examples(inputs, {"weights": X[:, 0], "mask": np.array([True, False, True])})
    again = Examples.of(ours.arrays())
    assert again.fingerprint == ours.fingerprint
    assert again.arguments == ours.arguments
    assert set(ours.arrays()) == {*ours.arguments, "weights", "mask"}
    args = inputs if isinstance(inputs, tuple) else (inputs,)
    for name, argument in zip(again.arguments, args, strict=True):
        for a, b in zip(
            jax.tree.leaves(again.arrays()[name]), jax.tree.leaves(argument), strict=True
        ):
            np.testing.assert_array_equal(a, b)


def test_without_targets():
    tokens = np.arange(12).reshape(3, 4)
    assert Examples(tokens).targets == Examples.of({"inputs": tokens}).targets == {}
    with pytest.raises(ValueError, match=r"no labels; their targets are \['mask'\]"):
        _ = Examples(tokens, {"mask": tokens}).labels


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
@pytest.mark.parametrize(
    "rows", [[2, 0], slice(1, 3), np.array([True, False, True]), [-1], np.array([1, 1, 1, 1])]
)
def test_rows(kind, rows):
    whole = Examples({"x": kind(X), "y": kind(Y)}, {"labels": kind(Y), "w": kind(X)})
    part = whole.take(rows)
    np.testing.assert_array_equal(part.inputs["x"], X[rows])
    np.testing.assert_array_equal(part.inputs["y"], Y[rows])
    np.testing.assert_array_equal(part.labels, Y[rows])
    np.testing.assert_array_equal(part.targets["w"], X[rows])
    assert type(part.labels) is type(whole.labels)
    assert len(whole.take(1)) == 1


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_rows_that_are_not_there(kind):
    whole = Examples(kind(X), {"labels": kind(Y)})
    for rows in ([3], np.array([True, False]), [-4]):
        with pytest.raises(IndexError):
            whole.take(rows)
    for rows in (slice(3, None), np.zeros(3, bool), []):
        with pytest.raises(ValueError, match="no example"):
            whole.take(rows)


class OnDisk:
    """What decodes when it is indexed, as images on disk do; ``read`` counts."""

    dtype, ndim, fingerprint = np.dtype(np.float32), 2, "as on disk"

    def __init__(self, values, read):
        self.values, self.read, self.shape = values, read, values.shape

    def __getitem__(self, at):
        self.read.append(at)
        return self.values[at]

    def subset(self, at):
        return OnDisk(self.values[at], self.read)


def test_what_is_on_disk_stays_there():
    read = []
    whole = Examples(OnDisk(X, read), {"labels": Y})
    part = whole.take([2, 1])
    assert part.example == jax.ShapeDtypeStruct((2,), np.float32)
    assert part.fingerprint != whole.fingerprint  # of the labels
    assert len(part) == 2
    assert not read
    np.testing.assert_array_equal(part.inputs[:], X[[2, 1]])


def test_a_mapped_slice_stays_mapped(tmp_path):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    part = Examples(mapped, {"labels": Y}).take(slice(2))
    assert np.shares_memory(part.inputs, mapped)


def test_the_shapes_of_one_input():
    shapes = Examples((X, {"n": Y})).example
    assert shapes == (
        jax.ShapeDtypeStruct((2,), np.float32),
        {"n": jax.ShapeDtypeStruct((), np.int32)},
    )


def test_all_content_is_in_the_fingerprint():
    def of(x=X, labels=Y, **targets):
        return Examples(x, {"labels": labels, **targets}).fingerprint

    later = X.copy()
    later[2, 1] += 1
    seen = [of(), of(later), of(labels=Y[::-1]), of(labels=Y.astype(np.int64)), of(w=X), of(v=X)]
    assert len(set(seen)) == len(seen)
    assert of() == of(jnp.asarray(X), jnp.asarray(Y))
    kept = f"3 examples, {tree.fingerprint({'inputs': X, 'labels': Y})}"  # in runs of before
    assert of() == data_fingerprint({"inputs": X, "labels": Y}) == kept
    assert Examples((X, X)).fingerprint != Examples(X).fingerprint


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((X, Y[:2]), r"inputs: 3, labels: 2"),
        (((X, X[:2]), Y), r"inputs_0: 3, inputs_1: 2"),
        ({"inputs": X, "labels": Y, "w": np.float32(1)}, r"w: a scalar"),
        ((X[:0], Y[:0]), "no example"),
        ({"labels": Y}, r"the entries \['labels'\]; expected 'inputs'"),
        ({"inputs_0": X, "inputs_2": X}, "expected 'inputs'"),
        ({"inputs": X, "inputs_0": X}, "expected 'inputs'"),
        ((X, {"inputs": X}), r"the roles \['inputs'\], which name inputs"),
        ((X, ["a", "b", "c"]), "labels are <U1; expected numbers"),
        ((np.array(["a", "b", "c"]), Y), "inputs are <U1; expected numbers"),
        ((np.zeros(3, "M8[s]"), Y), "inputs are datetime64"),
        ([1, 2, 3], "the examples are a list"),
        (None, "the examples are a NoneType"),
    ],
)
def test_what_is_no_set_of_examples(given, message):
    with pytest.raises(ValueError, match=message):
        Examples.of(given)


def test_numbers_that_are_not_finite():
    bad = X.copy()
    bad[1, 0] = np.nan
    with pytest.raises(tree.NonFiniteError, match=r"inputs hold NaN .* 1 of 3 examples.* at 1"):
        Examples(bad)
    with pytest.raises(tree.NonFiniteError, match="inputs_1 hold NaN"):
        Examples((X, bad))
    with pytest.raises(tree.NonFiniteError, match="weights hold NaN"):
        Examples(X, {"weights": bad[:, 0]})


def test_a_large_array_is_looked_at_in_pieces(monkeypatch):
    monkeypatch.setattr(examples, "_PIECE", 20)  # two rows and a half
    for row in range(3):
        bad = X.copy()
        bad[row] = np.inf
        with pytest.raises(tree.NonFiniteError, match=f"1 of 3 examples, the first at {row}"):
            Examples(bad)
    Examples(np.zeros((3, 0), np.float32))


def test_targets_have_roles():
    for targets in (Y, None):
        with pytest.raises(ValueError, match=f"targets is a {type(targets).__name__}; expected"):
            Examples(X, targets)


def test_labels_are_integers():
    with pytest.raises(ValueError, match=r"labels are float64\(3,\); expected integers"):
        _ = Examples(X, {"labels": Y.astype(float)}).labels


def test_the_old_name_of_inputs_warns():
    with pytest.warns(DeprecationWarning, match=r"Examples\.inputs"):
        assert Examples(X).images is X
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Examples.of(Examples(X))


def test_counting_names_each_array():
    assert count((X, {"a": Y})) == 3
    with pytest.raises(ValueError, match=r"data differ in number \(0: 3, 1/a: 2\)"):
        count((X, {"a": Y[:2]}), "data")
    with pytest.raises(ValueError, match="there is none"):
        count({})
