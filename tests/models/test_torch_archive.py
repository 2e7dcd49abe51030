"""torch's files are read without torch, and hostile ones run nothing."""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from linearize.models import torch_archive
from linearize.models.torch_archive import TorchArchiveError


@pytest.mark.parametrize("new_format", [True, False])
def test_reads_what_torch_writes(tmp_path, new_format):
    torch = pytest.importorskip("torch")
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    state = OrderedDict(
        {
            "plain": torch.randn(3, 2),
            "transposed": base.T,
            "slice of the same storage": base[1:3, ::2],
            "double": torch.randn(2, dtype=torch.float64),
            "half": torch.randn(3).half(),
            "bfloat16": torch.randn(3).bfloat16(),
            "counter": torch.tensor(7),
            "flag": torch.tensor([True, False]),
            "empty": torch.zeros(0, 3),
            "parameter": torch.nn.Parameter(torch.randn(2, 2)),
        }
    )
    path = tmp_path / "state.pth"
    torch.save(state, path, _use_new_zipfile_serialization=new_format)
    got = torch_archive.read(path)
    assert list(got) == list(state)
    for name, tensor in state.items():
        expected = tensor.detach()
        assert got[name].shape == tuple(expected.shape), name
        assert str(expected.dtype) == f"torch.{got[name].dtype}", name
        np.testing.assert_array_equal(
            got[name].astype(np.float64), expected.double().numpy(), err_msg=name
        )


class Runs:
    """Pickles to a call of ``open(path, "w")``: a file appears if anything is run."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def stream(payload, keys=()):
    head = [pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    return b"".join(head) + payload + pickle.dumps(list(keys), 2)


def archive(payload, members=(), compression=zipfile.ZIP_STORED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as file:
        file.writestr("archive/data.pkl", payload)
        for name, data in members:
            file.writestr(f"archive/data/{name}", data)
    return out.getvalue()


def tensor(
    size=4, offset=0, shape=(4,), strides=(1,), function=b"ctorch._utils\n_rebuild_tensor_v2\n"
):
    """Opcodes of ``{"x": tensor}``, its storage ``"0"`` of float32."""

    def literal(value):
        return pickle.dumps(value, 2)[2:-1]  # without protocol and stop

    storage = b"(" + literal("storage") + b"ctorch\nFloatStorage\n" + literal("0")
    storage += literal("cpu") + literal(size) + b"tQ"
    rest = b"".join(literal(x) for x in (offset, shape, strides, False))
    view = function + b"(" + storage + rest + literal(None) + b"tR"
    return b"\x80\x02}" + literal("x") + view + b"s."


DATA = np.arange(4, dtype="<f4").tobytes()


def test_the_handmade_file_is_sound(tmp_path):
    (tmp_path / "a").write_bytes(archive(tensor(), [("0", DATA)]))
    np.testing.assert_array_equal(torch_archive.read(tmp_path / "a")["x"], [0, 1, 2, 3])
    raw = stream(tensor(), ["0"]) + struct.pack("<q", 4) + DATA
    (tmp_path / "b").write_bytes(raw)
    np.testing.assert_array_equal(torch_archive.read(tmp_path / "b")["x"], [0, 1, 2, 3])


@pytest.mark.parametrize("wrap", [stream, archive])
def test_a_pickle_that_calls_is_refused_and_not_run(tmp_path, wrap):
    trace = tmp_path / "trace"
    path = tmp_path / "hostile.pth"
    path.write_bytes(wrap(pickle.dumps(OrderedDict(x=Runs(trace)), 2)))
    with pytest.raises(TorchArchiveError, match=r"open.*nothing was run"):
        torch_archive.read(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "function",
    [b"cos\nsystem\n", b"cbuiltins\neval\n", b"ctorch\nload\n", b"cnumpy\nload\n"],
)
def test_no_other_function_is_found(tmp_path, function):
    path = tmp_path / "hostile.pth"
    path.write_bytes(archive(tensor(function=function), [("0", DATA)]))
    with pytest.raises(TorchArchiveError, match="nothing was run"):
        torch_archive.read(path)


@pytest.mark.parametrize(
    "view",
    [
        {"shape": (5,)},
        {"offset": 1},
        {"offset": -1},
        {"strides": (2,)},
        {"strides": (-1,)},
        {"shape": (10**12,), "strides": (0,)},
        {"shape": (2, 2), "strides": (1,)},
        {"size": -4},
        {"size": 10**15},
    ],
)
def test_a_view_beyond_its_storage_is_refused(tmp_path, view):
    path = tmp_path / "hostile.pth"
    path.write_bytes(archive(tensor(**view), [("0", DATA)]))
    with pytest.raises(TorchArchiveError):
        torch_archive.read(path)


def test_a_compressed_storage_is_refused(tmp_path):
    path = tmp_path / "bomb.pth"
    size = 10**6
    bomb = archive(
        tensor(size, shape=(size,)), [("0", bytes(4 * size))], compression=zipfile.ZIP_DEFLATED
    )
    assert len(bomb) < size
    path.write_bytes(bomb)
    with pytest.raises(TorchArchiveError, match="plain bytes"):
        torch_archive.read(path)


@pytest.mark.parametrize("new_format", [True, False])
def test_every_truncation_is_an_error(tmp_path, new_format):
    whole = (
        archive(tensor(), [("0", DATA)])
        if new_format
        else stream(tensor(), ["0"]) + struct.pack("<q", 4) + DATA
    )
    path = tmp_path / "short.pth"
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(TorchArchiveError, match=r"short\.pth"):
            torch_archive.read(path)


@pytest.mark.parametrize("content", [["a"], {}, {"lr": 0.1}, {1: 2}, 3])
def test_more_or_less_than_tensors_is_refused(tmp_path, content):
    path = tmp_path / "other.pth"
    path.write_bytes(archive(pickle.dumps(content, 2)))
    with pytest.raises(TorchArchiveError, match="holds"):
        torch_archive.read(path)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        torch_archive.read(tmp_path / "none.pth")
