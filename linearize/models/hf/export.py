"""Parameters back to a folder that transformers opens."""

import shutil
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from linearize import io, tree
from linearize.models import layers
from linearize.models.backbone import Backbone, WeightsError
from linearize.models.hf import configs, processors, sources, tables
from linearize.models.hf.engine import export_leaves
from linearize.models.hf.table import Table, unwrap
from linearize.models.language.model import LanguageModel
from linearize.types import Params

_BESIDE = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "*.jinja",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "*.model",
)
"""Configurations, processors and what tokenizers consist of, SentencePiece's models among it."""


def beside(folder: Path) -> list[Path]:
    """The files of a folder of transformers that are neither weights nor made for its authors."""
    found = (path for pattern in _BESIDE for path in sorted(folder.glob(pattern)))
    return [path for path in found if path.is_file()]


def export(
    folder: str | Path,
    backbone: Backbone | LanguageModel,
    params: Params | None = None,
    *,
    like: str | Path | None = None,
) -> Path:
    """Write ``model.safetensors``, float32, its configuration and an image processor's.

    ``from_pretrained`` of transformers opens the folder; what it computes there is what ``f`` does.

    Args:
        folder: made where absent; files of these names in it are replaced.
        backbone: a CLIP, ViT or DINOv2 of :func:`linearize.models.load`, or a model of
            :func:`linearize.models.load_language`, all its blocks kept. What a language model ties
            is written once.
        params: its parameters after editing, ``tau.apply_to(backbone.params)``; θ0 by default.
            Scanned ones are welcome.
        like: a folder or repository of transformers whose image encoder or language model is
            replaced: all else in it (text tower, pooler, tokenizer) is copied. Without it, the
            image encoder is written alone: a ``CLIPVisionModelWithProjection``, a ``ViTModel``
            without pooler, or a ``Dinov2Model`` without mask token.

    Returns:
        The folder.

    Raises:
        ValueError: the backbone is of another kind, or was loaded with another ``output``.
        StructureMismatch: ``params`` has other names or shapes than the backbone.
        WeightsError: ``like`` is of another architecture, or its configuration or image processor
            make another function of the same weights; or transformers has no such function. Nothing
            is written.
        NonFiniteError: a parameter is NaN or infinite.
        OSError: a file cannot be written.
    """
    if not backbone.about.get("kind") or backbone.about.get("architecture") is None:
        raise ValueError(
            f"{backbone.name} is no CLIP, ViT or DINOv2, nor a model of load_language; "
            "io.save_tree keeps any model"
        )
    chosen = backbone.params if params is None else params
    tree.check_match(backbone.params, chosen, what="params")
    tree.check_finite(chosen, what="params")
    table, repeated, check = _readers(backbone)
    tensors = export_leaves(layers.unstack(tree.flatten(chosen)), table)
    folder = Path(folder)
    if like is None:
        notes = _notes(backbone, tensors)
        check(notes, "transformers' own model")
        others: list[Path] = []
    else:
        source = sources.read(like)
        config = {**source.notes.get("config.json", {})}
        if "model_type" not in config:
            raise WeightsError(f"like={str(like)!r} has no config.json of transformers")
        config.pop("torch_dtype", None)
        config["dtype"] = "float32"
        tensors = _replace(source, table, tensors, repeated)
        check(source.notes, f"like={str(like)!r}")
        others = beside(source.path.parent)
        notes = {"config.json": config}
    folder.mkdir(parents=True, exist_ok=True)
    for path in others:
        if path.parent.resolve() != folder.resolve():
            shutil.copyfile(path, folder / path.name)
    for name, note in notes.items():
        io.write_json(folder / name, note)
    io.atomic_write(folder / "model.safetensors", safetensors.numpy.save(tensors, {"format": "pt"}))
    return folder


def _readers(
    model: Backbone | LanguageModel,
) -> tuple[Table, Collection[str], Callable[[Mapping[str, Any], str], None]]:
    """Names as transformers writes them, those it may write again, and the check of its notes."""
    if isinstance(model, LanguageModel):
        assert model.family is not None
        return model.family.dialects[0], model.family.repeated, model.check_same
    ours = model.about["architecture"]
    return table_of(model.about["kind"], ours), (), partial(configs.check_same, ours)


def _notes(model: Backbone | LanguageModel, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What transformers needs to build the model alone, by the names of files."""
    if isinstance(model, LanguageModel):
        assert model.family is not None
        headless = model.head is None and model.family.bare
        config = {**model.about["config"], "architectures": [headless or model.family.builds]}
        config.pop("torch_dtype", None)
        return {"config.json": {**config, "dtype": "float32"}}
    kind, ours = model.kind, model.about["architecture"]
    return {
        "config.json": _config(kind, ours, tensors),
        "preprocessor_config.json": processors.written(kind, ours, model.image_size),
    }


def table_of(kind: str, architecture: Mapping[str, Any]) -> Table:
    """Names as transformers writes them, of a :class:`Backbone`'s kind and architecture."""
    if kind == "dinov2":
        swiglu = architecture["activation"] == "swiglu"
        return tables.DINOV2_SWIGLU if swiglu else tables.DINOV2
    return {"clip": tables.CLIP_VISION, "vit": tables.VIT}[kind]


def _replace(
    source: sources.Source,
    table: Table,
    tensors: Mapping[str, np.ndarray],
    repeated: Collection[str],
) -> dict[str, np.ndarray]:
    """All tensors of the source in float32, those of the table's model replaced.

    What repeats another there is left out, where the model has none of its own.
    """
    out, problems, replaced = {}, [], set()
    bare = unwrap(source.tensors)
    for theirs, read in source.tensors.items():
        name = table.canonical(bare[theirs])
        if name in repeated and name not in tensors:
            continue
        old = read()
        if name in tensors:
            replaced.add(name)
            if old.shape != tensors[name].shape:
                problems.append(f"mis-shaped: {theirs} {old.shape}, ours {tensors[name].shape}")
            out[theirs] = tensors[name]
        elif table.find(name) is not None:
            problems.append(f"missing in params: {theirs}")
        else:
            floating = jnp.issubdtype(old.dtype, jnp.floating)
            out[theirs] = np.asarray(old, np.float32 if floating else old.dtype, order="C")
    problems += [f"missing in {source.path}: {name}" for name in tensors.keys() - replaced]
    if problems:
        raise WeightsError(
            f"{source.path} is of another architecture; {len(problems)} problem(s), nothing was "
            "written:\n  " + "\n  ".join(problems)
        )
    return out


def _config(
    kind: str, architecture: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """What transformers needs to build the image encoder alone."""
    get = architecture.__getitem__
    common = {
        "dtype": "float32",
        "hidden_size": get("width"),
        "num_hidden_layers": get("depth"),
        "num_attention_heads": get("heads"),
        "patch_size": get("patch"),
        "image_size": get("grid") * get("patch"),
        "num_channels": 3,
        "hidden_act": get("activation"),
        "layer_norm_eps": get("eps"),
    }
    if kind == "clip":
        projected = "visual_projection.weight" in tensors
        return common | {
            "model_type": "clip_vision_model",
            "architectures": ["CLIPVisionModelWithProjection" if projected else "CLIPVisionModel"],
            "intermediate_size": get("hidden"),
            "projection_dim": get("projection") or get("width"),
        }
    if kind == "vit":
        return common | {
            "model_type": "vit",
            "architectures": ["ViTModel"],
            "intermediate_size": get("hidden"),
            "qkv_bias": True,
        }
    swiglu = get("activation") == "swiglu"
    ratio, rest = divmod(get("hidden"), get("width"))
    if swiglu:  # transformers: two thirds of ratio * width, rounded up to a multiple of 8
        width, hidden = get("width"), get("hidden")
        ratios = (r for r in range(1, 65) if (width * r * 2 // 3 + 7) // 8 * 8 == hidden)
        ratio = next(ratios, 0)
        if not ratio:
            raise WeightsError(f"transformers has no SwiGLU of hidden={hidden} and width={width}")
    elif rest:
        raise ValueError(f"hidden={get('hidden')} is no multiple of width={get('width')}")
    return common | {
        "model_type": "dinov2",
        "architectures": ["Dinov2Model"],
        "hidden_act": "gelu" if swiglu else get("activation"),
        "mlp_ratio": ratio,
        "qkv_bias": True,
        "use_swiglu_ffn": swiglu,
        "use_mask_token": False,
    }
