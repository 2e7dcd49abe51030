"""Tensors of a torch ``.pt``/``.pth`` state dict, without torch and without running its pickle.

A pickle is a program. The unpickler here knows only the words that a state dict is written in
(ordered mappings, storages, strided views of them); any other word ends the reading. Both of
torch's formats are read: the zip archive (since 1.6) and the older stream of pickles.
"""

import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, NoReturn

import ml_dtypes
import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


class TorchArchiveError(ValueError):
    """Not a torch state dict, a damaged one, or one that wants to run code."""


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype
    size: int


@dataclass(frozen=True)
class View:
    """A tensor that is described and not yet read."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read(path: str | Path) -> dict[str, np.ndarray]:
    """All tensors of a saved state dict, keyed by torch's names, on the host.

    Args:
        path: a file written by ``torch.save(module.state_dict(), path)``.

    Raises:
        TorchArchiveError: the file holds anything but a mapping of names to tensors, is
            truncated, or its pickle names a function outside the few that tensors need.
        FileNotFoundError: there is no such file.
    """
    return read_with(path, Unpickler, _views)


def read_with(
    path: str | Path,
    unpickler: "type[Unpickler]",
    select: Callable[[Any], Mapping[str, View]],
) -> dict[str, np.ndarray]:
    """As :func:`read`, with other words allowed and tensors picked otherwise.

    Args:
        path: a file that torch wrote.
        unpickler: what loads its pickle.
        select: the tensors of what was loaded, by name.
    """
    with Path(path).open("rb") as file:
        try:
            if zipfile.is_zipfile(file):
                return _read_zip(file, unpickler, select)
            return _read_stream(file, unpickler, select)
        except TorchArchiveError as error:
            raise TorchArchiveError(f"{path}: {error}") from error.__cause__
        except Exception as error:  # a damaged pickle may raise nearly anything
            raise TorchArchiveError(
                f"{path} is not a readable torch file ({type(error).__name__}: {error})"
            ) from error


def _read_zip(
    file: BinaryIO, unpickler: "type[Unpickler]", select: Callable[[Any], Mapping[str, View]]
) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        members = {info.filename: info for info in archive.infolist()}
        roots = [n.removesuffix("/data.pkl") for n in members if n.endswith("/data.pkl")]
        if len(roots) != 1:
            raise TorchArchiveError("the zip archive has not exactly one data.pkl")
        root = roots[0]
        if f"{root}/byteorder" in members and archive.read(f"{root}/byteorder") != b"little":
            raise TorchArchiveError("big-endian archives are not supported")
        views = select(unpickler(io.BytesIO(archive.read(f"{root}/data.pkl"))).load())

        def payload(storage: _Storage) -> bytes:
            info = members.get(f"{root}/data/{storage.key}")
            expected = storage.size * storage.dtype.itemsize
            if info is None or info.file_size != expected or info.compress_size != expected:
                raise TorchArchiveError(
                    f"storage {storage.key} should be {expected} plain bytes and is not"
                )
            return archive.read(info)

        return _materialise(views, payload)


def _read_stream(
    file: BinaryIO, unpickler: "type[Unpickler]", select: Callable[[Any], Mapping[str, View]]
) -> dict[str, np.ndarray]:
    file.seek(0)
    if Unpickler(file).load() != _MAGIC:
        raise TorchArchiveError("no torch magic number at the start")
    if Unpickler(file).load() != 1001:
        raise TorchArchiveError("unknown version of the stream format")
    if not Unpickler(file).load()["little_endian"]:
        raise TorchArchiveError("big-endian archives are not supported")
    loaded = unpickler(file)
    views = select(loaded.load())
    payloads: dict[str, bytes] = {}
    for key in Unpickler(file).load():
        (size,) = struct.unpack("<q", file.read(8))
        storage = loaded.storages.get(key)
        if storage is None or size != storage.size:
            raise TorchArchiveError(f"storage {key!r} is not the size that its tensors state")
        payloads[key] = file.read(size * storage.dtype.itemsize)
    return _materialise(views, lambda storage: payloads[storage.key])


class Unpickler(pickle.Unpickler):
    """Builds records of what the pickle describes; calls nothing that the pickle brings along."""

    def __init__(self, file: IO[bytes]) -> None:
        """Reads one pickle of the file.

        Attributes:
            storages: those that the pickle named, by key.
        """
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda *args: View(*_view_arguments(*args))
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda data, *_: data
        if module == "torch" and name in _STORAGES:
            return np.dtype(_STORAGES[name])
        raise TorchArchiveError(
            f"its pickle names {module}.{name}, which no state dict of tensors needs; "
            "nothing was run. Save it anew with torch.save(module.state_dict(), path)"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, size, *view = pid
        if (
            kind != "storage"
            or not isinstance(dtype, np.dtype)
            or not isinstance(key, str)
            or not isinstance(size, int)
            or size < 0
            or any(part is not None for part in view)
        ):
            _refuse(f"storage {pid!r}")
        return self.storages.setdefault(key, _Storage(key, dtype, size))


def _view_arguments(
    storage: Any, offset: Any, shape: Any, strides: Any, *_: Any
) -> tuple[_Storage, int, tuple[int, ...], tuple[int, ...]]:
    integers = (offset, *shape, *strides)
    if (
        not isinstance(storage, _Storage)
        or len(shape) != len(strides)
        or not all(isinstance(i, int) and i >= 0 for i in integers)
    ):
        _refuse(f"tensor of shape {shape!r}, strides {strides!r}, offset {offset!r}")
    count = math.prod(shape)
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if count and (count > storage.size or last >= storage.size):
        _refuse(f"tensor of shape {tuple(shape)} beyond its storage of {storage.size} entries")
    return storage, offset, tuple(shape), tuple(strides)


def _views(loaded: Any) -> dict[str, View]:
    if not isinstance(loaded, Mapping) or not loaded:
        raise TorchArchiveError(
            f"it holds a {type(loaded).__name__}, not a mapping of names to tensors; "
            "save it with torch.save(module.state_dict(), path)"
        )
    wrong = [
        f"{name!r}: {type(value).__name__}"
        for name, value in loaded.items()
        if not isinstance(name, str) or not isinstance(value, View)
    ]
    if wrong:
        raise TorchArchiveError(f"it holds more than tensors: {', '.join(wrong[:8])}")
    return dict(loaded)


def _materialise(
    views: Mapping[str, View], payload: Callable[[_Storage], bytes]
) -> dict[str, np.ndarray]:
    buffers: dict[str, np.ndarray] = {}
    out = {}
    for name, view in views.items():
        key, dtype = view.storage.key, view.storage.dtype
        if key not in buffers:
            data = payload(view.storage)
            if len(data) != view.storage.size * dtype.itemsize:
                raise TorchArchiveError(f"the file ends within {name}; fetch it again")
            buffers[key] = np.frombuffer(data, np.uint8)
        flat = buffers[key].view(dtype)
        if math.prod(view.shape) == 0:
            out[name] = np.zeros(view.shape, dtype)
            continue
        strides = tuple(s * dtype.itemsize for s in view.strides)
        strided = np.lib.stride_tricks.as_strided(flat[view.offset :], view.shape, strides)
        out[name] = np.array(strided, order="C")
    return out


def _refuse(what: str) -> NoReturn:
    raise TorchArchiveError(f"it describes an impossible {what}")
