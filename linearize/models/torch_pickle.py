"""What torch's pickles may name, and the records of tensors that they become."""

from typing import IO, Any, NamedTuple, NoReturn

import ml_dtypes
import numpy as np

from linearize import unpickle
from linearize.unpickle import ORDERED, PickleError, Word, not_called, said, words

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
_NEWER = {
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
    "float8_e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "float8_e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
}
"""Torch's dtypes without a storage of their own, which lie in bytes."""
LARGEST_INDEX = 2**48
"""Of sizes, strides and offsets: products with an item's size stay below 2**63."""


class TorchArchiveError(PickleError):
    """Not a torch state dict, a damaged one, or one that wants to run code."""


class Storage(NamedTuple):
    """Where tensors lie; as all that a pickle gets hold of, a tuple, for that cannot be changed."""

    key: str
    dtype: np.dtype
    size: int


class Strided(NamedTuple):
    """A tensor that is described, and neither checked nor read yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _of_bytes(
    storage: Any, offset: Any, shape: Any, strides: Any, _: Any, __: Any, word: Any, *___: Any
) -> Strided:
    """A tensor of a dtype that has no storage of its own."""
    if type(storage) is not Storage or storage.dtype != np.uint8 or word not in _NEWER_WORDS:
        raise TorchArchiveError("its pickle builds a tensor in an unknown way; nothing was run")
    dtype = _NEWER_WORDS[word]
    return Strided(
        Storage(storage.key, dtype, storage.size // dtype.itemsize), offset, shape, strides
    )


TENSOR = Word("torch._utils._rebuild_tensor_v2", lambda *args: Strided(*args[:4]))
_KINDS = {Word(f"torch.{name}", not_called): np.dtype(t) for name, t in _STORAGES.items()}
_KINDS[Word("torch.storage.UntypedStorage", not_called)] = np.dtype(np.uint8)
_NEWER_WORDS = {Word(f"torch.{name}", not_called): np.dtype(t) for name, t in _NEWER.items()}
_WORDS = words(
    TENSOR,
    Word("torch._utils._rebuild_tensor_v3", _of_bytes),
    *_NEWER_WORDS,
    Word("torch._utils._rebuild_parameter", lambda data, *_: data),
    ORDERED,
    *_KINDS,
)


class Unpickler(unpickle.Unpickler):
    """Builds records of the tensors that the pickle describes.

    Attributes:
        storages: those that the pickle named, by key.
    """

    known = _WORDS
    otherwise = (
        "which no state dict of tensors needs; nothing was run. Save it anew with "
        "torch.save(module.state_dict(), path)"
    )

    def __init__(self, file: IO[bytes]) -> None:
        """Reads one pickle of the file."""
        super().__init__(file)
        self.storages: dict[str, Storage] = {}

    def persistent_load(self, pid: Any) -> Any:
        """The storage that torch's ``("storage", kind, key, location, size)`` describes."""
        if type(pid) is not tuple or len(pid) not in (5, 6) or pid[5:] not in ((), (None,)):
            _refuse_storage(pid)
        tag, word, key, _, size = pid[:5]
        if (
            type(tag) is not str
            or tag != "storage"
            or type(word) is not Word
            or word not in _KINDS
            or type(key) is not str
            or type(size) is not int
            or not 0 <= size < LARGEST_INDEX
        ):
            _refuse_storage(pid)
        storage = self.storages.setdefault(key, Storage(key, _KINDS[word], size))
        if storage != (key, _KINDS[word], size):
            raise TorchArchiveError(f"storage {said(key)} has two kinds or two sizes")
        return storage


def _refuse_storage(pid: Any) -> NoReturn:
    raise TorchArchiveError(f"it describes an impossible storage: {said(pid)}")
