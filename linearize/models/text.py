"""CLIP's text tower (Radford et al. 2021, arXiv 2103.00020), apart from the encoder."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from linearize import functional, tree
from linearize.compiled import jit
from linearize.fields import seed as checked_seed
from linearize.models import clip, hf, layers
from linearize.models.backbone import WeightsError
from linearize.models.families import row
from linearize.models.hf import configs, tables
from linearize.models.weights import agree, architecture, check_size
from linearize.single import check_outputs, forward
from linearize.types import Apply, Array, Params

_LOGIT_SCALE = math.log(1 / 0.07)
_DIALECTS = (tables.CLIP_TEXT, tables.OPENAI_TEXT)


@dataclass(frozen=True)
class TextEncoder:
    """A text tower as ``f(params, tokens)``; its parameters are no part of the image encoder's.

    Attributes:
        name: the name it was loaded by.
        f: ``f(params, tokens (B, T) integers) -> features (B, feature_dim) float32``, not
            normalised. Whatever follows the end token does not matter.
        params: a nested mapping of float32 arrays.
        logit_scale: the learned logarithm of the cosines' factor.
        context: the largest T.
        vocabulary: number of tokens.
        feature_dim: width of the output, the image encoder's.
        architecture: the tower's fields.
        dtype: of the computation, by its name.
    """

    name: str
    f: Apply
    params: Params
    logit_scale: float
    context: int
    vocabulary: int
    feature_dim: int
    architecture: dict[str, Any]
    dtype: str = "float32"


def load_text(
    name: str,
    *,
    weights: str | Path | hf.Source | None = None,
    seed: int | None = None,
    activation: str | None = None,
    dtype: Any = jnp.float32,
) -> TextEncoder:
    """The text tower that belongs to an image encoder of :func:`linearize.models.load`.

    Args:
        name: a CLIP row of the table of models, ``"clip"`` among them.
        weights: as for :func:`linearize.models.load`: the same folder, file or repository.
        seed: draws random weights in place of ``weights``.
        activation: as for :func:`linearize.models.load`.
        dtype: of the computation; parameters and output stay float32.

    Raises:
        ValueError: the name is of no CLIP, not exactly one of ``weights`` and ``seed`` is given,
            or the seed is beyond 32 bits.
        WeightsError, FileNotFoundError, NonFiniteError: as :func:`linearize.models.load`.
    """
    family = row(name)
    if family.text is None:
        raise ValueError(f"{name} has no text tower; the CLIP models have")
    if (weights is None) == (seed is None):
        raise ValueError(
            f"weights={weights!r}, seed={seed!r}; pass weights=, a folder, a file or a repository "
            f"on the Hub such as {family.hub!r}, or seed= for random ones"
        )
    if seed is not None:
        seed = checked_seed("seed", seed)
    source = None if weights is None else hf.read(weights)
    told = None if source is None else configs.text(source.notes, source.path.parent)
    fields = agree(name, family.text, told)
    if not fields:
        raise WeightsError(
            f"{weights or name} has no configuration that tells the architecture; load it by the "
            f"name of one: {', '.join(clip.TEXT)}"
        )
    if activation is not None:
        fields["activation"] = configs.activation(activation)
    module = clip.TextTower(**fields, dtype=jnp.dtype(dtype))
    tokens = jax.ShapeDtypeStruct((1, module.context), jnp.int32)
    # of all blocks one is traced, for all
    traced = jax.eval_shape(module.clone(scan=True).init, jax.random.key(0), tokens)["params"]
    shapes = layers.unstack({n: layers.shape_only(x) for n, x in tree.flatten(traced).items()})
    if source is None:
        drawn = jit(module.clone(scan=True).init)(
            jax.random.key(seed or 0), jnp.zeros(tokens.shape, tokens.dtype)
        )
        leaves: dict[str, Any] = dict(layers.unstack(tree.flatten(drawn["params"])))
        leaves["logit_scale"] = _LOGIT_SCALE
    else:
        check_size(shapes, source)
        wanted = {**shapes, "logit_scale": jax.ShapeDtypeStruct((), jnp.float32)}
        leaves = dict(hf.import_leaves(source.tensors, _DIALECTS, wanted, what=str(weights)))
    tree.check_finite(leaves, what=f"text weights of {name}")
    scale = float(leaves.pop("logit_scale"))
    params = layers.nest({n: jnp.asarray(leaves[n]) for n in shapes})
    f, params = functional.from_linen(module, {"params": params})
    return TextEncoder(
        name=name,
        f=f,
        params=params,
        logit_scale=scale,
        context=module.context,
        vocabulary=module.vocabulary,
        feature_dim=module.projection,
        architecture=architecture(module),
        dtype=str(module.dtype),
    )


def text_features(text: TextEncoder, tokens: Array, *, batch: int = 64) -> Array:
    """Features ``(N, D)`` float32 of tokenised sentences ``(N, T)``, not normalised.

    Raises:
        ValueError: no sentence, more tokens than the tower takes, or one outside its vocabulary.
        DisagreementError: a sampled sentence, taken alone, has other features.
    """
    host = np.asarray(tokens)
    if host.ndim != 2 or not len(host) or not np.issubdtype(host.dtype, np.integer):
        raise ValueError(
            f"tokens has shape {host.shape} and dtype {host.dtype}; expected (N, T) integers"
        )
    if host.min() < 0 or host.max() >= text.vocabulary:
        raise ValueError(
            f"tokens go from {host.min()} to {host.max()}; {text.name} has {text.vocabulary}: is "
            "this another model's tokenizer?"
        )
    size = min(batch, len(host))
    padded = np.concatenate([host, np.repeat(host[-1:], -len(host) % size, axis=0)])
    chunks = [jnp.asarray(x, jnp.int32) for x in padded.reshape(-1, size, host.shape[1])]
    found = [np.asarray(forward(text.f, text.params, (chunk,))) for chunk in chunks]
    check_outputs(text.f, text.params, (chunks[0],), found[0], size)
    return jnp.asarray(np.concatenate(found)[: len(host)])
