"""Rotary positions (Su et al. 2021, arXiv 2104.09864), and what stretches them to longer texts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from linearize.models.hf import schema
from linearize.models.hf.schema import Key
from linearize.types import Array


@dataclass(frozen=True)
class Linear:
    """All wave lengths times ``factor`` (Chen et al. 2023, arXiv 2306.15595)."""

    factor: float

    def __call__(self, waves: Array) -> Array:
        """Angles of one position (W / 2,), stretched."""
        return waves / self.factor


@dataclass(frozen=True)
class Llama3:
    """As in Llama 3.1 (Grattafiori et al. 2024, arXiv 2407.21783).

    Wave lengths beyond ``context / low`` tokens are multiplied by ``factor``, those below
    ``context / high`` are as they were, and between them is a mixture.
    """

    factor: float
    low: float
    high: float
    context: int

    def __call__(self, waves: Array) -> Array:
        """Angles of one position (W / 2,), stretched."""
        turns = self.context * waves / (2 * jnp.pi)
        share = jnp.clip((turns - self.low) / (self.high - self.low), 0, 1)
        return (1 - share) * waves / self.factor + share * waves


Stretch = Callable[[Array], Array]
"""Of the angles that each pair of numbers turns by in one position, those of a longer context."""


def _llama3(where: str, factor: float, low: float, high: float, context: int) -> Llama3:
    if low >= high:
        schema.refuse(where, "high_freq_factor", high, f"expected over low_freq_factor={low}")
    return Llama3(float(factor), float(low), float(high), context)


_FACTOR, _CONTEXT = schema.number(None, 1e-3, 1e6), "original_max_position_embeddings"
_BANDS = {"low_freq_factor": _FACTOR, "high_freq_factor": _FACTOR}
_KINDS: dict[str, tuple[dict[str, Key], Callable[..., Stretch | None]]] = {
    "default": ({}, lambda where: None),
    "linear": ({"factor": _FACTOR}, lambda where, factor: Linear(float(factor))),
    "llama3": ({"factor": _FACTOR, **_BANDS, _CONTEXT: schema.size(None, 2**24)}, _llama3),
}
"""By ``rope_type``: what it must be told, and what is made of that."""

KEYS = {
    "rope_theta": schema.number(None, 1, 1e12),
    "rope_scaling": schema.part(),
    "rope_parameters": schema.part(),
}
"""Where transformers' configurations tell it: 4 and 5."""


def configure(got: Mapping[str, Any], where: str) -> dict[str, Any]:
    """``theta`` and ``stretch`` of a configuration that has :data:`KEYS`.

    Raises:
        WeightsError: as :func:`read`.
    """
    part = next((n for n in ("rope_scaling", "rope_parameters") if got[n]), "rope_parameters")
    theta, stretch = read(got[part] or {}, got["max_position_embeddings"], f"{where}: {part}")
    return {"theta": float(theta or got["rope_theta"] or 1e4), "stretch": stretch}


def read(told: Mapping[str, Any], context: int, where: str) -> tuple[float | None, Stretch | None]:
    """The base of the wave lengths, where it is told, and what stretches them.

    Args:
        told: an object of a configuration.
        context: the largest number of tokens, where no other is told.
        where: the file, and the path to the object in it.

    Raises:
        WeightsError: a kind that is not computed here, or what it is told is not complete.
    """
    kind = told.get("rope_type") or told.get("type") or "default"
    name = "rope_type" if told.get("rope_type") else "type"
    if not isinstance(kind, str) or kind not in _KINDS:
        schema.refuse(where, name, kind, "there are " + ", ".join(map(repr, _KINDS)))
    keys, make = _KINDS[kind]
    words = dict.fromkeys(("rope_type", "type"), schema.choice(None, _KINDS))
    got = schema.read(told, {**words, "rope_theta": KEYS["rope_theta"], **keys}, where=where)
    if got.get(_CONTEXT, 0) is None:
        got[_CONTEXT] = context
    for word, key in keys.items():
        if got[word] is None:
            schema.refuse(where, word, None, f"{key.expected}, for {kind!r}")
    return got["rope_theta"], make(where, *(got[word] for word in keys))


def turns(at: Array, theta: float, width: int, stretch: Stretch | None = None) -> Array:
    """Cosines and sines (2, S, width / 2) of the angles of positions (S,), in float32.

    >>> turns(jnp.arange(3), 1e4, 8).shape
    (2, 3, 4)
    """
    waves = theta ** (-jnp.arange(0, width, 2, dtype=jnp.float32) / width)
    angles = at[:, None] * (waves if stretch is None else stretch(waves))[None]
    return jnp.stack([jnp.cos(angles), jnp.sin(angles)])


def turned(x: Array, by: Array) -> Array:
    """Of (B, S, H, W) the pairs (i, i + W / 2), each turned by its angle, in float32."""
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = by[:, None, :, None]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
