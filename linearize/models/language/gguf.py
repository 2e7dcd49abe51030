"""GGUF files of llama.cpp: their tensors, dequantised, as if transformers had written them.

The file says all that a ``config.json`` does, and holds its tokenizer. Numbers are dequantised by
the ``gguf`` package, each tensor when it is asked for, out of memory-mapped bytes.
"""

import math
import os
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from linearize import files
from linearize.models.backbone import WeightsError
from linearize.models.hf.sources import Source

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS = dict(enumerate(("B", "b", "H", "h", "I", "i", "f", "?"))) | {10: "Q", 11: "q", 12: "d"}
"""By the format's number of a type, its letter for ``struct``."""
_STRING, _ARRAY = 8, 9

_WORDS = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.value_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.sliding_window": "sliding_window",
    "attention.sliding_window_pattern": "sliding_window_pattern",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "rope.dimension_count": "head_dim",
    "rope.freq_base": "rope_theta",
    "rope.freq_base_swa": "rope_local_base_freq",
    "vocab_size": "vocab_size",
}
"""What is said of an architecture, and the word of transformers' configuration for it."""
_STRETCH = {"rope.scaling.type": "rope_type", "rope.scaling.factor": "factor"}
"""Likewise inside ``rope_scaling``."""
_TOKENS = {f"{name}_token_id": f"tokenizer.ggml.{name}_token_id" for name in ("bos", "eos")}
_BIASES = {"attention_bias": "blk.0.attn_q.bias", "mlp_bias": "blk.0.ffn_up.bias"}
_NAMES = (
    (r"token_embd\.", "model.embed_tokens."),
    (r"output_norm\.", "model.norm."),
    (r"output\.", "lm_head."),
    (r"blk\.(\d+)\.attn_norm\.", r"model.layers.\1.input_layernorm."),
    (r"blk\.(\d+)\.attn_output\.", r"model.layers.\1.self_attn.o_proj."),
    (r"blk\.(\d+)\.attn_([qkv])\.", r"model.layers.\1.self_attn.\2_proj."),
    (r"blk\.(\d+)\.ffn_(gate|up|down)\.", r"model.layers.\1.mlp.\2_proj."),
)
_TWO_NORMS = (
    *_NAMES,
    (r"blk\.(\d+)\.ffn_norm\.", r"model.layers.\1.post_attention_layernorm."),
)
_FOUR_NORMS = (
    *_NAMES,
    (r"blk\.(\d+)\.attn_([qk])_norm\.", r"model.layers.\1.self_attn.\2_norm."),
    (r"blk\.(\d+)\.post_attention_norm\.", r"model.layers.\1.post_attention_layernorm."),
    (r"blk\.(\d+)\.ffn_norm\.", r"model.layers.\1.pre_feedforward_layernorm."),
    (r"blk\.(\d+)\.post_ffw_norm\.", r"model.layers.\1.post_feedforward_layernorm."),
)


@dataclass(frozen=True)
class _Architecture:
    """How llama.cpp writes one.

    Attributes:
        kind: transformers' word for it.
        names: its tensors' names, and transformers'.
        turned: tensors whose rows are in another order, head by head, and the count of heads.
        added: what the norms' scales are more than transformers'.
        by_heads: numbers of blocks for which it scales scores by 1 / √(D / heads), where other
            depths have 1 / √(width of a head); None where all have the latter, and say nothing.
    """

    kind: str
    names: tuple[tuple[str, str], ...]
    turned: Mapping[str, str] = field(default_factory=dict)
    added: float = 0.0
    by_heads: tuple[int, ...] | None = None


_TURNED = {".attn_q.": "num_attention_heads", ".attn_k.": "num_key_value_heads"}
_ARCHITECTURES = {
    "llama": _Architecture("llama", _TWO_NORMS, _TURNED),
    "gemma": _Architecture("gemma", _TWO_NORMS, added=1.0),
    "gemma2": _Architecture("gemma2", _FOUR_NORMS, added=1.0, by_heads=(46,)),
    "gemma3": _Architecture("gemma3_text", _FOUR_NORMS, added=1.0, by_heads=(62,)),
}


@dataclass(frozen=True)
class Vocabulary:
    """The tokenizer inside.

    Attributes:
        model: ``"gpt2"`` for byte-level pairs, ``"llama"`` for SentencePiece.
        pre: the name of how text is split before.
        tokens: the pieces, by number.
        kinds: of each: 1 normal, 2 unknown, 3 control, 4 of the user, 5 unused, 6 a byte.
        merges: ``"left right"``, the first merged first.
        scores: of SentencePiece's pieces.
        special: numbers of ``bos``, ``eos``, ``unknown``, ``padding``, those that it has.
        add_bos: whether a text begins with ``bos``; None where the file does not say.
        add_space: whether a space is set before it, likewise.
        chat_template: Jinja, or "".
    """

    model: str
    pre: str
    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    merges: tuple[str, ...]
    scores: tuple[float, ...]
    special: Mapping[str, int]
    add_bos: bool | None
    add_space: bool | None
    chat_template: str


@dataclass(frozen=True)
class _Tensor:
    name: str
    shape: tuple[int, ...]
    type: int
    offset: int


@dataclass(frozen=True)
class _File:
    path: Path
    notes: Mapping[str, Any]
    tensors: tuple[_Tensor, ...]
    data: int


def read(path: Path) -> Source:
    """Tensors under transformers' names, and ``config.json`` as transformers would say it.

    Raises:
        WeightsError: the file is truncated or none of GGUF; of an architecture that is not read;
            tensors of a type that is not dequantised, all named; or a vocabulary that does not fit
            the embedding.
        ModuleNotFoundError: the ``gguf`` package is not installed.
    """
    file = _open(path)
    arch = file.notes.get("general.architecture")
    if not isinstance(arch, str) or arch not in _ARCHITECTURES:
        raise WeightsError(
            f"{path} is of the architecture {arch!r}; GGUF files are read of: "
            + ", ".join(_ARCHITECTURES)
        )
    row = _ARCHITECTURES[arch]
    kinds = _kinds(file)
    config = _config(file, arch)
    _check_vocabulary(file)
    mapped = np.memmap(path, np.uint8, "r")
    tensors: dict[str, Callable[[], np.ndarray]] = {}
    size = 0
    for tensor in file.tensors:
        kind, block, width = kinds[tensor.type]
        heads = next((config.get(n) for t, n in row.turned.items() if t in tensor.name), None)
        rows, columns = (*tensor.shape, 1)[0], (1, *tensor.shape)[-1]
        if columns % block or (heads and (type(heads) is not int or rows % (2 * heads))):
            raise WeightsError(
                f"{path}: {tensor.name} has shape {tensor.shape}; expected rows of whole blocks of "
                f"{block} numbers" + f", for {heads} heads" * bool(heads)
            )
        start = file.data + tensor.offset
        stop = start + math.prod(tensor.shape) // block * width
        if stop > len(mapped):
            raise WeightsError(
                f"{path} is truncated: {tensor.name} ends at byte {stop} of {len(mapped)}; fetch "
                "it again"
            )
        size += stop - start
        name = _renamed(tensor.name, row.names)
        if name in tensors:
            raise WeightsError(f"{path} holds {tensor.name} twice")
        added = row.added if tensor.name.endswith("norm.weight") else 0.0
        tensors[name] = partial(_dequantised, mapped[start:stop], kind, tensor.shape, heads, added)
    return Source(path, tensors, {"config.json": config}, size)


def vocabulary(path: str | Path) -> Vocabulary:
    """The tokenizer inside a GGUF file.

    Raises:
        WeightsError: the file is none, or holds no tokenizer.
    """
    file = _open(Path(path))
    get = {n.removeprefix("tokenizer."): v for n, v in file.notes.items()}.get
    model, tokens = get("ggml.model"), get("ggml.tokens")
    if not isinstance(tokens, list) or not isinstance(model, str):
        raise WeightsError(f"{path} holds no tokenizer; pass one of the model's")
    special = {n: get(f"ggml.{n}_token_id") for n in ("bos", "eos", "unknown", "padding")}
    return Vocabulary(
        model=model,
        pre=get("ggml.pre", "default"),
        tokens=tuple(tokens),
        kinds=tuple(get("ggml.token_type") or ()),
        merges=tuple(get("ggml.merges") or ()),
        scores=tuple(get("ggml.scores") or ()),
        special={name: number for name, number in special.items() if number is not None},
        add_bos=get("ggml.add_bos_token"),
        add_space=get("ggml.add_space_prefix"),
        chat_template=get("chat_template", ""),
    )


def _renamed(name: str, names: tuple[tuple[str, str], ...]) -> str:
    for pattern, theirs in names:
        found, times = re.subn(f"^{pattern}", theirs, name)
        if times:
            return found
    return name


def _dequantised(
    stored: np.ndarray, kind: Any, shape: tuple[int, ...], heads: int | None, added: float
) -> np.ndarray:
    from gguf import quants

    rows = stored.reshape(*shape[:-1], -1) if len(shape) > 1 else stored
    out = quants.dequantize(_typed(rows, kind), kind).reshape(shape)
    if heads is None:
        return out - np.float32(added) if added else out
    # llama.cpp turns neighbours (2i, 2i + 1), transformers (i, i + W / 2)
    return out.reshape(heads, -1, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def _typed(stored: np.ndarray, kind: Any) -> np.ndarray:
    plain = {"F32": np.float32, "F16": np.float16}.get(kind.name)
    return stored if plain is None else stored.view(plain)


def _kinds(file: _File) -> dict[int, tuple[Any, int, int]]:
    """Of the types of the file's tensors the ``gguf`` package's, numbers and bytes of a block."""
    try:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants
    except ImportError:
        raise ModuleNotFoundError(
            f"{file.path} is read with gguf: pip install 'linearize[language]'"
        ) from None
    found, wrong = {}, []
    for number in sorted({tensor.type for tensor in file.tensors}):
        try:
            kind = GGMLQuantizationType(number)
            block, width = GGML_QUANT_SIZES[kind]
            quants.dequantize(_typed(np.zeros((1, width), np.uint8), kind), kind)
            found[number] = kind, block, width
        except (ValueError, KeyError, NotImplementedError):
            name = next((k.name for k in GGMLQuantizationType if k == number), f"number {number}")
            held = [tensor.name for tensor in file.tensors if tensor.type == number]
            wrong.append(f"{name}: {', '.join(held[:4])}{', ...' if len(held) > 4 else ''}")
    if wrong:
        raise WeightsError(
            f"{file.path} holds tensors of types that are not dequantised; fetch a file of another "
            "quantisation, such as Q8_0:\n  " + "\n  ".join(wrong)
        )
    return found


def _config(file: _File, arch: str) -> dict[str, Any]:
    """The configuration; what is said of the architecture and not known stays under its name."""
    names, row = {tensor.name for tensor in file.tensors}, _ARCHITECTURES[arch]
    config: dict[str, Any] = {
        "model_type": row.kind,
        "tie_word_embeddings": "output.weight" not in names,
        **{word: True for word, name in _BIASES.items() if name in names},
        **{n: file.notes[their] for n, their in _TOKENS.items() if their in file.notes},
    }
    notes = dict(file.notes)
    if (kind := notes.get(f"{arch}.rope.scaling.type")) is not None:
        told = {word: _plain(notes.pop(f"{arch}.{n}", None)) for n, word in _STRETCH.items()}
        config |= {} if kind == "none" else {"rope_scaling": told}
    for name, value in notes.items():
        if not name.startswith(f"{arch}."):
            continue
        word = _WORDS.get(name.removeprefix(f"{arch}."), name)
        value = _plain(value)
        if config.get(word, value) != value:
            raise WeightsError(
                f"{file.path}: {name} is {value}, and another note makes {word} {config[word]}; "
                "no model here has both"
            )
        config[word] = value
    config.setdefault("num_key_value_heads", config.get("num_attention_heads"))
    if row.by_heads is not None and "head_dim" in config:
        width, heads = config.get("hidden_size"), config.get("num_attention_heads")
        whole = isinstance(width, int) and isinstance(heads, int) and heads > 0
        if whole and config.get("num_hidden_layers") in row.by_heads:
            config["query_pre_attn_scalar"] = config["hidden_size"] / config["num_attention_heads"]
        else:
            config["query_pre_attn_scalar"] = config["head_dim"]
    if (rows := _rows(file)) is not None:
        config.setdefault("vocab_size", rows)
    return config


def _plain(value: Any) -> Any:
    """A float32 in the fewest digits that say it."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _rows(file: _File) -> int | None:
    """Tokens of the embedding."""
    found = (t.shape for t in file.tensors if t.name == "token_embd.weight" and t.shape)
    return next((shape[0] for shape in found), None)


def _check_vocabulary(file: _File) -> None:
    tokens = file.notes.get("tokenizer.ggml.tokens")
    rows = _rows(file)
    if tokens is not None and rows is not None and len(tokens) != rows:
        raise WeightsError(
            f"{file.path}: its tokenizer has {len(tokens)} tokens and its embedding {rows} rows; "
            "they are not of one model"
        )


class _Reader:
    """Numbers and strings of a file's head, one after another."""

    def __init__(self, path: Path, data: Any) -> None:
        self.path, self.data, self.at = path, data, 0

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise WeightsError(
                f"{self.path} is truncated or no GGUF: {size} bytes are wanted at byte {self.at} "
                f"of {len(self.data)}; fetch it again"
            )
        self.at += size
        return bytes(self.data[self.at - size : self.at])

    def number(self, letter: str) -> Any:
        return struct.unpack(f"<{letter}", self.take(struct.calcsize(f"<{letter}")))[0]

    def string(self) -> str:
        return self.take(self.number("Q")).decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            inner, count = self.number("I"), self.number("Q")
            if inner == _ARRAY:
                raise WeightsError(f"{self.path} has lists of lists before byte {self.at}")
            if inner in _SCALARS:
                letter = _SCALARS[inner]
                packed = self.take(count * struct.calcsize(f"<{letter}"))
                return list(struct.unpack(f"<{count}{letter}", packed))
            return [self.value(inner) for _ in range(count)]
        if kind not in _SCALARS:
            raise WeightsError(f"{self.path} has a note of the type {kind} before byte {self.at}")
        return self.number(_SCALARS[kind])


def _open(path: Path) -> _File:
    """A file's head."""
    try:
        with files.open_regular(path) as opened:
            if os.fstat(opened.fileno()).st_size < len(_MAGIC) or opened.read(4) != _MAGIC:
                raise WeightsError(f"{path} is no GGUF file; it does not begin with GGUF")
        reader = _Reader(path, np.memmap(path, np.uint8, "r"))
    except (OSError, files.CorruptFileError) as error:
        raise WeightsError(f"weights cannot be read: {error}") from error
    reader.take(len(_MAGIC))
    version = reader.number("I")
    if version not in _VERSIONS:
        raise WeightsError(
            f"{path} is GGUF of version {version}; versions {', '.join(map(str, _VERSIONS))} are "
            "read, little-endian"
        )
    count, said = reader.number("Q"), reader.number("Q")
    notes = {reader.string(): reader.value(reader.number("I")) for _ in range(said)}
    tensors = []
    for _ in range(count):
        name, rank = reader.string(), reader.number("I")
        shape = tuple(reader.number("Q") for _ in range(rank))[::-1]
        tensors.append(_Tensor(name, shape, reader.number("I"), reader.number("Q")))
    step = notes.get("general.alignment", 32)
    if type(step) is not int or not 0 < step <= 2**20:
        raise WeightsError(f"{path}: general.alignment is {step!r}; expected a power of two")
    return _File(path, notes, tuple(tensors), -(-reader.at // step) * step)
