"""Tensors of whole modules that torch pickled, without torch, their classes, or any of their code.

``torch.save(module, path)`` names the module's classes, and TorchScript its own. Here every class
outside the standard library becomes an inert shell that keeps what the pickle puts into it, so
files are read whose classes have been renamed or are no longer there. Words of the standard library
that no module needs end the reading.
"""

import sys
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from linearize import files
from linearize.models import torch_archive
from linearize.models.torch_pickle import TENSOR, Strided, TorchArchiveError, Unpickler
from linearize.unpickle import PickleError, Shell, Word, kind, words

_NEEDED = {
    "builtins": {"set", "frozenset", "slice", "range", "complex", "bytearray", "object", "getattr"}
    | {"dict", "list"},
    "collections": {"defaultdict", "deque", "Counter"},
    "functools": {"partial"},
    "pathlib": {"Path", "PosixPath", "WindowsPath", "PurePosixPath"},
    "argparse": {"Namespace"},
    "copyreg": {"_reconstructor"},
    "_codecs": {"encode"},
    "types": {"SimpleNamespace"},
}
"""Words of the standard library that whole modules do use; they become shells like all others."""
_LONGEST_NAME = 1000
"""Characters. A pickle can hold a long name once and nest it many times."""


def _of_type(function: Any, _: Any, arguments: Any, *__: Any) -> Strided:
    """Tensors of a subclass; what that adds is not looked at."""
    if function != TENSOR or type(arguments) is not tuple:
        raise TorchArchiveError("its pickle builds a tensor in an unknown way; nothing was run")
    return TENSOR.call(*arguments)


_WORDS = Unpickler.known | words(
    Word("torch._utils._rebuild_parameter_with_state", lambda data, *_: data),
    Word("torch._tensor._rebuild_from_type_v2", _of_type),
)


class _Unpickler(Unpickler):
    known = _WORDS

    def find_class(self, module: str, name: str) -> Word:
        # protocols up to 2, torch's among them, call the standard library as Python 2 did
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        try:
            return super().find_class(module, name)
        except PickleError:
            root = module.partition(".")[0]
            builds_tensors = root == "torch" and name.startswith("_rebuild")
            if builds_tensors or (
                root in sys.stdlib_module_names and name not in _NEEDED.get(module, ())
            ):
                raise
            return Word(f"{module}.{name}", lambda *_: Shell(name))

    def persistent_load(self, pid: Any) -> Any:
        # the stream format names a class together with its source, which is not looked at
        if type(pid) is tuple and len(pid) == 4 and type(pid[0]) is str and pid[0] == "module":
            return pid[1]
        return super().persistent_load(pid)


def read(path: str | Path) -> dict[str, np.ndarray]:
    """All tensors of a torch file by their dotted names, as ``module.state_dict()`` has them.

    Args:
        path: a state dict, alone or among other things; a whole module; or TorchScript.

    Raises:
        TorchArchiveError: the file is truncated, holds no tensors, or its pickle names a word of
            the standard library that no module needs (nothing was run).
        FileNotFoundError: there is no such file.
    """
    return torch_archive.read_with(path, _Unpickler, _tensors)


def is_torch(path: Path) -> bool:
    """Whether the file is a zip archive, as torch's are since 1.6."""
    with files.open_regular(path) as file:
        return zipfile.is_zipfile(file)


def _tensors(loaded: Any) -> dict[str, Strided]:
    found = dict(_walk(loaded, (), set()))
    if not found:
        raise TorchArchiveError(
            f"it holds a {kind(loaded)} without tensors; save the module or its state dict"
        )
    return found


def _walk(value: Any, path: tuple[str, ...], seen: set[int]) -> Iterator[tuple[str, Strided]]:
    """Tensors with dotted names; torch's own three dictionaries leave no trace in a name."""
    if isinstance(value, Strided):
        if sum(map(len, path)) > _LONGEST_NAME:
            name = ".".join(part[:20] for part in path[:8])
            raise TorchArchiveError(
                f"the name of tensor {name!r}... has more than {_LONGEST_NAME} characters"
            )
        yield ".".join(path), value
        return
    if isinstance(value, Shell):
        value = value.state
        if type(value) is tuple and value and isinstance(value[0], Mapping):
            value = value[0]
    if not isinstance(value, Mapping) or id(value) in seen:
        return
    seen.add(id(value))
    own = [k for k in ("_parameters", "_buffers", "_modules") if isinstance(value.get(k), Mapping)]
    inner = [pair for key in own for pair in value[key].items()] if own else value.items()
    for key, item in inner:
        if isinstance(key, str):
            yield from _walk(item, (*path, key), seen)
