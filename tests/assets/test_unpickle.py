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
