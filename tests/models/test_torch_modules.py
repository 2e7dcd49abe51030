"""Whole pickled modules: hostile ones do nothing, and all but tensors is left behind."""

import functools
import io
import os
import pickle
import subprocess
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from linearize.models import torch_modules
from linearize.models.torch_archive import TorchArchiveError


def archive(payload):
    """A file as torch writes it, with one storage ``"0"`` of four floats."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("archive/data.pkl", payload)
        file.writestr("archive/data/0", np.arange(4, dtype="<f4").tobytes())
    return out.getvalue()


TENSOR = (
    b"ctorch._utils\n_rebuild_tensor_v2\n(("
    + b"X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
    + b"K\x00K\x04\x85K\x01\x85\x89NtR"
)


def write(path, before=b"", value=TENSOR):
    """``{"x": <before, dropped> <value>}``."""
    path.write_bytes(archive(b"\x80\x02" + before + b"}X\x01\x00\x00\x00x" + value + b"s."))
    return path


class Calls:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def opcodes(value):
    return pickle.dumps(value, 2)[2:-1] + b"0"


def test_the_handmade_file_is_sound(tmp_path):
    got = torch_modules.read(write(tmp_path / "a"))
    np.testing.assert_array_equal(got["x"], [0, 1, 2, 3])


@pytest.mark.parametrize(
    "function",
    [os.system, os.mkdir, subprocess.check_call, eval, exec, open, __import__, setattr, map],
)
def test_the_standard_library_is_refused_by_name(tmp_path, function):
    trace = tmp_path / "trace"
    argument = f"mkdir {trace}" if function is os.system else str(trace)
    path = write(tmp_path / "hostile.pt", opcodes(Calls(function, argument)))
    with pytest.raises(TorchArchiveError, match=rf"{function.__name__}.*nothing was run"):
        torch_modules.read(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "value",
    [
        Calls(functools.partial, os.path.join, "a"),
        Calls(getattr, "text", "upper"),
        OrderedDict(a=Calls(np.zeros, 10**15)),
        Calls(np.save, "trace", 1),
        Calls(np.load, "none"),
    ],
)
def test_calls_become_shells_that_do_nothing(tmp_path, value):
    raw = opcodes(value).replace(b"cposixpath\njoin\n", b"csome.where\njoin\n")
    np.testing.assert_array_equal(torch_modules.read(write(tmp_path / "a", raw))["x"], [0, 1, 2, 3])


def test_names_are_those_of_a_state_dict_and_shells_keep_tensors(tmp_path):
    def text(word):
        return b"X" + len(word).to_bytes(4, "little") + word.encode()

    def module(**parts):
        inside = b"".join(text(k) + v for k, v in parts.items())
        return b"cno.such\nClass\n)\x81}(" + inside + b"ub"

    def mapping(**parts):
        return b"}(" + b"".join(text(k) + v for k, v in parts.items()) + b"u"

    child = module(_parameters=mapping(weight=TENSOR), _buffers=mapping(count=TENSOR))
    whole = module(_modules=mapping(inner=child), _parameters=mapping(bias=TENSOR), note=text("n"))
    got = torch_modules.read(write(tmp_path / "a", value=whole))
    assert list(got) == ["x.bias", "x.inner.weight", "x.inner.count"]


def test_references_in_circles_and_powers_end(tmp_path):
    """``d = {"a": d}`` and thirty levels of ``{"a": e, "b": e}`` are read once each."""
    circle = b"}q\x00X\x01\x00\x00\x00ah\x00s0"
    powers = b"}q\x01"
    for level in range(2, 32):
        got = f"h{chr(level - 1)}".encode("latin1")
        powers += b"0}q" + bytes([level]) + b"(X\x01\x00\x00\x00a" + got + b"X\x01\x00\x00\x00b"
        powers += got + b"u"
    path = tmp_path / "a"
    body = b"\x80\x02" + circle + powers + b"0}(X\x01\x00\x00\x00x" + TENSOR
    body += b"X\x01\x00\x00\x00yh\x1fX\x01\x00\x00\x00zh\x00u."
    path.write_bytes(archive(body))
    assert list(torch_modules.read(path)) == ["x"]


def test_other_ways_to_build_tensors_are_refused(tmp_path):
    strange = TENSOR.replace(b"_rebuild_tensor_v2", b"_rebuild_qtensor")
    with pytest.raises(TorchArchiveError, match="_rebuild_qtensor"):
        torch_modules.read(write(tmp_path / "a", value=strange))


@pytest.mark.parametrize("content", [b"N", b"]", b"}", b"K\x03"])
def test_files_without_tensors_are_refused(tmp_path, content):
    (tmp_path / "a").write_bytes(archive(b"\x80\x02" + content + b"."))
    with pytest.raises(TorchArchiveError, match="without tensors"):
        torch_modules.read(tmp_path / "a")
