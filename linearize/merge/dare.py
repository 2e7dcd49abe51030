"""DARE: drop entries at random, rescale the rest, and merge what is left.

(*Language Models are Super Mario: Absorbing Abilities from Homologous Models as a Free Lunch*, Yu
et al. 2024.)
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from zlib import crc32

import jax.numpy as jnp
import numpy as np

from linearize import edit
from linearize.fields import integer
from linearize.lazy import alike, now
from linearize.merge.merge import Merge
from linearize.merge.ties import ties
from linearize.task_vector import TaskVector
from linearize.types import Array

DROP = 0.9
"""p: the share of entries that are dropped."""


def dropped(
    taus: Mapping[str, TaskVector], seed: int = 0, *, drop: float = DROP
) -> dict[str, TaskVector]:
    """Each vector with its entries dropped with probability p, and the others divided by 1 − p.

    Which are dropped follows from the seed, the task's name and the leaf's, so the order of tasks
    and the leaves that are left out change nothing.

    Args:
        taus: task vectors by task.
        seed: of the draw, 0 or more.
        drop: p, in [0, 1).

    Raises:
        ValueError: ``drop`` or ``seed`` out of range.
    """
    integer("seed", seed, low=0)
    if not 0 <= drop < 1:
        raise ValueError(f"drop={drop}; expected a share in [0, 1)")
    return {task: replace(tau, delta=_left(task, tau, seed, drop)) for task, tau in taus.items()}


def _left(task: str, tau: TaskVector, seed: int, drop: float) -> dict[str, Array]:
    return {
        name: alike(leaf, partial(_thinned, task, name, leaf, seed, drop))
        for name, leaf in (tau / (1 - drop)).delta.items()
    }


def _thinned(task: str, name: str, leaf: Array, seed: int, drop: float) -> Array:
    return jnp.where(_kept(seed, task, name, np.shape(leaf), drop), now(leaf), 0)


def _kept(seed: int, task: str, name: str, shape: tuple[int, ...], drop: float) -> np.ndarray:
    drawn = np.random.default_rng([seed, crc32(task.encode()), crc32(name.encode())])
    return np.asarray(drawn.random(shape) >= drop)


def dare(
    taus: Mapping[str, TaskVector], seed: int = 0, *, drop: float = DROP
) -> dict[str, TaskVector]:
    """The sum of what :func:`dropped` leaves, as ``{"dare": τ}``.

    Raises:
        ValueError: no vector, or ``drop`` out of range.
        StructureMismatch: vectors of other names, shapes or bases.
    """
    return {"dare": edit.add(dropped(taus, seed, drop=drop).values())}


def dare_ties(
    taus: Mapping[str, TaskVector], seed: int = 0, *, drop: float = DROP
) -> dict[str, TaskVector]:
    """TIES of what :func:`dropped` leaves, as ``{"ties": τ}``.

    Raises:
        ValueError: no vector, or ``drop`` out of range.
        StructureMismatch: vectors of other names, shapes or bases.
    """
    return ties(dropped(taus, seed, drop=drop), seed)


_RATES = {"drop": (0.9, 0.7, 0.5, 0.3)}

DARE = Merge(
    "dare",
    "DARE",
    dare,
    _RATES,
    about="Entries are dropped at random and the rest rescaled, then all is summed (Yu et al. "
    "2024).",
)
"""Dropped, then summed."""

DARE_TIES = Merge(
    "dare_ties",
    "DARE, TIES",
    dare_ties,
    _RATES,
    about="Entries are dropped at random and the rest rescaled, then merged as TIES does.",
)
"""Dropped, then trimmed, elected and averaged."""
