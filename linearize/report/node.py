"""A result file, read and checked key by key, so that every error names its key."""

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linearize import files, sealed

Floats = NDArray[np.float64]

SCHEMA = 1
ANEW = "run the experiment again: it is made anew from what was measured"


class ResultsError(ValueError):
    """A result file is missing, damaged, or not what its schema says."""


def read(run_dir: Path | str) -> "Node":
    """``results.json`` of a run directory.

    Raises:
        ResultsError: the file is missing, was changed, is no JSON object, or of another schema.
    """
    path = Path(run_dir) / "results.json"
    try:
        files.check_regular(path)
        if wrong := sealed.problem(path):
            raise ResultsError(f"{path} {wrong}; {ANEW}")
        raw = files.read_json(path, kind=object)
    except FileNotFoundError:
        raise ResultsError(
            f"no results.json in {str(run_dir)!r}; give the directory of a finished run"
        ) from None
    except NotADirectoryError:
        raise ResultsError(
            f"{str(run_dir)!r} is no directory; give the directory of a finished run"
        ) from None
    except files.CorruptFileError as error:
        raise ResultsError(f"{error}: damaged or unfinished; {ANEW}") from None
    except OSError as error:
        raise ResultsError(f"{path} cannot be read: {error}") from None
    try:
        return checked(raw)
    except ResultsError as error:
        raise ResultsError(f"{path}: {error}") from None


def checked(raw: Any) -> "Node":
    """A decoded ``results.json`` of the schema that this version reads.

    Raises:
        ResultsError: no JSON object, or another schema.
    """
    top = Node(raw, "")
    schema = top.get("schema")
    if schema != SCHEMA:
        raise ResultsError(
            f"schema is {reprlib.repr(schema)}, this version reads {SCHEMA}; use the version of "
            "linearize that wrote the run, or run the experiment again"
        )
    return top


_MISSING = object()


def _scalars(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for each in value:
            yield from _scalars(each)
    else:
        yield value


@dataclass(frozen=True)
class Node:
    """An object of the file and its key path, so that every error can name the key."""

    value: Any
    path: str

    def __post_init__(self) -> None:
        if not isinstance(self.value, Mapping):
            raise ResultsError(
                f"{self.path or 'the file'} is a {type(self.value).__name__}; expected an object"
            )

    def name(self, key: str) -> str:
        """The path of a key, for messages."""
        return f"{self.path}/{key}" if self.path else key

    def wrong(self, key: str, expected: str) -> ResultsError:
        """The error about a key's value, whose beginning it shows."""
        value = reprlib.repr(self.get(key))
        return ResultsError(f"{self.name(key)} is {value}; expected {expected}")

    def has(self, key: str) -> bool:
        """Whether the key is there."""
        return self.get(key, default=_MISSING) is not _MISSING

    def get(self, key: str, default: Any = ...) -> Any:
        """The raw value of a key; slashes lead inwards."""
        value = self.value
        for part in [key] if key in value else key.split("/"):  # a task's name may hold a slash
            if not isinstance(value, Mapping) or part not in value:
                if default is ...:
                    raise ResultsError(f"key {self.name(key)!r} is missing")
                return default
            value = value[part]
        return value

    def list(self, key: str) -> Sequence[Any]:
        """A list, empty where the key is absent or null."""
        value = self.get(key, default=None)
        if value is None:
            return ()
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise self.wrong(key, "a list")
        return value

    def children(self, key: str) -> "tuple[Node, ...]":
        """A list of objects."""
        return tuple(Node(v, self.name(f"{key}/{i}")) for i, v in enumerate(self.list(key)))

    def child(self, key: str) -> "Node":
        """An object."""
        return Node(self.get(key), self.name(key))

    def mapping(self, key: str) -> Mapping[str, Any]:
        """An object's entries, none where the key is absent or null."""
        value = self.get(key, default=None)
        if value is None:
            return {}
        return Node(value, self.name(key)).value

    def names(self, key: str) -> tuple[str, ...]:
        """A list of distinct strings."""
        value = self.get(key)
        if not isinstance(value, Sequence) or not all(isinstance(v, str) for v in value):
            raise self.wrong(key, "a list of names")
        if isinstance(value, str) or len(set(value)) != len(value):
            raise self.wrong(key, "distinct names")
        return tuple(value)

    def integers(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers."""
        value = self.get(key)
        if not isinstance(value, Sequence) or not all(type(v) is int for v in value):
            raise self.wrong(key, "a list of whole numbers")
        return tuple(value)

    def numbers(
        self, key: str, shape: tuple[int | None, ...], upper: float | None = None
    ) -> Floats:
        """An array of float64 of this shape (None: any length); in [0, upper] where asked."""
        value = self.get(key)
        try:
            array = np.asarray(value, np.float64)
            if any(isinstance(each, str | bool) for each in _scalars(value)):
                raise TypeError  # which NumPy takes for numbers
        except (TypeError, ValueError):
            raise ResultsError(f"{self.name(key)} is not a regular list of numbers") from None
        fits = len(array.shape) == len(shape) and all(
            want is None or got == want for got, want in zip(array.shape, shape, strict=True)
        )
        if not fits:
            wanted = tuple("any" if n is None else n for n in shape)
            raise ResultsError(f"{self.name(key)} has shape {array.shape}; expected {wanted}")
        if upper is not None and (
            np.nanmin(array, initial=0) < 0 or np.nanmax(array, initial=0) > upper
        ):
            raise ResultsError(
                f"{self.name(key)} reaches from {np.nanmin(array):g} to {np.nanmax(array):g}; "
                f"expected fractions in [0, {upper:g}]"
            )
        return array

    def optional(
        self, key: str, shape: tuple[int | None, ...], upper: float | None = None
    ) -> Floats | None:
        """The same, or None where the key is absent or null."""
        if self.get(key, default=None) is None:
            return None
        return self.numbers(key, shape, upper)
