"""RegMean: of each layer the weights whose outputs are nearest to those of all tasks' layers.

(*Dataless Knowledge Fusion by Merging Weights of Language Models*, Jin et al. 2023, eq. 3.)
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np

from linearize import curvature
from linearize.curvature.blocks import Block, Kronecker, Layout
from linearize.examples import as_arguments
from linearize.merge.leafwise import leafwise
from linearize.merge.matrices import rounding
from linearize.merge.merge import TRAINING, Merge
from linearize.merge.needed import of_tasks
from linearize.study import Method, Study
from linearize.task_vector import TaskVector

EXAMPLES = 256


@dataclass(frozen=True, eq=False)
class Gram:
    """What a layer's inputs are: G = mean of xᵀx."""

    layout: Layout
    """How the leaf makes S matrices (K, M)."""
    values: np.ndarray
    """(S, K, K), or (S, K) of a look-up, whose inputs are one-hot, and of the widest layers."""


Grams = Mapping[str, Mapping[str, Gram]]
"""By task, by the weight's name."""


def regmean(
    taus: Mapping[str, TaskVector],
    seed: int = 0,
    *,
    statistics: Grams | None = None,
    off_diagonal: float = 0.9,
) -> dict[str, TaskVector]:
    """Of each layer (Σ G_t)⁻¹ Σ G_t ΔW_t, W of inputs by outputs; of all else the mean.

    It minimises Σ_t ‖X_t (W − W_t)‖² where off-diagonals are not shrunk; θ0 cancels. Along what no
    task's inputs reach the mean stays. Biases are averaged, as in the authors' code, and so are
    weights that the model uses as several matrices (tied embeddings).

    Args:
        taus: T task vectors of the same leaves.
        seed: not used.
        statistics: by task the inputs of its layers (:func:`grams`).
        off_diagonal: what off-diagonal entries of G are multiplied by, in [0, 1]; 0.9 in the paper.

    Returns:
        The direction, as ``{"regmean": τ}``.

    Raises:
        ValueError: no vector; statistics that are missing or of another model; ``off_diagonal`` out
            of range.
        StructureMismatch: vectors of other names, shapes or bases.
    """
    if not 0 <= off_diagonal <= 1:
        raise ValueError(f"off_diagonal={off_diagonal}; expected a factor in [0, 1]")
    if taus:
        of_tasks("regmean", statistics, taus)
    told = statistics or {}

    def merged(name: str, leaves: np.ndarray) -> np.ndarray:
        known = [told[task].get(name) for task in taus]
        mean = leaves.mean(0)
        layers = [gram for gram in known if gram is not None]
        if not layers:
            return mean
        layout = layers[0].layout
        if len(layers) < len(known) or layout.shape != mean.shape:
            raise ValueError(
                f"statistics are of another model: {name} is {mean.shape} here and, of "
                f"{len(layers)} of {len(known)} tasks, a layer {layout.shape} there"
            )
        places = _places(layout)  # (S, K, M), as numbers of the leaf's entries
        least = rounding([gram.values.dtype for gram in layers], places.shape[1:])
        found = mean.ravel().copy()
        for s, place in enumerate(places):
            apart = [each.ravel()[place] - mean.ravel()[place] for each in leaves]
            inputs = [_shrunk(gram.values[s], off_diagonal) for gram in layers]
            wanted = [_times(g, w) for g, w in zip(inputs, apart, strict=True)]
            found[place] += _solved(np.sum(inputs, 0), np.sum(wanted, 0), least)
        return found.reshape(mean.shape)

    return {"regmean": leafwise(taus, merged)}


def _places(layout: Layout) -> np.ndarray:
    numbers = jnp.arange(np.prod(layout.shape, dtype=int)).reshape(layout.shape)
    return np.asarray(replace(layout, bias=None).matrix({layout.weight: numbers}))


def _shrunk(gram: np.ndarray, factor: float) -> np.ndarray:
    g = np.asarray(gram, np.float64)
    return g if g.ndim == 1 else factor * g + (1 - factor) * np.diag(np.diag(g))


def _times(gram: np.ndarray, w: np.ndarray) -> np.ndarray:
    return gram[:, None] * w if gram.ndim == 1 else gram @ w


def _solved(gram: np.ndarray, wanted: np.ndarray, least: float) -> np.ndarray:
    """The smallest solution, of what is more than rounding."""
    if wide := len(gram.shape) > 1:
        gram, vectors = np.linalg.eigh(gram)
        wanted = vectors.T @ wanted
    kept = gram > least * gram.max(initial=0)
    found = _times(np.divide(1, gram, out=np.zeros_like(gram), where=kept), wanted)
    return vectors @ found if wide else found


def grams(study: Study, method: Method, *, examples: int = EXAMPLES) -> dict[str, dict[str, Gram]]:
    """The inputs of each layer in each task's fine-tuned model, on its own examples.

    In the displaced view layers see what the model at θ0 + τ_t gives them; in the tangent view,
    where outputs are linear in each layer's weights at θ0, what it gives them there.

    Args:
        study: of the data.
        method: whose vectors are merged.
        examples: of a task's training examples, drawn by the study's seed; all where there are
            fewer.

    Raises:
        ValueError: outputs that are no features (:func:`linearize.curvature.measure`).
    """
    view, found = study.view(method), {}
    for task, tau in study.vectors(method).items():
        seen, asked = study.some(task, examples, "regmean")
        card = curvature.measure(
            study.model.f,
            view.expanded_at(tau),
            as_arguments(seen.inputs),
            asked=asked,
            trainable=study.trainable,
            normalized=False,
            seed=study.seed,
            parts=None,
        )
        found[task] = _of_weights(card.blocks)
    return found


def _of_weights(blocks: tuple[Block, ...]) -> dict[str, Gram]:
    layers = [block for block in blocks if isinstance(block, Kronecker)]
    count = Counter(layer.layout.weight for layer in layers)
    found = {}
    for layer in layers:
        layout, a = layer.layout, np.asarray(layer.a)
        if count[layout.weight] == 1:
            inner = (slice(None), *[slice(layout.inner)] * (a.ndim - 1))
            found[layout.weight] = Gram(layout, a[inner])
    return found


REGMEAN = Merge(
    "regmean",
    "RegMean",
    regmean,
    {"off_diagonal": (0.9, 0.95)},
    statistics=grams,
    takes=TRAINING,
    about="Of each layer the weights whose outputs are nearest to those of all tasks’ layers (Jin "
    "et al. 2023).",
)
"""On 256 training inputs of each task, without their labels."""
