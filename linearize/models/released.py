"""Linearized checkpoints as the authors of *Task Arithmetic in the Tangent Space* released them.

``linear_finetuned.pt`` is a state dict without names: ``model.params0.i`` is the i-th parameter of
θ0 and ``model.params.i`` of θ, in the order in which torch walks OpenCLIP's image encoder. (Their
``zeroshot.pt`` and ``finetuned.pt`` are whole modules with names: :func:`linearize.models.load`
reads those as they are.)
"""

import re
from pathlib import Path

import numpy as np

from linearize.models import torch_modules
from linearize.models.backbone import WeightsError
from linearize.models.hf import Source

_INDEXED = re.compile(r"(?:.*\.)?(params0|params)\.(\d+)")
_BLOCK = (
    "ln_1.weight",
    "ln_1.bias",
    "attn.in_proj_weight",
    "attn.in_proj_bias",
    "attn.out_proj.weight",
    "attn.out_proj.bias",
    "ln_2.weight",
    "ln_2.bias",
    "mlp.c_fc.weight",
    "mlp.c_fc.bias",
    "mlp.c_proj.weight",
    "mlp.c_proj.bias",
)
_BEFORE = (
    "positional_embedding",
    "text_projection",
    "logit_scale",
    "visual.class_embedding",
    "visual.positional_embedding",
    "visual.proj",
    "visual.conv1.weight",
    "visual.ln_pre.weight",
    "visual.ln_pre.bias",
)
_AFTER = (
    "visual.ln_post.weight",
    "visual.ln_post.bias",
    "token_embedding.weight",
    "ln_final.weight",
    "ln_final.bias",
)


def read_linear(path: str | Path, *, like: str | Path | None = None) -> tuple[Source, Source]:
    """θ0 and θ of a linearized checkpoint, for ``models.load(name, weights=...)``.

    The text parameters that the authors' image encoder keeps are among them, and are dropped on
    loading, so no task vector holds any. Every shape is checked there.

    Args:
        path: ``linear_finetuned.pt`` or ``linear_zeroshot.pt``.
        like: a whole module of the same run, ``zeroshot.pt``, whose own order of parameters names
            them; without it, they are in the order of OpenCLIP 2, its text transformer deleted, as
            the authors' code has it.

    Raises:
        WeightsError: the file is no linearized checkpoint, or has another number of parameters.
        TorchArchiveError: it is damaged, or names what no checkpoint needs.
        FileNotFoundError: there is no such file.
    """
    arrays = torch_modules.read(path)
    found: dict[str, dict[int, np.ndarray]] = {"params0": {}, "params": {}}
    for name, array in arrays.items():
        match = _INDEXED.fullmatch(name)
        if match is not None:
            found[match[1]][int(match[2])] = array
    count = len(found["params"])
    if not count or any(set(part) != set(range(count)) for part in found.values()):
        raise WeightsError(
            f"{path} has {count} params.i and {len(found['params0'])} params0.i; a linearized "
            "checkpoint has as many of one as of the other, counted from 0"
        )
    names = _order(count) if like is None else _order_of(like)
    if len(names) != count:
        raise WeightsError(
            f"{path} has {count} parameters and {len(names)} names were found for them; pass "
            "like=, the zeroshot.pt of the same run"
        )
    before, after = (
        Source.of(Path(path), {n: part[i] for i, n in enumerate(names)})
        for part in (found["params0"], found["params"])
    )
    return before, after


def _order(count: int) -> list[str]:
    depth = (count - len(_BEFORE) - len(_AFTER)) // len(_BLOCK)
    blocks = [f"visual.transformer.resblocks.{i}.{n}" for i in range(depth) for n in _BLOCK]
    return [*_BEFORE, *blocks, *_AFTER]


def _order_of(like: str | Path) -> list[str]:
    return [n for n in torch_modules.read(like) if not n.endswith("attn_mask")]
