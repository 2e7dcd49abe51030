"""Trees over several safetensors files, with the index by which transformers finds them.

Leaves are written as they are made and read when they are asked for: whatever a tree's size, what
is in memory is a leaf, and what that is made of.
"""

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from linearize import files, io, tree
from linearize.files import CorruptFileError
from linearize.lazy import Lazy
from linearize.types import PyTree
from linearize.written import replacing, sync

INDEX = ".index.json"
"""How the name of an index ends, after that of the file that its shards are parts of."""
_HASH, _MOST_JSON = "linearize.sha256", 2**26
_UNITS = {"": 1, **{f"{k}B": 1000**i for i, k in enumerate(("", "K", "M", "G", "T"))}}
_UNITS |= {f"{k}IB": 1024**i for i, k in enumerate(("K", "M", "G", "T"), 1)}


def save_tree(
    path: str | Path, params: PyTree, notes: Mapping[str, str] | None = None, *, size: int | str
) -> Path:
    """Write a tree's leaves to ``NAME-0000i-of-0000n.safetensors``, and their index.

    Every shard is on the disk before any takes its place, and the index comes last: until then
    nothing there looks whole, and what was there before is as it was.

    Args:
        path: ``NAME.safetensors``, of which these are the parts. A file or an index of that name,
            and that index's shards, are replaced.
        params: a tree of arrays, lazy or not.
        notes: strings to keep in the index.
        size: bytes of tensors in a shard, at most, or as ``"2GB"``; a leaf that is larger has a
            shard of its own.

    Returns:
        The index, ``NAME.safetensors.index.json``.

    Raises:
        NonFiniteError: a leaf holds NaN or infinity.
        TypeError, ValueError: a leaf has no place in safetensors (:func:`linearize.io.save_tree`);
            a path of another ending, a size that is none, a tree without a leaf.
        OSError: a file cannot be written.
    """
    path, most = Path(path), number_of_bytes(size)
    if path.suffix != ".safetensors":
        raise ValueError(f"path={str(path)!r}; expected NAME.safetensors, whose parts are written")
    leaves = {
        n: x if hasattr(x, "dtype") else np.asarray(x) for n, x in tree.flatten(params).items()
    }
    if not leaves:
        raise ValueError(f"the tree to save to {path} has no leaf")
    for name, leaf in leaves.items():
        io.spelled(name, leaf)
    parts = list(_parts(leaves, most))
    stem = path.name.removesuffix(".safetensors")
    names = [f"{stem}-{i + 1:05}-of-{len(parts):05}.safetensors" for i in range(len(parts))]
    told = {str(k): str(v) for k, v in (notes or {}).items()}
    index = path.with_name(path.name + INDEX)
    digests: dict[str, str] = {}
    with ExitStack() as stack:  # what was entered first takes its place last
        last = stack.enter_context(replacing(index))
        for name, part in zip(names, parts, strict=True):
            file = stack.enter_context(replacing(path.with_name(name)))
            digests |= _write(file, {n: leaves[n] for n in part}, path.with_name(name))
            sync(file)
        metadata = {"total_size": sum(map(_bytes, leaves.values())), **told}
        metadata[_HASH] = io.hashed(tree.together(digests), told)
        listed = {n: name for name, part in zip(names, parts, strict=True) for n in part}
        text = json.dumps({"metadata": metadata, "weight_map": listed}, indent=2) + "\n"
        last.write(text.encode())
        sync(last)
        _remove(path, index, keep=names)
    return index


def open_tree(path: str | Path) -> tuple[dict[str, Lazy], dict[str, str]]:
    """Leaves that are read when they are asked for, and notes, of one file or an index of several.

    What states a hash is read once, leaf by leaf, to verify it.

    Raises:
        FileNotFoundError: there is no such file.
        CorruptFileError: a file is damaged; an index names a shard that is not there or not in its
            folder, or a tensor that is in none or in two.
        NonFiniteError: a leaf holds NaN or infinity; of others' files, when it is read.
    """
    path = Path(path)
    if not path.name.endswith(INDEX):
        return io.open_tree(path)
    told = files.read_json(path, most=_MOST_JSON)
    listed = weight_map(path, told)
    leaves: dict[str, Lazy] = {}
    for shard in sorted(set(listed.values())):
        stored = io.stored_tensors(path.with_name(shard))
        if twice := sorted(stored.keys() & leaves.keys()):
            raise CorruptFileError(
                f"{path}: {twice[0]} is in {shard} and in another shard; which one counts is said "
                "differently by different readers, so delete one"
            )
        check_held(path, {n for n, place in listed.items() if place == shard}, stored)
        leaves |= {name: entry.lazy() for name, entry in stored.items()}
    metadata = told.get("metadata")
    notes = {k: v for k, v in _mapping(metadata).items() if isinstance(v, str)}
    stated = notes.pop(_HASH, None)
    if stated is not None and stated != io.hashed(tree.fingerprint(leaves), notes):
        raise CorruptFileError(
            f"{path}: it or its shards were changed after they were written, or are of several "
            "trees: together they do not have the SHA-256 that it states; write or fetch all anew"
        )
    return leaves, notes


def load_tree(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """As :func:`open_tree`, read whole.

    Raises:
        FileNotFoundError, CorruptFileError, NonFiniteError: as :func:`open_tree`.
    """
    if not Path(path).name.endswith(INDEX):
        return io.load_tree(path)
    leaves, notes = open_tree(path)
    return {name: leaf.make() for name, leaf in leaves.items()}, notes


def read_notes(path: str | Path) -> dict[str, str]:
    """The notes beside a tree, of which no tensor is read.

    Raises:
        CorruptFileError, OSError: the file or index cannot be read.
    """
    if not Path(path).name.endswith(INDEX):
        return io.read_notes(path)
    told = _mapping(files.read_json(path, most=_MOST_JSON).get("metadata"))
    return {k: v for k, v in told.items() if isinstance(v, str) and k != _HASH}


def weight_map(index: Path, told: Mapping[str, Any], *, here: bool = True) -> dict[str, str]:
    """The shard of each tensor by the index's word, each a name within its folder.

    Args:
        index: the file.
        told: what it says.
        here: whether the shards must lie there.

    Raises:
        CorruptFileError: it names none, or what is not in its folder.
    """
    listed = told.get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise CorruptFileError(f"{index} has no weight_map that names the file of each tensor")
    names = set(map(str, listed.values()))
    wrong = sorted(
        name for name in names if name in ("", "..") or Path(name).name != name or "\0" in name
    )
    if wrong or not all(isinstance(shard, str) for shard in listed.values()):
        raise CorruptFileError(
            f"{index}: weight_map names {', '.join(map(repr, wrong[:4])) or 'what is no text'}; "
            "expected names of files in the index's own folder"
        )
    absent = sorted(name for name in names if here and not (index.parent / name).exists())
    if absent:
        raise CorruptFileError(
            f"{index} names {', '.join(absent[:8])}, which {index.parent} does not hold; fetch all "
            "shards"
        )
    home = index.parent.resolve()
    homes = [home]
    if home.parent.name == "snapshots":  # the Hub's own cache, whose names are links to blobs
        homes.append(home.parents[1] / "blobs")
    outside = sorted(n for n in names if here and (index.parent / n).resolve().parent not in homes)
    if outside:
        raise CorruptFileError(
            f"{index}: weight_map names {', '.join(outside[:4])}, a link out of its folder; copy "
            "the file there, or point to the folder where all lie"
        )
    return listed


def check_held(index: Path, listed: Iterable[str], held: Iterable[str]) -> None:
    """Tensors that an index names are there.

    Raises:
        CorruptFileError: some are not.
    """
    if lost := sorted(set(listed) - set(held)):
        raise CorruptFileError(
            f"{index} names tensors that no shard holds: {', '.join(lost[:8])}"
            + (f" and {len(lost) - 8} more" if len(lost) > 8 else "")
        )


def number_of_bytes(size: int | str) -> int:
    """Bytes, of a number or of words such as ``"2GB"`` and ``"500MiB"``.

    Raises:
        ValueError: it is none, or not above 0.

    >>> number_of_bytes("1.5 kB"), number_of_bytes("2GiB")
    (1500, 2147483648)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)", str(size).strip())
    unit = _UNITS.get(match[2].upper()) if match else None
    found = int(float(match[1]) * unit) if match and unit else 0
    if found < 1 or isinstance(size, bool):
        raise ValueError(f"size={size!r}; expected bytes, such as 2000000000, '2GB' or '500MiB'")
    return found


def _parts(leaves: Mapping[str, Any], most: int) -> Iterable[list[str]]:
    """Names in their order, as many together as fit."""
    part: list[str] = []
    held = 0
    for name, leaf in leaves.items():
        if part and held + _bytes(leaf) > most:
            yield part
            part, held = [], 0
        part.append(name)
        held += _bytes(leaf)
    yield part


def _bytes(leaf: Any) -> int:
    return int(np.size(leaf)) * np.dtype(leaf.dtype).itemsize


def _write(file: BinaryIO, leaves: Mapping[str, Any], path: Path) -> dict[str, str]:
    """A safetensors file, wide dtypes first so that all lie aligned; the leaves' digests."""
    words = {name: io.spelled(name, leaf) for name, leaf in leaves.items()}
    order = sorted(leaves, key=lambda name: (-np.dtype(leaves[name].dtype).itemsize, name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name in order:
        end = place + _bytes(leaves[name])
        shape = list(np.shape(leaves[name]))
        header[name] = {"dtype": words[name], "shape": shape, "data_offsets": [place, end]}
        place = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    digests = {}
    for name in order:
        array = tree.to_numpy(leaves[name])
        if array.shape != np.shape(leaves[name]) or array.dtype != leaves[name].dtype:
            raise ValueError(
                f"{name} was to be {np.shape(leaves[name])} {leaves[name].dtype} and was made "
                f"{array.shape} {array.dtype}"
            )
        tree.check_finite({name: array}, what=f"tree to save to {path}")
        digests[name] = tree.leaf_digest(name, array)
        file.write(array.reshape(-1).view(np.uint8).data)
    return digests


def _remove(path: Path, index: Path, keep: Iterable[str]) -> None:
    """What was of that name before, and would be read in place of the new or lie about.

    Others may have written the old index: of what it lists, shards of that name alone are removed.
    """
    old: set[str] = set()
    if index.exists():
        try:
            told = files.read_json(index, most=_MOST_JSON)
            old = set(weight_map(index, told, here=False).values())
        except CorruptFileError:
            pass  # nobody's shards
        index.unlink()
    path.unlink(missing_ok=True)
    shard = re.compile(re.escape(path.stem) + r"-\d{5}-of-\d{5}\.safetensors")
    for name in filter(shard.fullmatch, old - set(keep)):
        path.with_name(name).unlink(missing_ok=True)


def _mapping(told: Any) -> dict[str, Any]:
    return told if isinstance(told, dict) else {}
