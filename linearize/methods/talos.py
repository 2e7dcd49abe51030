"""TaLoS: the weights to which a task is least sensitive are fine-tuned, and no others.

Iurada et al. 2025, *Efficient Model Editing with Task-Localized Sparse Fine-tuning*
(arXiv 2504.02620), eq. 5 and 7. Of each entry j of θ the sensitivity is the diagonal of the Fisher
information, s_j = Σ_x (∂ log p(y|x) / ∂θ_j)², one y an example, drawn from p(y|x).
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from linearize import tree
from linearize.curvature.sensitivity import SCORES as SCORES
from linearize.curvature.sensitivity import sensitivity
from linearize.fields import integer, number
from linearize.methods.fine_tuning import fine_tune, within
from linearize.methods.regimes import posthoc
from linearize.objectives import Classify
from linearize.objectives.readout import as_readout
from linearize.study import Method, Study
from linearize.task_vector import TaskVector
from linearize.train import Penalty
from linearize.train.penalty import seed_of

log = logging.getLogger(__name__)


def least_sensitive(
    study: Study,
    task: str,
    *,
    sparsity: float = 0.9,
    rounds: int = 4,
    shrunk: float = 0.1,
    trainable: tree.Pattern = None,
    score: str = "log_probability",
    batch_size: int = 8,
) -> dict[str, np.ndarray]:
    """Which entries of the trained leaves are kept: booleans by name; once computed, it is stored.

    In round r those kept so far are scored on the task's validation examples, at θ0 with all others
    scaled down, and the (1 − sparsity)^(r / rounds) of all entries that have the lowest scores are
    kept, by one threshold over all leaves; what ties with it is kept too.

    Args:
        study: of the model, the data and the objective.
        task: whose validation examples are used; their labels are not.
        sparsity: share of the entries that do not move, in [0, 1); 0.9 as in the paper.
        rounds: how often entries are dropped.
        shrunk: what dropped entries are multiplied by while the others are scored.
        trainable: as that of :func:`linearize.methods.fine_tuning.fine_tune`.
        score: a row of :data:`SCORES`.
        batch_size: examples whose gradients are held at a time.

    Raises:
        ValueError: the objective is no classification; a mask that keeps nothing; a number out of
            its range.
    """
    objective, examples = study.objectives[task], study.split(task, "validation")
    if not isinstance(objective, Classify):
        raise ValueError(
            f"objectives[{task!r}] is {type(objective).__name__}; TaLoS draws classes from the "
            "model's own probabilities, so give Classify"
        )
    sparsity, shrunk = number("sparsity", sparsity), number("shrunk", shrunk)
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity={sparsity}; expected a share in [0, 1), or nothing is kept")
    rounds = integer("rounds", rounds, low=1)
    f, params = study.model.f, study.model.params
    names, flat = tree.select(params, within(study, trainable)), tree.flatten(params)
    shares = [(1 - sparsity) ** (r / rounds) for r in range(1, rounds + 1)]
    size = sum(np.size(flat[name]) for name in names)
    if round(shares[-1] * size) < 1:
        raise ValueError(
            f"sparsity={sparsity} keeps none of the {size} entries of the trained leaves; lower it"
        )

    scored = partial(sensitivity, f, readout=objective.readout, score=score, batch_size=batch_size)

    def found() -> dict[str, np.ndarray]:
        kept = {name: np.ones(np.shape(flat[name]), bool) for name in names}
        for r, share in enumerate(shares):
            seen = {n: jnp.where(mask, flat[n], shrunk * flat[n]) for n, mask in kept.items()}
            key = jax.random.key(seed_of(study.seed, f"talos/{r}"))
            scores = scored(tree.update(params, seen), examples, names, key)
            left = np.concatenate([scores[n][mask] for n, mask in kept.items()])
            most = round(share * size) - 1
            threshold = np.partition(left, most)[most]
            kept = {n: np.asarray(m & (scores[n] <= threshold)) for n, m in kept.items()}
        if not threshold:
            log.warning(
                "talos on %s: its predictions on validation examples do not feel %d of %d entries "
                "at all (words that none holds, units that are off), and these alone are trained",
                *(task, sum(int(mask.sum()) for mask in kept.values()), size),
            )
        return kept

    told = {"names": names, "how": [sparsity, rounds, shrunk, score]}
    read = as_readout(objective.readout)
    return study.prepared("masks", task, told, found, split="validation", readout=read)


def fine_tune_least_sensitive(
    study: Study,
    task: str,
    *,
    method: str = "talos",
    sparsity: float = 0.9,
    rounds: int = 4,
    trainable: tree.Pattern = None,
    penalties: Sequence[Penalty | Callable[[Study, str], Penalty]] = (),
    weight: float | None = None,
    recipe: str | None = None,
) -> TaskVector:
    """Non-linear fine-tuning of the entries that :func:`least_sensitive` keeps.

    A penalty is of τ, which is 0 elsewhere; it does not decide which entries are kept. Of f, which
    is not linear, one of J holds no more than the first order.
    """
    mask = partial(least_sensitive, sparsity=sparsity, rounds=rounds, trainable=trainable)
    how: dict[str, Any] = {"method": method, "recipe": recipe, "trainable": trainable}
    how |= {"penalties": penalties, "weight": weight}
    return fine_tune(study, task, regime="nonlinear", mask=mask, **how)


TALOS = Method(
    "talos",
    "TaLoS",
    "displaced",
    fine_tune_least_sensitive,
    about="Non-linear fine-tuning of the entries to which a task is least sensitive, and of no "
    "others (Iurada et al. 2025).",
)
"""Non-linear fine-tuning of the tenth of the entries to which a task is least sensitive."""

TALOS_POSTHOC = posthoc(TALOS)
