"""A kernel file: all that prediction needs, re-opened without the model.

A safetensors file written by :mod:`linearize.io`: arrays and JSON, no code; whole or absent; with a
hash, so that a truncated file or a flipped bit is an error.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from linearize import io
from linearize.ntk import checks

_KIND = "linearize.kernel"


@dataclass(frozen=True, eq=False)
class Archive:
    """What a kernel file holds; arrays are of the dtypes in which they were saved."""

    kernel: np.ndarray
    """(N1, N2), (N1, N2, C) or (N1, N2, C1, C2)."""
    f0: np.ndarray
    """(N1, C): outputs at θ0 on the inputs of axis 0."""
    labels: np.ndarray
    """(N1,) class indices, or (N1, C) targets."""
    ids: np.ndarray
    """(N1,) example ids of axis 0, integers or strings."""
    train_ids: np.ndarray
    """(N2,) example ids of axis 1; ``ids`` again in a training kernel."""
    fingerprint: str
    """Of the model's parameters (:func:`linearize.tree.fingerprint`)."""
    config: dict[str, Any] = field(default_factory=dict)
    """How the kernel was computed, as far as JSON can say; with versions."""


def save(
    path: str | Path,
    kernel: ArrayLike,
    f0: ArrayLike,
    labels: ArrayLike,
    ids: ArrayLike,
    fingerprint: str,
    config: Mapping[str, Any] | None = None,
    *,
    train_ids: ArrayLike | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a kernel and what belongs to it to one file, whole or not at all.

    Args:
        path: the file to write, say ``train.kernel.safetensors``.
        kernel: of any layout; kept in its dtype.
        f0: outputs at θ0 on the inputs of axis 0, (N1, C).
        labels: their labels (N1,), or targets (N1, C).
        ids: their example ids (N1,), integers or strings, all different.
        fingerprint: :func:`linearize.tree.fingerprint` of the parameters.
        config: what to remember of its making; JSON's values.
        train_ids: ids of axis 1 (N2,) where that is another set: the training examples, none of
            which may be among ``ids``.
        overwrite: replace a file that is there.

    Raises:
        FileExistsError: there is a file, and ``overwrite`` is false.
        ValueError: shapes that do not fit one another, ids that repeat or overlap, no fingerprint.
        NonFiniteError: NaN or infinity.
        TypeError: ``config`` has no form in JSON, or a dtype none in safetensors.
        OSError: the file cannot be written; what was there is untouched.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save(f"{folder}/k", np.eye(2), np.zeros((2, 1)), [0, 1], ["a", "b"], "f" * 64)
    ...     load(path).ids.tolist()
    ['a', 'b']
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} is there already; pass overwrite=True to replace it")
    if not fingerprint:
        raise ValueError("fingerprint is empty; give linearize.tree.fingerprint(params)")
    arrays = {n: np.asarray(a) for n, a in (("kernel", kernel), ("f0", f0), ("labels", labels))}
    _check_shapes(**arrays)
    rows = _ids("ids", ids, arrays["kernel"].shape[0])
    columns = rows
    if train_ids is not None:
        columns = _ids("train_ids", train_ids, arrays["kernel"].shape[1])
        checks.check_disjoint(columns, rows)
    elif arrays["kernel"].shape[0] != arrays["kernel"].shape[1]:
        raise ValueError(
            f"kernel has shape {arrays['kernel'].shape}, two sets of inputs, but train_ids is "
            "None; give the ids of axis 1"
        )
    notes = {
        "kind": _KIND,
        "fingerprint": fingerprint,
        "config": json.dumps(io.to_json({"versions": io.versions(), **(config or {})})),
        "ids": json.dumps(rows.tolist()),
        "train_ids": json.dumps(None if train_ids is None else columns.tolist()),
    }
    return io.save_tree(path, arrays, notes)


def load(path: str | Path, fingerprint: str | None = None) -> Archive:
    """Read what :func:`save` wrote.

    Args:
        path: the file.
        fingerprint: of the model that the kernel should be of; ``None`` asks for none.

    Raises:
        FileNotFoundError: there is no such file.
        CorruptFileError: the file is truncated or damaged, or holds no kernel.
        ValueError: the kernel is of another model; with both fingerprints.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save(f"{folder}/k", np.eye(2), np.zeros((2, 1)), [0, 1], ["a", "b"], "f" * 64)
    ...     load(path, fingerprint="f" * 64).kernel.shape
    (2, 2)
    """
    arrays, notes = io.load_tree(path)
    if notes.get("kind") != _KIND:
        raise io.CorruptFileError(
            f"{path} holds arrays but no kernel (kind {notes.get('kind')!r}); open it with "
            "linearize.io.load_tree or linearize.TaskVector.load"
        )
    found = notes["fingerprint"]
    if fingerprint is not None and fingerprint != found:
        raise ValueError(
            f"{path} holds the kernel of another model: fingerprint {found[:16]}..., expected "
            f"{fingerprint[:16]}...; compute the kernel for these parameters, or load the "
            "parameters that it was computed with"
        )
    ids, train_ids = (json.loads(notes[n]) for n in ("ids", "train_ids"))
    return Archive(
        **arrays,
        ids=np.asarray(ids),
        train_ids=np.asarray(ids if train_ids is None else train_ids),
        fingerprint=found,
        config=json.loads(notes["config"]),
    )


def _check_shapes(kernel: np.ndarray, f0: np.ndarray, labels: np.ndarray) -> None:
    if kernel.ndim not in (2, 3, 4):
        raise ValueError(f"kernel has shape {kernel.shape}; expected {checks.LAYOUTS}")
    n, outputs = kernel.shape[0], kernel.shape[2] if kernel.ndim > 2 else None
    if f0.ndim != 2 or len(f0) != n or outputs not in (None, f0.shape[1]):
        raise ValueError(
            f"f0 has shape {f0.shape}; expected ({n}, {outputs or 'C'}): the outputs on the inputs "
            "of the kernel's axis 0"
        )
    if labels.shape not in ((n,), f0.shape):
        raise ValueError(f"labels has shape {labels.shape}; expected ({n},) or {f0.shape}")


def _ids(argument: str, values: ArrayLike, examples: int) -> np.ndarray:
    array = np.asarray(values)
    if array.shape != (examples,) or array.dtype.kind not in "iuU":
        raise ValueError(
            f"{argument} has shape {array.shape} and dtype {array.dtype}; expected ({examples},) "
            "integers or strings"
        )
    unique, counts = np.unique(array, return_counts=True)
    if (counts > 1).any():
        repeated = unique[counts > 1].tolist()
        raise ValueError(
            f"{argument} repeats {len(repeated)}: {checks.shorten(repeated)}; give each example "
            "one id of its own"
        )
    return array
