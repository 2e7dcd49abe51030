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

from linearize.models import torch_archive
from linearize.models.torch_archive import TorchArchiveError

_NEEDED = {
    "builtins": {"set", "frozenset", "slice", "range", "complex", "bytearray", "object", "getattr"},
    "collections": {"defaultdict", "deque", "Counter"},
    "functools": {"partial"},
    "pathlib": {"Path", "PosixPath", "WindowsPath", "PurePosixPath"},
    "argparse": {"Namespace"},
    "copyreg": {"_reconstructor"},
    "_codecs": {"encode"},
    "types": {"SimpleNamespace"},
}
"""Words of the standard library that whole modules do use; they become shells like all others."""


class Shell:
    """Stands for an object of a class that is not looked for: it keeps its state and does nothing.

    Attributes:
        state: what the pickle put into it: a mapping of attributes, as a rule.
    """

    state: Any = None

    def __new__(cls, *_: Any, **__: Any) -> "Shell":
        """Whatever the arguments are, they are not looked at."""
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        """Nothing."""

    def __setstate__(self, state: Any) -> None:
        """Keep the state as it is."""
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Entries of what was a mapping are of no use here."""

    def append(self, value: Any) -> None:
        """Entries of what was a list are of no use here."""

    def extend(self, values: Any) -> None:
        """Likewise."""

    add = append
    __hash__ = object.__hash__


class _Unpickler(torch_archive.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # protocols up to 2, torch's among them, call the standard library as Python 2 did
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        if (module, name) == ("torch._utils", "_rebuild_parameter_with_state"):
            return lambda data, *_: data
        if (module, name) == ("torch._tensor", "_rebuild_from_type_v2"):
            return lambda function, _, arguments, __: function(*arguments)
        try:
            return super().find_class(module, name)
        except TorchArchiveError:
            root = module.partition(".")[0]
            builds_tensors = root == "torch" and name.startswith("_rebuild")
            if builds_tensors or (
                root in sys.stdlib_module_names and name not in _NEEDED.get(module, ())
            ):
                raise
            return type(name.rpartition(".")[2], (Shell,), {})

    def persistent_load(self, pid: Any) -> Any:
        # the stream format names a class together with its source, which is not looked at
        return pid[1] if pid[0] == "module" else super().persistent_load(pid)


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
    return zipfile.is_zipfile(path)


def _tensors(loaded: Any) -> dict[str, Any]:
    found = dict(_walk(loaded, "", set()))
    if not found:
        raise TorchArchiveError(
            f"it holds a {type(loaded).__name__} without tensors; save the module or its state dict"
        )
    return found


def _walk(value: Any, prefix: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Tensors with dotted names; torch's own three dictionaries leave no trace in a name."""
    if isinstance(value, torch_archive.View):
        yield prefix, value
        return
    if isinstance(value, Shell):
        value = value.state
        if isinstance(value, tuple) and value and isinstance(value[0], Mapping):
            value = value[0]
    if not isinstance(value, Mapping) or id(value) in seen:
        return
    seen.add(id(value))
    own = [k for k in ("_parameters", "_buffers", "_modules") if isinstance(value.get(k), Mapping)]
    inner = [pair for key in own for pair in value[key].items()] if own else value.items()
    for key, item in inner:
        if isinstance(key, str):
            yield from _walk(item, f"{prefix}.{key}" if prefix else key, seen)
