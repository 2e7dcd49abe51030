"""Checkpoints larger than memory: task vectors between them, and edited ones, tensor by tensor.

No model is built. Leaves are the files' own tensors, so whatever transformers saves will do, each
is read when it is asked for, and what is written has the dtypes of the base. Elementwise merges
give there, to the bit, what they give a model's leaves; merges of matrices see those of the files,
where queries, keys and values are apart.
"""

import logging
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from linearize import files, shards, tree
from linearize.lazy import Lazy
from linearize.models.backbone import WeightsError
from linearize.models.families import DIALECTS
from linearize.models.fine_tuned import is_vector, placed, under
from linearize.models.hf import adapters, configs, sources
from linearize.models.hf.adapters import Change
from linearize.models.hf.engine import dialect
from linearize.models.hf.export import beside
from linearize.models.hf.table import Table, unwrap
from linearize.models.language import LANGUAGE
from linearize.task_vector import TaskVector

log = logging.getLogger(__name__)

_FILES = (".safetensors", ".safetensors" + shards.INDEX)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A model's tensors, none of them read yet, and what lies beside them.

    Attributes:
        source: the file, or the index of several, and the parsed notes beside.
        leaves: floating tensors by name, without what wrappers put before all names; of a model
            whose names are known here, as its table writes them.
        rest: all others, by their own names.
        spelled: the own name of each of the leaves.
    """

    source: sources.Source
    leaves: Mapping[str, Lazy]
    rest: Mapping[str, Lazy]
    spelled: Mapping[str, str]

    @cached_property
    def fingerprint(self) -> str:
        """That of the leaves (:func:`linearize.tree.fingerprint`), which are read once for it."""
        return tree.fingerprint(dict(self.leaves))


def open_checkpoint(where: str | Path) -> Checkpoint:
    """Safetensors, a file or shards with their index, of any model; headers alone are read.

    Args:
        where: a folder that ``save_pretrained`` wrote, a file, an index, or a repository's name.

    Raises:
        FileNotFoundError: there are no weights.
        WeightsError: they are no safetensors; a file is damaged, a shard missing or out of its
            folder, a tensor in two shards; they are quantized.
        NonFiniteError: a tensor holds NaN or infinity; when it is read.
    """
    path = sources.locate(where)
    if not path.name.endswith(_FILES):
        raise WeightsError(
            f"{path} is no safetensors file, and only these are read tensor by tensor; save it "
            "again with save_pretrained(folder, safe_serialization=True)"
        )
    try:
        tensors, _ = shards.open_tree(path)
    except (OSError, files.CorruptFileError) as error:
        raise WeightsError(f"weights cannot be read: {error}") from error
    source = sources.read(path)
    _check_plain(tensors, source)
    names = _names(tensors, source.notes, str(path))
    floating = {n: x for n, x in tensors.items() if tree.is_trainable(x)}
    leaves = under(floating, names, str(path))
    spelled = {names[n]: n for n in floating}
    return Checkpoint(
        source, leaves, {n: x for n, x in tensors.items() if n not in floating}, spelled
    )


def checkpoint_vector(
    base: Checkpoint | str | Path, weights: str | Path, *, leave_out: tree.Pattern = None
) -> TaskVector:
    """θ − θ0 of two checkpoints, or of an adapter, of which no leaf is made before it is asked for.

    As :func:`linearize.models.task_vector`, whose leaves are a model's and in memory.

    Args:
        base: θ0.
        weights: a fine-tuned model as :func:`open_checkpoint` takes it; a LoRA adapter of PEFT,
            which is small and read at once; or what :meth:`linearize.TaskVector.save` wrote of a
            vector that this function gave.
        leave_out: regular expressions of names: what they find stays at θ0.

    Returns:
        The vector, lazy, in float32, on all floating tensors of the base.

    Raises:
        WeightsError: tensors that only one side has, of another shape (resized embeddings) or of no
            floating dtype, or that differ and are of none on both sides, all named; a configuration
            beside the weights that is of another model; a stored vector of a model's leaves; and as
            :func:`open_checkpoint`.
        StructureMismatch: a stored vector of another base.
        FileNotFoundError: there are no weights.
    """
    base = base if isinstance(base, Checkpoint) else open_checkpoint(base)
    source, config = adapters.read(weights)
    if is_vector(source.path):
        return _stored(base, source.path)
    _check_same(base.source, source)
    if config is None:
        tuned = open_checkpoint(source.path)
        _check_rest(base, tuned, leave_out)
        changes = {n: Change(partial(np.asarray, x), known=x) for n, x in tuned.leaves.items()}
        _warn_of_rounding(base, tuned)
    else:
        found = adapters.changes(source, config, _tables(base.source.notes))
        changes = under(found, _names(found, base.source.notes, str(source)), str(source))
    delta = placed(
        base.leaves, changes, leave_out=leave_out, what=str(source), partly=config is not None
    )
    meta = {"weights": str(weights), "leave_out": leave_out}
    return TaskVector(
        {n: tree.finite(n, x, f"{source} minus {base.source}") for n, x in delta.items()},
        base.fingerprint,
        {name: told for name, told in meta.items() if told},
    )


def export_checkpoint(
    folder: str | Path,
    base: Checkpoint | str | Path,
    tau: TaskVector,
    scale: float = 1.0,
    *,
    shard_size: int | str = "5GB",
) -> Path:
    """Write θ0 + α τ, tensor by tensor, in shards with an index that transformers opens.

    Every tensor has the name and the dtype that it has in the base, and the configuration, the
    processors and the tokenizer are copied. Shards take their places together, the index last
    (:func:`linearize.shards.save_tree`).

    Args:
        folder: made where absent; a model that lies there is replaced.
        base: θ0.
        tau: a vector of :func:`checkpoint_vector`, or what became of several.
        scale: α.
        shard_size: bytes of tensors in a shard, at most, or as ``"2GB"``.

    Returns:
        The folder.

    Raises:
        StructureMismatch: a vector of another base.
        ValueError: ``folder`` is the base's own; ``scale`` or ``shard_size`` is none.
        NonFiniteError: the sum is NaN or infinite somewhere in its dtype.
        OSError: a file cannot be written.
    """
    base = base if isinstance(base, Checkpoint) else open_checkpoint(base)
    folder, home = Path(folder), base.source.path.parent
    if folder.resolve() == home.resolve():
        raise ValueError(f"folder={str(folder)!r} holds the base, which is read; give another")
    shards.number_of_bytes(shard_size)
    _check_base(base, tau)
    folder.mkdir(parents=True, exist_ok=True)
    for path in beside(home):
        shutil.copyfile(path, folder / path.name)
    moved = tau.apply_to(dict(base.leaves), scale, check_base=False)
    own = {
        base.spelled[n]: _as_wide(x, moved[n], tau.delta.get(n), scale)
        for n, x in base.leaves.items()
    }
    shards.save_tree(folder / "model.safetensors", {**base.rest, **own}, size=shard_size)
    return folder


def _as_wide(leaf: Lazy, moved: Any, delta: Any, scale: float) -> Any:
    """A moved leaf in float64 where the base's is, which JAX has in float32."""
    if leaf.dtype != np.float64:
        return moved

    def summed() -> np.ndarray:
        by = 0.0 if delta is None else scale * np.asarray(delta, np.float64)
        return np.asarray(leaf, np.float64) + by

    return Lazy(leaf.shape, leaf.dtype, summed)


def _names(names: Iterable[str], notes: Mapping[str, Any], what: str) -> dict[str, str]:
    """Each name as the table of the model's kind writes it, or without wrappers' words alone."""
    tables = _tables(notes)
    return dialect(names, tables, what)[1] if tables else unwrap(names)


def _tables(notes: Mapping[str, Any]) -> tuple[Table, ...]:
    kind = _model_type(notes)
    language = (family.dialects for family in LANGUAGE.values() if family.kind == kind)
    return DIALECTS.get(configs.KINDS.get(kind, ""), ()) or next(language, ())


def _model_type(notes: Mapping[str, Any]) -> str:
    told = notes.get("config.json", {})
    kind = told.get("model_type") if isinstance(told, Mapping) else None
    return kind if isinstance(kind, str) else ""


_QUANTIZED = ("quantization_config", "compression_config")


def _check_plain(tensors: Mapping[str, Lazy], source: sources.Source) -> None:
    """Tensors are weights, and not codes and scales of weights, of which no difference is one.

    Raises:
        WeightsError: the configuration says so, or a tensor is of eight bits.
    """
    told = source.notes.get("config.json", {})
    said = [key for key in _QUANTIZED if isinstance(told, Mapping) and told.get(key)]
    narrow = [f"{n} is {x.dtype}" for n, x in tensors.items() if "float8" in str(x.dtype)]
    if wrong := [f"its config.json has a {key}" for key in said] + narrow:
        raise WeightsError(
            f"{source} is quantized ({wrong[0]}), and a difference of quantized weights is none of "
            "weights; dequantize it: model.dequantize().save_pretrained(folder) of transformers"
        )


def _check_rest(base: Checkpoint, tuned: Checkpoint, leave_out: tree.Pattern) -> None:
    """Tensors that are not floating, of which no vector is, agree but for those left out.

    Raises:
        WeightsError: all that differ; of those that one side lacks nothing is said.
    """
    left = tree.finder(() if leave_out is None else leave_out)
    wrong = [
        name
        for name, leaf in tuned.rest.items()
        if name in base.rest and not left(name)
        if not np.array_equal(np.asarray(leaf), np.asarray(base.rest[name]))
    ]
    if wrong:
        raise WeightsError(
            f"{tuned.source} differs from the base in tensors that are not floating, which a task "
            f"vector cannot hold: {', '.join(wrong[:9])}{', ...' * (len(wrong) > 9)}; leave_out "
            "them where they do not matter"
        )


def _stored(base: Checkpoint, path: Path) -> TaskVector:
    tau = TaskVector.open(path)
    if not tau.delta.keys() <= base.leaves.keys() and any("/" in name for name in tau.delta):
        raise WeightsError(
            f"{path} is a vector of a model's leaves, and the base's are a file's tensors; apply "
            "it to the model in memory (linearize merge without --shard-size)"
        )
    _check_base(base, tau)
    return tau


def _check_base(base: Checkpoint, tau: TaskVector) -> None:
    tau.check(dict(base.leaves), base=False)
    if tau.base not in ("", base.fingerprint):
        raise tree.StructureMismatch(
            f"the task vector is of another base model than {base.source}: fingerprint "
            f"{tau.base[:16]}..., and its is {base.fingerprint[:16]}..."
        )


def _check_same(base: sources.Source, tuned: sources.Source) -> None:
    """Configurations agree wherever both say a thing that decides the function.

    Raises:
        WeightsError: all that differs.
    """
    ours, theirs = (source.notes.get("config.json", {}) for source in (base, tuned))
    wrong = [
        f"{key} is {theirs[key]!r} there and {ours[key]!r} in the base"
        for key in ours
        if key in theirs and (key == "model_type" or key not in configs.IGNORED)
        if theirs[key] != ours[key]
    ]
    if wrong:
        raise WeightsError(
            f"{tuned.path.parent / 'config.json'} makes another function of the same weights than "
            f"the base's: {'; '.join(wrong)}"
        )


def _warn_of_rounding(base: Checkpoint, tuned: Checkpoint) -> None:
    narrow = [
        name
        for name, leaf in tuned.leaves.items()
        if name in base.leaves and leaf.dtype.itemsize < base.leaves[name].dtype.itemsize
    ]
    if narrow:
        log.warning(
            "%s has %d tensor(s), %s first, in %s where the base has %s: what rounding moved is in "
            "the vector; take a base of that dtype",
            tuned.source,
            len(narrow),
            narrow[0],
            tuned.leaves[narrow[0]].dtype,
            base.leaves[narrow[0]].dtype,
        )
