"""Tensors of a torch ``.pt``/``.pth`` state dict, without torch and without running its pickle.

Both of torch's formats are read: the zip archive (since 1.6) and the older stream of pickles. What
the pickle describes (:mod:`linearize.models.torch_pickle`) is checked against the bytes that are
there, and the memory that it may ask for is bounded by the file's size.
"""

import io
import math
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from linearize import files
from linearize.models.torch_pickle import (
    LARGEST_INDEX,
    Storage,
    Strided,
    TorchArchiveError,
    Unpickler,
)
from linearize.unpickle import PickleError, kind, said

__all__ = ["Strided", "TorchArchiveError", "Unpickler", "read", "read_with"]

_MAGIC = 0x1950A86A20F9469CFC6C
_MOST_COPIES = 16
"""Tensors that share storages may hold this many times the file's bytes together."""
_MOST_AXES = 64
"""NumPy's own bound."""


def read(path: str | Path) -> dict[str, np.ndarray]:
    """All tensors of a saved state dict, keyed by torch's names, on the host.

    Args:
        path: a file written by ``torch.save(module.state_dict(), path)``.

    Raises:
        TorchArchiveError: the file holds anything but a mapping of names to tensors, is
            truncated, describes a tensor that is not within its bytes, or its pickle names a
            function outside the few that tensors need, or changes what it made.
        FileNotFoundError: there is no such file.
        CorruptFileError: it is no regular file.
    """
    return read_with(path, Unpickler, _views)


def read_with(
    path: str | Path,
    unpickler: "type[Unpickler]",
    select: Callable[[Any], Mapping[str, Strided]],
) -> dict[str, np.ndarray]:
    """As :func:`read`, with other words allowed and tensors picked otherwise.

    Args:
        path: a file that torch wrote.
        unpickler: what loads its pickle.
        select: the tensors of what was loaded, by name.
    """
    with files.open_regular(path) as file:
        try:
            if zipfile.is_zipfile(file):
                return _read_zip(file, unpickler, select)
            return _read_stream(file, unpickler, select)
        except PickleError as error:
            raise TorchArchiveError(f"{path}: {error}") from error.__cause__
        except Exception as error:  # a damaged pickle may raise nearly anything
            raise TorchArchiveError(
                f"{path} is not a readable torch file ({type(error).__name__}: {error})"
            ) from error


def _read_zip(
    file: BinaryIO,
    unpickler: "type[Unpickler]",
    select: Callable[[Any], Mapping[str, Strided]],
) -> dict[str, np.ndarray]:
    length = _length(file)
    with zipfile.ZipFile(file) as archive:
        members = {info.filename: info for info in archive.infolist()}
        if len(members) != len(archive.infolist()):
            raise TorchArchiveError("two members of the zip archive have one name")
        roots = [n.removesuffix("/data.pkl") for n in members if n.endswith("/data.pkl")]
        if len(roots) != 1:
            raise TorchArchiveError("the zip archive has not exactly one data.pkl")
        root = roots[0]

        def member(name: str, size: int | None = None) -> bytes:
            info = members.get(f"{root}/{name}")
            if info is None or not _is_plain(info, size, length):
                raise TorchArchiveError(
                    f"{said(name)} should be {'' if size is None else size} plain bytes and is not"
                )
            return archive.read(info)

        if f"{root}/byteorder" in members and member("byteorder") != b"little":
            raise TorchArchiveError("big-endian archives are not supported")
        views = select(unpickler(io.BytesIO(member("data.pkl"))).load())
        return _materialise(
            views, lambda storage: member(f"data/{storage.key}", _bytes(storage)), length
        )


def _is_plain(info: zipfile.ZipInfo, size: int | None, length: int) -> bool:
    """Whether a member is not compressed, of this size (None: any) and no larger than the file."""
    return (
        info.compress_type == zipfile.ZIP_STORED
        and info.file_size == info.compress_size <= length
        and size in (None, info.file_size)
    )


def _read_stream(
    file: BinaryIO,
    unpickler: "type[Unpickler]",
    select: Callable[[Any], Mapping[str, Strided]],
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
    keys = Unpickler(file).load()
    length = _length(file)
    payloads: dict[str, bytes] = {}
    for key in keys:
        (size,) = struct.unpack("<q", file.read(8))
        storage = loaded.storages.get(key) if type(key) is str else None
        if storage is None or size != storage.size:
            raise TorchArchiveError(f"storage {said(key)} is not the size that its tensors state")
        if _bytes(storage) > length - file.tell():
            raise TorchArchiveError(f"the file ends within storage {said(key)}; fetch it again")
        payloads[key] = file.read(_bytes(storage))
    return _materialise(views, lambda storage: payloads.get(storage.key, b""), length)


def _bytes(storage: Storage) -> int:
    return storage.size * storage.dtype.itemsize


def _length(file: BinaryIO) -> int:
    place = file.tell()
    length = file.seek(0, io.SEEK_END)
    file.seek(place)
    return length


def _views(loaded: Any) -> dict[str, Strided]:
    if not isinstance(loaded, Mapping) or not loaded:
        raise TorchArchiveError(
            f"it holds a {kind(loaded)}, not a mapping of names to tensors; "
            "save it with torch.save(module.state_dict(), path)"
        )
    wrong = [
        f"{said(name)}: {kind(value)}"
        for name, value in loaded.items()
        if type(name) is not str or type(value) is not Strided
    ]
    if wrong:
        raise TorchArchiveError(f"it holds more than tensors: {', '.join(wrong[:8])}")
    return dict(loaded)


def _materialise(
    views: Mapping[str, Strided], payload: Callable[[Storage], bytes], length: int
) -> dict[str, np.ndarray]:
    """Copies of the tensors, each checked before anything is read and again where it is read.

    Args:
        views: by name.
        payload: reads a storage.
        length: of the file, in bytes.
    """
    for name, view in views.items():
        _check(name, view)
    _check_totals(views, length)
    buffers: dict[tuple[str, np.dtype], np.ndarray] = {}
    out = {}
    for name, view in views.items():
        dtype = view.storage.dtype
        key = view.storage.key, dtype
        if key not in buffers:
            data = payload(view.storage)
            if len(data) != _bytes(view.storage):
                raise TorchArchiveError(f"the file ends within {said(name)}; fetch it again")
            logical = dtype.kind == "b"  # NumPy relies on its booleans' bytes being 0 or 1
            flat = np.frombuffer(data, np.uint8 if logical else dtype)
            buffers[key] = flat != 0 if logical else flat
        out[name] = _placed(name, view, buffers[key])
    return out


def _placed(name: str, view: Strided, flat: np.ndarray) -> np.ndarray:
    """A copy of the view of these entries. NumPy checks its bounds too, unlike ``as_strided``."""
    if flat.size != view.storage.size:
        raise TorchArchiveError(f"tensor {said(name)} has a storage of another size than it states")
    _check(name, view)
    if math.prod(view.shape) == 0:
        return np.zeros(view.shape, flat.dtype)
    item = flat.dtype.itemsize
    strides = tuple(s * item for s in view.strides)
    try:
        seen = np.ndarray(view.shape, flat.dtype, flat, view.offset * item, strides)
    except (ValueError, TypeError) as error:
        raise TorchArchiveError(f"tensor {said(name)} does not fit its storage: {error}") from error
    return np.array(seen, order="C")


def _check(name: str, view: Strided) -> None:
    """Raises TorchArchiveError, with the name, unless each element lies within the storage."""
    fault = _fault(view)
    if fault:
        place = said(*view[1:])
        raise TorchArchiveError(
            f"tensor {said(name)}, of offset, shape and strides {place}, {fault}"
        )


def _fault(view: Strided) -> str | None:
    storage, offset, shape, strides = view
    if (
        type(storage) is not Storage
        or type(shape) is not tuple
        or type(strides) is not tuple
        or not len(shape) == len(strides) <= _MOST_AXES
        or not all(type(i) is int and 0 <= i < LARGEST_INDEX for i in (offset, *shape, *strides))
        or math.prod(n for n in shape if n) >= LARGEST_INDEX
    ):
        return "is none"
    count = math.prod(shape)
    if count > storage.size:
        return (
            f"has {count} elements and its storage {storage.size}; "
            "save tensor.contiguous() if it is an expanded one"
        )
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if count and last >= storage.size:
        return f"reaches beyond its storage of {storage.size}"
    return None


def _check_totals(views: Mapping[str, Strided], length: int) -> None:
    """Members of a zip archive may overlap, and tensors too: neither may fill the memory."""
    storages = {view.storage.key: _bytes(view.storage) for view in views.values()}
    if sum(storages.values()) > length:
        raise TorchArchiveError(
            f"its tensors' storages have {sum(storages.values())} bytes and the file {length}; "
            f"{said(next(iter(views)))} is the first of them. Fetch it again"
        )
    total = 0
    for name, view in views.items():
        total += math.prod(view.shape) * view.storage.dtype.itemsize
        if total > _MOST_COPIES * length:
            raise TorchArchiveError(
                f"its tensors up to {said(name)} share storages, and copies of them would take "
                f"more than {_MOST_COPIES} times the file's {length} bytes"
            )
