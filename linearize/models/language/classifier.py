"""An encoder–decoder as a classifier of texts, in the form of transformers' T5 classifier.

The decoder reads the text itself, shifted by one; its hidden state where the text ends goes through
a layer with tanh and one of the classes' width (``T5ForSequenceClassification``).
"""

import jax
import jax.numpy as jnp

from linearize import identity
from linearize.fields import integer
from linearize.fields import seed as checked_seed
from linearize.models.language.model import LanguageModel
from linearize.models.model import Model
from linearize.types import Array, Params

_HEAD = "classifier"


def classifier(model: LanguageModel, classes: int, *, seed: int = 0) -> Model:
    """A classifier ``f(params, tokens (B, L), mask (B, L)) -> logits (B, C) float32``.

    Its parameters are the model's without a language-model head, and ``classifier/dense`` and
    ``classifier/out``, which are drawn. All are trained: a head that were to stay could not know
    the classes.

    Args:
        model: an encoder–decoder; its texts end with its end token. The logits of one that holds
            none are NaN.
        classes: C, of all tasks that share the head (:func:`linearize.objectives.columns`).
        seed: of the head.

    Raises:
        ValueError: the model is no encoder–decoder, C is below 2, or the seed is beyond 32 bits.
    """
    if model.encode is None:
        raise ValueError(
            f"{model.name} is no encoder–decoder; classify a decoder's texts by label words "
            "(label_words), an encoder's by a head of its features (sentence_encoder)"
        )
    C, D = integer("classes", classes, low=2), model.width
    key = jax.random.key(checked_seed("seed", seed))
    start, end = (model.about["architecture"][name] for name in ("start", "end"))
    hidden = model.hidden

    def f(params: Params, tokens: Array, mask: Array) -> Array:
        head, rest = params[_HEAD], {n: p for n, p in params.items() if n != _HEAD}
        first = jnp.full_like(tokens[:, :1], start)
        states = hidden(rest, tokens, mask, jnp.concatenate([first, tokens[:, :-1]], 1))
        ends = (tokens == end) & mask
        place = jnp.arange(tokens.shape[1])[None]
        last = jnp.max(jnp.where(ends, place, -1), 1)
        rows = jnp.arange(len(tokens))
        x = states.at[rows, last].get(mode="fill", wrap_negative_indices=False)
        x = jnp.tanh(_affine(head["dense"], x))
        return _affine(head["out"], x)

    if (stated := identity.whole(hidden)) is not None:
        f.fingerprint = f"a class of {stated}, {start} to {end}"  # type: ignore[attr-defined]
    dense, out = jax.random.split(key)
    head = {"dense": _drawn(dense, D, D), "out": _drawn(out, D, C)}
    return Model(
        f,
        {**{n: p for n, p in model.params.items() if n != "head"}, _HEAD: head},
        name=model.name,
        blocks=model.blocks,
        about={**model.about, "classes": C},
    )


def _affine(layer: Params, x: Array) -> Array:
    return x @ layer["kernel"] + layer["bias"][None]


def _drawn(key: Array, width: int, out: int) -> Params:
    kernel = jax.random.normal(key, (width, out)) * width**-0.5
    return {"kernel": kernel, "bias": jnp.zeros(out)}
