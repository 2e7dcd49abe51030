"""What others fine-tuned, as a task vector: whole checkpoints, and LoRA adapters of PEFT."""

import contextlib
import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np

from linearize import io, shards, tree
from linearize.lazy import Lazy, alike
from linearize.models import hf, layers
from linearize.models.backbone import Backbone, WeightsError
from linearize.models.families import DIALECTS
from linearize.models.hf import adapters, configs
from linearize.models.hf.adapters import Change
from linearize.models.hf.engine import dialect, listed
from linearize.models.hf.table import Table, unwrap
from linearize.models.language.model import LanguageModel
from linearize.models.loading import open_model
from linearize.models.model import Model
from linearize.task_vector import KIND, TaskVector
from linearize.types import Array

log = logging.getLogger(__name__)

T = TypeVar("T")

Tensors = Mapping[str, Callable[[], np.ndarray]]

_PROCESSORS = ("processor_config.json", "preprocessor_config.json")
_OF_PROCESSORS = ("mean", "std", "resample")
_FAR = 0.5
"""Of the norm of θ0, from which on a fine-tuning is doubted."""


def task_vector(
    base: Model | str | Path,
    weights: str | Path | hf.Source,
    *,
    leave_out: tree.Pattern = None,
) -> TaskVector:
    """θ − θ0 of a model that others fine-tuned, on all of θ0's trainable leaves.

    Args:
        base: the model at θ0; or its weights, as :func:`linearize.models.open_model` takes them.
        weights: a whole fine-tuned model, wherever :func:`linearize.models.hf.read` finds it; a
            LoRA adapter as PEFT saves it, a folder, file or repository with its
            ``adapter_config.json``; a safetensors file of the model's own names of leaves; or a
            file that :meth:`linearize.TaskVector.save` wrote, which is returned.
        leave_out: regular expressions, searched for in the names of tensors there and of θ0's: what
            they find stays at θ0 (:data:`linearize.tree.Pattern`).

    Returns:
        The vector, in float32. A leaf that an adapter does not touch is zero.

    Raises:
        WeightsError: tensors that only one side has (a classifier's head, say, or a text tower
            that was trained too; what is equal on both sides is no matter), tensors of other shapes
            (resized embeddings, another base), half an adapter: one error names all. An adapter of
            another kind than LoRA, or one that displaces its base (DoRA, PiSSA, ...), and a
            configuration beside the weights that makes another function of them, by name.
        StructureMismatch: a stored vector of another base.
        TypeError: parameters, or anything else that is no place, where a place is expected.
        FileNotFoundError: there are no weights where ``weights`` points.
        NonFiniteError: they hold NaN or infinity.

    >>> import tempfile
    >>> model, where = Model(lambda p, x: p["w"] * x, {"w": np.ones(2, "float32")}), Path("w")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = io.save_tree(Path(folder) / "w.safetensors", {"w": np.float32([1, 3])})
    ...     task_vector(model, path).delta
    {'w': Array([0., 2.], dtype=float32)}
    """
    for name, given, kinds, expected in (
        ("base", base, (Model, str, Path), "a Model, or where its weights are"),
        ("weights", weights, (str, Path, hf.Source), "where they are"),
    ):
        if not isinstance(given, kinds):
            raise TypeError(f"{name} is a {type(given).__name__}; expected {expected}")
    model = base if isinstance(base, Model) else open_model(str(base))
    source, config = adapters.read(weights)
    if is_vector(source.path):
        found = TaskVector.load(source.path)
        found.check(model.params)
        return found
    scanned = layers.are_stacks(model.blocks)
    whole = layers.unstack(tree.flatten(model.params)) if scanned else tree.flatten(model.params)
    leaves = {name: leaf for name, leaf in whole.items() if tree.is_trainable(leaf)}
    delta = _delta(model, leaves, source, config, leave_out)
    tree.check_finite(delta, what=str(source))
    meta = {"weights": str(weights), "leave_out": leave_out}
    found = TaskVector(
        {n: jnp.asarray(x) for n, x in (layers.stack(delta) if scanned else delta).items()},
        tree.fingerprint(model.params),
        {name: told for name, told in meta.items() if told},
    )
    ratio = float(found.norm() / tree.norm(leaves))
    if not 0 < ratio <= _FAR:
        log.warning(
            "%s is %.2g times as far from %s as that is from 0: was it fine-tuned from this base?",
            *(source, ratio, model.name),
        )
    return found


def is_vector(path: Path) -> bool:
    """Whether a file, or an index of shards, says that it holds a task vector."""
    # what is no safetensors file: torch's, an index of shards, tensors in memory
    with contextlib.suppress(io.CorruptFileError, OSError):
        return shards.read_notes(path).get("kind") == KIND
    return False


def _delta(
    model: Model,
    leaves: Mapping[str, Array],
    source: hf.Source,
    config: Any,
    leave_out: tree.Pattern,
) -> dict[str, np.ndarray]:
    """The displacement of each leaf; of the model's own names, or through the tables of others'."""
    place = partial(placed, leave_out=leave_out, what=str(source))
    tables, repeated = _tables(model)
    if config is None:
        changes = {name: Change(read) for name, read in source.tensors.items()}
    else:
        changes = adapters.changes(source, config, tables)
    if tables and not any("/" in name for name in changes):
        _check_function(model, source)
        if config is None:
            changes = hf.untied(
                changes, tables, repeated, leaves, str(source), lambda change: change.read()
            )
        table, names = dialect(changes, tables, str(source))
        moved = place(
            hf.export_leaves(leaves, table),
            under(changes, names, str(source)),
            partly=config is not None,
            held=partial(_held, model, table),
        )
        tensors = {name: partial(np.asarray, x) for name, x in moved.items()}
        return hf.import_leaves(tensors, [table], leaves)
    if config is not None:
        raise WeightsError(
            f"{source} is an adapter of a model of transformers, and {model.name} is none whose "
            "names are known here; merge_and_unload() it there"
        )
    stored = io.load_tree(source.path)[0]
    if layers.are_stacks(model.blocks) or isinstance(model, Backbone | LanguageModel):
        stored = layers.unstack(stored)
    return place(leaves, {n: Change(partial(np.asarray, x)) for n, x in stored.items()})


def _tables(model: Model) -> tuple[tuple[Table, ...], Mapping[str, str]]:
    """The dialects of a model whose weights others read and write, and what they repeat."""
    if isinstance(model, LanguageModel) and model.family is not None:
        return model.family.dialects, model.family.repeated
    return DIALECTS.get(model.kind, ()) if isinstance(model, Backbone) else (), {}


def _check_function(model: Model, source: hf.Source) -> None:
    """What lies beside the weights, if it says so, makes of them what the base is.

    Raises:
        WeightsError: it is of another kind, or makes another function.
    """
    where = source.path.parent
    if isinstance(model, LanguageModel):
        model.check_same(source.notes, str(where))
        return
    kind, own = configs.kind(source.notes, where), model.about["kind"]
    if kind not in (None, own):
        raise WeightsError(f"{source} holds a {kind!r}, and the base {model.name} a {own!r}")
    told = any(name in source.notes for name in _PROCESSORS)
    ours = {
        name: value
        for name, value in (model.about["architecture"] or {}).items()
        if told or name not in _OF_PROCESSORS
    }
    configs.check_same(ours, source.notes, str(where))


def under(changes: Mapping[str, T], names: Mapping[str, str], what: str) -> dict[str, T]:
    """What is said of tensors, under other names.

    Raises:
        WeightsError: two of one name.
    """
    found: dict[str, T] = {}
    for theirs, change in changes.items():
        if names[theirs] in found:
            raise WeightsError(f"{what} holds {names[theirs]} twice, once as {theirs}")
        found[names[theirs]] = change
    return found


def placed(
    ours: Mapping[str, Any],
    changes: Mapping[str, Change],
    *,
    leave_out: tree.Pattern,
    what: str,
    partly: bool = False,
    held: Callable[[], Tensors] = dict,
) -> dict[str, Any]:
    """The displacement of each of our tensors, zero where it is left out.

    Args:
        ours: θ0, by name; where it is lazy, so is the displacement.
        changes: what is said of tensors, ours and others.
        leave_out: as :func:`task_vector`.
        what: the file, for messages.
        partly: whether tensors of which nothing is said are as they were.
        held: tensors that lie beside θ0 in its own file, read if there are changes of such.

    Raises:
        WeightsError: one that only one side has, or of another shape; all are named.
    """
    left = tree.finder(leave_out or ())
    wanted = {name: change for name, change in changes.items() if not left(name)}
    moved, problems = {}, []
    for name, base in ours.items():
        still = partial(np.zeros, base.shape, np.float32)
        moved[name] = alike(base, still, np.dtype(np.float32))
        if name in wanted:
            try:
                own = base if isinstance(base, Lazy) else np.asarray(base)
                moved[name] = wanted[name].displacement(own)
            except WeightsError as error:
                problems.append(f"{name} {error}")
        elif not partly and not left(name):
            problems.append(f"missing: {name}")
    others = [name for name in wanted if name not in ours]
    beside = held() if others else {}
    problems += [f"only there: {n}" for n in others if not _idle(wanted[n], beside.get(n))]
    if problems:
        raise WeightsError(
            f"{what} is not of the base's tensors alone; {len(problems)} problem(s), nothing was "
            "loaded. leave_out=, regular expressions of names, leaves what they find as in the "
            "base:\n  " + listed(problems)
        )
    return moved


def _idle(change: Change, base: Callable[[], np.ndarray] | None) -> bool:
    """Whether a tensor that is no parameter of ours is none at all, or as it was."""
    found = change.read()
    if not jnp.issubdtype(found.dtype, jnp.floating):
        return True  # positions' indices and other counters
    if not change.replaces:
        return not found.any()
    return base is not None and np.array_equal(found, base(), equal_nan=True)


def _held(model: Model, table: Table) -> Tensors:
    """What lies in the file that θ0 was read from, by the table's names."""
    path = model.about["weights"]
    if path is None or not path.exists():
        return {}
    tensors = hf.read(path).tensors
    return {table.canonical(name): tensors[theirs] for theirs, name in unwrap(tensors).items()}
