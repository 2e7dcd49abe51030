"""Sentence encoders: the hidden states of an encoder, pooled (Reimers and Gurevych 2019, SBERT).

What is pooled how is told by the files that sentence-transformers writes beside the weights.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from linearize import identity
from linearize.choices import one_of
from linearize.models import hf
from linearize.models.backbone import WeightsError
from linearize.models.heads import normalize as unit
from linearize.models.hf import schema, sources
from linearize.models.language.model import LanguageModel
from linearize.models.model import Model
from linearize.types import Array, Params

Pooling = Callable[[Params, Array, Array], Array]
"""``pooling(params, hidden (B, L, D), mask (B, L)) -> (B, D)``."""


def mean(params: Params, hidden: Array, mask: Array) -> Array:
    """The mean over the tokens of a mask; zero where there is none."""
    seen = mask[..., None].astype(hidden.dtype)
    return (hidden * seen).sum(1) / jnp.maximum(seen.sum(1), 1)


def first(params: Params, hidden: Array, mask: Array) -> Array:
    """The first token's."""
    return hidden[:, 0]


def pooler(params: Params, hidden: Array, mask: Array) -> Array:
    """``tanh`` of a learned linear map of the first token's, as BERT was trained with."""
    layer = params["pooler"]
    return jnp.tanh(hidden[:, 0] @ layer["kernel"] + layer["bias"][None])


POOLINGS: Mapping[str, Pooling] = {"mean": mean, "first": first, "pooler": pooler}
"""Rows: name -> pooling."""


def sentence_encoder(
    model: LanguageModel, *, pooling: str = "mean", normalize: bool = True
) -> Model:
    """An encoder's pooled hidden states as a model whose features heads read.

    Args:
        model: of tokens and mask, such as BERT, MiniLM and MPNet; its parameters are the model's.
        pooling: a key of :data:`POOLINGS`; ``"pooler"`` of models whose file has one.
        normalize: whether features have length 1.

    Returns:
        ``f(params, tokens (B, L), mask (B, L)) -> features (B, D) float32``; a third input are
        token types (B, L) of a model that has them (BERT's).

    Raises:
        ValueError: an unknown pooling, or a pooler that the model does not have.
    """
    pool, hidden = POOLINGS[one_of("pooling", pooling, POOLINGS)], model.hidden
    if pool is pooler and "pooler" not in model.params:
        raise ValueError(
            f"pooling='pooler'; the weights of {model.name} have none: take 'mean' or 'first'"
        )

    def f(params: Params, tokens: Array, mask: Array, *types: Array) -> Array:
        pooled = pool(params, hidden(params, tokens, mask, *types), mask)
        return unit(pooled) if normalize else pooled

    if stated := identity.whole(hidden):
        f.fingerprint = f"{pooling} {normalize} of {stated}"  # type: ignore[attr-defined]
    about = {**model.about, "feature_dim": model.width, "pooling": pooling, "normalize": normalize}
    return Model(f, model.params, name=model.name, blocks=model.blocks, about=about)


def has_types(model: LanguageModel) -> bool:
    """Whether the model tells a pair's two texts apart by token types, as BERT does."""
    return model.about["architecture"].get("types", 0) > 1


_MODULES = "modules.json"
_KNOWN = ("Transformer", "Pooling", "Normalize")
_POOLING = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "first",
}
"""Theirs, by its name here."""
_OTHERS = (
    *("pooling_mode_max_tokens", "pooling_mode_mean_sqrt_len_tokens"),
    *("pooling_mode_weightedmean_tokens", "pooling_mode_lasttoken"),
)
_NOTES = ("word_embedding_dimension", "include_prompt")


def told(weights: str | Path | hf.Source) -> dict[str, Any]:
    """``pooling`` and ``normalize`` as sentence-transformers wrote them beside the weights.

    Returns:
        Arguments of :func:`sentence_encoder`; none where there is no ``modules.json``.

    Raises:
        WeightsError: it asks for what is not computed here (a dense layer, other poolings).
    """
    note = sources.beside(weights, [_MODULES])
    if note is None:
        return {}
    modules = sources.read_note(note, list)
    kinds = [str(m.get("type", "")).rpartition(".")[2] for m in modules if isinstance(m, Mapping)]
    if len(kinds) != len(modules) or kinds not in ([*_KNOWN], [*_KNOWN[:2]]):
        raise WeightsError(
            f"{note} lists {', '.join(kinds) or 'no module'}; only {', '.join(_KNOWN[:2])} and, "
            f"behind them, {_KNOWN[2]} are computed here"
        )
    wanted = f"{modules[1].get('path', '')}/config.json"
    path = sources.beside(weights, [wanted])
    if path is None:
        raise WeightsError(f"{note} names {wanted}, which is not there; fetch it too")
    keys = dict.fromkeys(_POOLING, schema.flag(False)) | dict.fromkeys(_OTHERS, schema.only(False))
    got = schema.read(sources.read_note(path), keys, _NOTES, where=str(path))
    chosen = [name for key, name in _POOLING.items() if got[key]]
    if len(chosen) != 1:
        raise WeightsError(
            f"{path} asks for {len(chosen)} poolings; expected one of {', '.join(_POOLING)}"
        )
    return {"pooling": chosen[0], "normalize": kinds[2:] == [_KNOWN[2]]}
