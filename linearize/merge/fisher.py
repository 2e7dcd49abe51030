"""Fisher merging: each entry's mean over tasks, weighted by what it tells of their predictions.

(*Merging Models with Fisher-Weighted Averaging*, Matena & Raffel 2022, eq. 4.)
"""

from collections.abc import Mapping
from functools import partial

import jax
import numpy as np

from linearize import tree
from linearize.curvature.sensitivity import sensitivity
from linearize.examples import Examples, count
from linearize.merge.leafwise import leafwise, wide
from linearize.merge.merge import TRAINING, Merge
from linearize.merge.needed import logits, logits_of, of_tasks
from linearize.ntk.programs import remembered
from linearize.study import Method, Study
from linearize.task_vector import TaskVector
from linearize.train.penalty import seed_of
from linearize.types import Apply, Array, Params, PyTree

EXAMPLES = 256


def fisher(
    taus: Mapping[str, TaskVector],
    seed: int = 0,
    *,
    statistics: Mapping[str, Mapping[str, Array]] | None = None,
) -> dict[str, TaskVector]:
    """Σ F_t τ_t / Σ F_t, entry by entry; the mean where no task says anything.

    With θ_t = θ0 + τ_t that is the paper's Σ F_t θ_t / Σ F_t, less θ0. Its tasks' weights are
    alike; tasks of larger gradients count for more.

    Args:
        taus: T task vectors of the same leaves.
        seed: not used.
        statistics: by task the diagonal of its Fisher information, (...) 0 or more by leaf
            (:func:`diagonals`), a mean over examples; a factor that all share changes nothing.

    Returns:
        The direction, as ``{"fisher": τ}``.

    Raises:
        ValueError: no vector; statistics that are missing, of other shapes, or below 0.
        StructureMismatch: vectors of other names, shapes or bases.

    >>> one, two = (TaskVector({"w": np.float32(w)}) for w in ([1, 1], [3, 3]))
    >>> told = {"a": {"w": np.array([1.0, 0.0])}, "b": {"w": np.array([3.0, 0.0])}}
    >>> fisher({"a": one, "b": two}, statistics=told)["fisher"].delta["w"].tolist()
    [2.5, 2.0]
    """
    if taus:
        of_tasks("fisher", statistics, taus)
    told = statistics or {}

    def merged(name: str, leaves: np.ndarray) -> np.ndarray:
        weights = np.stack([_weight(told[task], task, name, leaves.shape[1:]) for task in taus])
        total = weights.sum(0)
        known = total > 0
        weighted = (weights * leaves).sum(0) / np.where(known, total, 1)
        return np.where(known, weighted, leaves.mean(0))

    return {"fisher": leafwise(taus, merged)}


def _weight(
    diagonal: Mapping[str, Array], task: str, name: str, shape: tuple[int, ...]
) -> np.ndarray:
    if name not in diagonal:
        raise ValueError(
            f"statistics[{task!r}] says nothing of {name}; measure it with these leaves trainable"
        )
    found = wide(diagonal[name])
    if found.shape != shape or not (found >= 0).all():
        raise ValueError(
            f"statistics[{task!r}][{name!r}] has shape {found.shape}, from {found.min():g}; "
            f"expected {shape} numbers, 0 or more, as diagonals(study, method) measures them"
        )
    return found


def diagonals(
    study: Study, method: Method, *, examples: int = EXAMPLES
) -> dict[str, dict[str, np.ndarray]]:
    """Each task's Fisher information about its own fine-tuned model: the diagonal, by leaf.

    E_x E_y (∂ log p(y|x) / ∂τ_j)² at τ_t, in the method's view: of the model at θ0 + τ_t, or of its
    expansion at θ0. One y an example is drawn from p(y|x), as no labels are needed; the authors'
    code takes all classes in turn, which has the same mean and costs as many backward passes.

    Args:
        study: of the data.
        method: whose vectors are merged.
        examples: of a task's training examples, drawn by the study's seed; all where there are
            fewer.

    Raises:
        ValueError: a task's objective has no class probabilities.
    """
    view, model = study.view(method), study.model
    moving = remembered(("fisher", view.moving, model.f), lambda: _moved(view.moving(model.f)))
    found = {}
    for task, tau in study.vectors(method).items():
        key = seed_of(study.seed, f"fisher: {task}")
        inputs = study.drawn(task, examples, "fisher")
        squares = sensitivity(
            moving,
            {"base": model.params, "tau": dict(tau.delta)},
            Examples(inputs if len(inputs) > 1 else inputs[0]),
            tree.names({"tau": dict(tau.delta)}),
            jax.random.key(key),
            readout=logits_of(study, task, "fisher"),
        )
        n = count(inputs)
        found[task] = {name.removeprefix("tau/"): leaf / n for name, leaf in squares.items()}
    return found


def _moved(moving: Apply) -> Apply:
    def outputs(params: Params, *inputs: PyTree) -> PyTree:
        return moving(params["base"], params["tau"], *inputs)

    return outputs


FISHER = Merge(
    "fisher",
    "Fisher",
    fisher,
    statistics=diagonals,
    takes=TRAINING,
    needs=partial(logits, "fisher"),
    about="Each entry’s mean over tasks, weighted by the diagonal of each task’s Fisher "
    "information (Matena and Raffel 2022).",
)
"""On 256 training inputs of each task, without their labels."""
