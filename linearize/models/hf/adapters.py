"""LoRA adapters as PEFT saves them (Hu et al. 2021, arXiv 2106.09685): changes of a base's tensors.

ΔW = s B A with s = α / r, or α / √r where rank-stabilized (arXiv 2312.03732). What
``adapter_config.json`` says is held to a table, as all configurations are: a key that is neither
understood nor switched off is refused by name.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from linearize.lazy import Lazy
from linearize.models.backbone import WeightsError
from linearize.models.hf import schema, sources
from linearize.models.hf.schema import Key
from linearize.models.hf.sources import Source
from linearize.models.hf.table import SAME, Table

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
PREFIX = "base_model.model."
_PART = re.compile(r"(.+)\.(lora_(?:A\.weight|B\.weight|B\.bias|embedding_A|embedding_B))")
PAIRS = (("lora_A.weight", "lora_B.weight"), ("lora_embedding_A", "lora_embedding_B"))

_DRAWN = (True, False, "gaussian", "eva", "orthogonal", "mica")
"""Ways to draw A and B that leave the base as it is."""
_RANK, _ALPHA = schema.size(8), schema.number(8, -1e9, 1e9)
KEYS = {
    "peft_type": schema.only("LORA"),
    "r": _RANK,
    "lora_alpha": _ALPHA,
    "use_rslora": schema.flag(False),
    "rank_pattern": schema.part(),
    "alpha_pattern": schema.part(),
    "modules_to_save": Key(None, lambda v: isinstance(v, list), "expected a list of names"),
    "use_dora": schema.only(False),
    "fan_in_fan_out": schema.flag(False),
    "init_lora_weights": Key(
        True,
        lambda v: any(type(v) is type(x) and v == x for x in _DRAWN),
        "PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA displace the base too: save the adapter with "
        "path_initial_model_for_weight_conversion=, or the model after merge_and_unload()",
    ),
}
"""The keys of PEFT's LoraConfig that decide ΔW."""
_REQUIRED = ("peft_type", "r", "lora_alpha")
"""PEFT writes them always, and their defaults changed between its versions."""
_NO_INFLUENCE = """
    auto_mapping base_model_name_or_path revision task_type inference_mode peft_version bias
    target_modules exclude_modules layers_to_transform layers_pattern lora_dropout lora_bias
    megatron_core loftq_config eva_config corda_config lora_ga_config
    velora_config qalora_group_size runtime_config
"""
IGNORED = frozenset(_NO_INFLUENCE.split())
"""Keys of no influence on ΔW: notes, training, and which tensors the file has (it says itself)."""


@dataclass(frozen=True)
class Change:
    """What a file says of one tensor of the base.

    Attributes:
        read: the new value, or what is added to the old.
        replaces: whether it is the former.
        known: something of its shape and dtype, where these are known before it is read.
    """

    read: Callable[[], np.ndarray]
    replaces: bool = True
    known: Any = None

    def displacement(self, base: Any) -> Any:
        """Float32, of the base's shape; lazy where the base is.

        Raises:
            WeightsError: the two are of other shapes, or the file's is not floating; of a lazy
                base, at once if that is known, or when it is made.
        """
        if isinstance(base, Lazy):
            if self.known is not None:
                _check_like(self.known, base)
            made = partial(self._lazily, base)
            return Lazy(base.shape, np.dtype(np.float32), made)
        found = self.read()
        _check_like(found, base)
        with np.errstate(over="ignore"):  # beyond float32 is infinite, which is refused by name
            found = np.asarray(found, np.float32)
        return found - np.asarray(base, np.float32) if self.replaces else found

    def _lazily(self, base: Lazy) -> np.ndarray:
        return self.displacement(np.asarray(base))


def _check_like(found: Any, base: Any) -> None:
    if found.shape != base.shape:
        raise WeightsError(f"is {found.shape}, the base's is {base.shape}")
    if not jnp.issubdtype(found.dtype, jnp.floating):
        raise WeightsError(f"is {found.dtype}, not floating")


def read(where: str | Path | Source) -> tuple[Source, Any]:
    """Weights of a fine-tuning, and the parsed ``adapter_config.json`` where they are an adapter.

    Args:
        where: as :func:`linearize.models.hf.read`; or a folder, a file or a repository of PEFT's.

    Raises:
        WeightsError: an adapter without its configuration, or beside a whole model; and as
            :func:`linearize.models.hf.read`.
        FileNotFoundError: there is no such place, or nothing in it.
    """
    given: str | Path | Source = where
    if not isinstance(where, Source) and (
        Path(where).expanduser().is_dir() or sources.is_hub(where)
    ):
        noted = sources.beside(where, (CONFIG,))
        given = (noted and sources.beside(where, WEIGHTS)) or where
        whole = None if given is where else sources.beside(where, sources.WEIGHTS)
        if whole is not None:
            raise WeightsError(
                f"{where} holds an adapter and {whole.name}; point to the file that is meant"
            )
    source = sources.read(given)
    if not any(n.startswith("base_model.") or ".lora_" in n for n in source.tensors):
        return source, None
    noted = sources.beside(source, (CONFIG,))
    if noted is None:
        raise WeightsError(
            f"{source} is an adapter, and no {CONFIG} beside it tells its rank and alpha"
        )
    return source, sources.read_note(noted)


def changes(source: Source, config: Any, tables: Sequence[Table] = ()) -> dict[str, Change]:
    """What an adapter changes, by the base's names of tensors.

    ``modules_to_save`` and trained biases are there whole.

    Args:
        source: the adapter's tensors.
        config: its ``adapter_config.json``.
        tables: of the base's names, if they are known: which of its modules have their weights as
            (in, out), as transformers' ``Conv1D``. Of others ``fan_in_fan_out`` says it, which is
            one for all modules of an adapter.

    Raises:
        WeightsError: a key or value of the configuration that is not understood; half a pair, or
            another rank than the configuration's. One error names all.
    """
    where = f"{source.path.parent / CONFIG}"
    got = _settings(config, where)
    modules: dict[str, dict[str, np.ndarray]] = {}
    found: dict[str, Change] = {}
    problems = []
    for name, tensor in source.tensors.items():
        bare = name.removeprefix(PREFIX)
        match = _PART.fullmatch(bare)
        if match is not None:
            part = modules.setdefault(match[1], {})[match[2]] = tensor()
            if not jnp.issubdtype(part.dtype, jnp.floating):
                problems.append(f"not floating: {name} is {part.dtype}")
            continue
        bare = bare.replace(".base_layer.", ".").replace(".modules_to_save.", ".")
        if bare in found:
            problems.append(f"twice: {name}")
        found[bare] = Change(tensor)
    problems += [
        f"missing: {module}, which modules_to_save names"
        for module in got["modules_to_save"] or ()
        if not any(f".{module}." in f".{name}" for name in found)
    ]
    for module, parts in modules.items():
        rank = _chosen(got["rank_pattern"], module, got["r"])
        scale = _chosen(got["alpha_pattern"], module, got["lora_alpha"])
        scale /= rank**0.5 if got["use_rslora"] else rank
        added = {}
        for pair in PAIRS:
            if not set(pair) & parts.keys():
                continue
            lost = [part for part in pair if part not in parts]
            if lost:
                problems += [f"missing: {module}.{part}" for part in lost]
                continue
            a, b = (parts[part] for part in pair)
            if min(a.ndim, b.ndim) < 2 or not a.shape[0] == b.shape[1] == rank:
                problems.append(
                    f"of another rank: {module} has A {a.shape} and B {b.shape}, and r={rank} in "
                    f"{CONFIG}"
                )
                continue
            turned = pair == PAIRS[1] or _turned(module, tables, got["fan_in_fan_out"])
            added["weight"] = partial(_weight, a, b, scale, turned=turned)
        if "lora_B.bias" in parts:
            added["bias"] = partial(np.multiply, parts["lora_B.bias"], np.float32(scale))
        for name, value in added.items():
            if f"{module}.{name}" in found:
                problems.append(f"twice: {module}.{name}")
            found[f"{module}.{name}"] = Change(value, replaces=False)
    if problems:
        raise WeightsError(
            f"{source} is no whole adapter; {len(problems)} problem(s), nothing was loaded:\n  "
            + "\n  ".join(problems)
        )
    return found


def _turned(module: str, tables: Sequence[Table], otherwise: bool) -> bool:
    """Whether a module's weight lies as (in, out), as our kernels do."""
    for table in tables:
        row = table.find(table.canonical(f"{module}.weight"))
        if row is not None:
            _, ours, layout = table.rows[row[0]]
            return layout is SAME and ours.endswith("kernel")
    return otherwise


def _weight(a: np.ndarray, b: np.ndarray, scale: float, *, turned: bool) -> np.ndarray:
    """What is added to a weight; one that lies as (in, out), or an embedding's, is turned."""
    found = product(a, b, scale)
    return found.T if turned else found


def product(a: np.ndarray, b: np.ndarray, scale: float) -> np.ndarray:
    """``s B A`` in float64, of a linear map or of a convolution's ``(r, in, k, k)``.

    Entries are sums in the order of the ranks, so that none depends on how the others are laid out.
    """
    wide = np.asarray(b, np.float64).reshape(b.shape[:2])
    total = np.zeros((len(wide), *a.shape[1:]))
    for column, row in zip(wide.T, np.asarray(a, np.float64), strict=True):
        total += np.multiply.outer(column, row)
    return scale * total


def config(rank: int, alpha: float, modules: Sequence[str]) -> dict[str, Any]:
    """``adapter_config.json`` of adapters of these modules, and of nothing else."""
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha if alpha % 1 else int(alpha),  # PEFT declares integers
        "target_modules": sorted(modules),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "modules_to_save": None,
        "use_rslora": False,
        "use_dora": False,
        "rank_pattern": {},
        "alpha_pattern": {},
    }


def _settings(config: Any, where: str) -> dict[str, Any]:
    """The values of :data:`KEYS`; what is switched off (null, false, empty) changes nothing."""
    if isinstance(config, Mapping) and config.get("peft_type", "LORA") == "LORA":
        lost = [key for key in _REQUIRED if key not in config]
        if lost:
            raise WeightsError(f"{where} does not tell {', '.join(lost)}, and ΔW depends on it")
        config = {key: value for key, value in config.items() if value or key in KEYS}
    got = schema.read(config, KEYS, IGNORED, where=where)
    for pattern, key in (("rank_pattern", _RANK), ("alpha_pattern", _ALPHA)):
        got[pattern] = got[pattern] or {}
        schema.read(got[pattern], dict.fromkeys(got[pattern], key), where=f"{where}: {pattern}")
        for expression in got[pattern]:
            try:
                re.compile(expression)
            except re.error as error:
                schema.refuse(where, pattern, expression, f"no regular expression ({error})")
    return got


def _chosen(patterns: Mapping[str, Any], module: str, otherwise: Any) -> Any:
    """The value of the first pattern that the module's name ends in, as PEFT looks it up."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return otherwise
