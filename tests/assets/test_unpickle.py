"""A pickle may hold an array of numbers and nothing else."""

import builtins
import os
import pickle
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy._core.multiarray import _reconstruct

from linearize.assets import UnsafePickleError
from linearize.assets.unpickle import load_array


@given(
    hnp.arrays(
        st.sampled_from(["u1", "i4", "<i8", ">i2", "f4", "f8", "?"]),
        hnp.array_shapes(min_dims=0, max_dims=3, max_side=4),
    ),
    st.sampled_from([3, 4]),
)
@settings(max_examples=60, deadline=None)
def test_arrays_come_back(array, protocol):
    pickled = pickle.dumps(array, protocol=protocol)
    got = load_array(pickled)
    assert got.dtype == pickle.loads(pickled).dtype
    np.testing.assert_array_equal(got, array)


class Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "hostile",
    [
        Call(os.system, "touch pwned"),
        Call(subprocess.check_output, ["touch", "pwned"]),
        Call(builtins.eval, "open('pwned', 'w')"),
        Call(builtins.getattr, "text", "upper"),
        Call(np.load, "pwned"),
        Call(np.ones, 3),
        [Call(os.system, "touch pwned"), np.ones(3)],
    ],
)
def test_calls_are_refused_and_not_run(hostile, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnsafePickleError, match=r"only NumPy arrays|not a whole pickle"):
        load_array(pickle.dumps(hostile))
    assert list(tmp_path.iterdir()) == []


def test_arrays_of_objects_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    array = np.array([Call(os.system, "touch pwned"), None], dtype=object)
    with pytest.raises(UnsafePickleError):
        load_array(pickle.dumps(array))
    with pytest.raises(UnsafePickleError, match="not an array of numbers"):
        load_array(pickle.dumps(np.array([1, "a"], dtype=object)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [3, [1, 2], {"a": 1}, "text", np.dtype("f4"), np.array(["a"])])
def test_other_values_are_refused(value):
    with pytest.raises(UnsafePickleError, match="not an array of numbers"):
        load_array(pickle.dumps(value, protocol=4))


def test_dotted_names_do_not_reach_into_modules():
    """Protocol 4 lets a name be ``ndarray.tofile``."""
    pickled = b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93."
    with pytest.raises(UnsafePickleError, match="only NumPy arrays"):
        load_array(pickled)


def described(shape=(2,), code="i2", order="<", fortran=False, data=b"\1\0\2\0"):
    """A pickle whose array states these things of itself."""

    class Array:
        def __reduce__(self):
            return _reconstruct, (np.ndarray, (0,), b"b"), (1, shape, Dtype(), fortran, data)

    class Dtype:
        def __reduce__(self):
            return np.dtype, (code, False, True), (3, order, None, None, None, -1, -1, 0)

    return pickle.dumps(Array(), protocol=4)


def test_an_array_is_what_its_state_says():
    np.testing.assert_array_equal(load_array(described()), np.array([1, 2], "i2"))
    np.testing.assert_array_equal(load_array(described(order=">")), np.array([256, 512], "i2"))
    fortran = load_array(described(shape=(2, 2), code="u1", order="|", fortran=True))
    np.testing.assert_array_equal(fortran, [[1, 2], [0, 0]])
    logical = load_array(described(shape=(4,), code="b1", order="|"))
    assert logical.view(np.uint8).tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize(
    "state",
    [
        {"shape": (3,)},
        {"shape": (-1,)},
        {"shape": (True, 2)},
        {"shape": (2**62, 2**62)},
        {"code": "O"},
        {"code": "i4,i4"},
        {"code": 3},
        {"order": "i4,"},
        {"data": [1, 2]},
        {"data": b""},
        {"fortran": 2},
    ],
    ids=str,
)
def test_an_impossible_array_is_refused(state):
    with pytest.raises(UnsafePickleError, match=r"cut short|not an array of numbers"):
        load_array(described(**state))


def test_subclasses_of_arrays_are_refused():
    with pytest.raises(UnsafePickleError):
        load_array(pickle.dumps(np.ma.masked_array([1, 2])))


@given(st.binary(max_size=60))
@settings(max_examples=100, deadline=None)
def test_noise_is_refused(noise):
    with pytest.raises(UnsafePickleError):
        load_array(noise)


def test_truncated_pickles_are_refused(tmp_path):
    path = tmp_path / "array.pkl"
    path.write_bytes(pickle.dumps(np.arange(100))[:-20])
    with pytest.raises(UnsafePickleError, match="not a whole pickle"):
        load_array(path)
