"""TaLoS: the weights to which a task is least sensitive are fine-tuned, and no others.

Iurada et al. 2025, *Efficient Model Editing with Task-Localized Sparse Fine-tuning*
(arXiv 2504.02620), eq. 5 and 7. Of each entry j of θ the sensitivity is the diagonal of the Fisher
information, s_j = Σ_x (∂ log p(y|x) / ∂θ_j)², one y an example, drawn from p(y|x).
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from linearize import tree
from linearize.choices import one_of
from linearize.compiled import jit
from linearize.current import current
from linearize.evaluate.batches import split_batches, track
from linearize.examples import Examples
from linearize.fields import integer, number
from linearize.methods.fine_tuning import fine_tune, within
from linearize.methods.regimes import posthoc
from linearize.objectives import Classify
from linearize.objectives.readout import Readout, as_readout
from linearize.study import Method, Study
from linearize.task_vector import TaskVector
from linearize.train.penalty import seed_of
from linearize.types import Apply, Array, Params, PyTree

SCORES = {"log_probability": jax.nn.log_softmax, "logit": lambda logits: logits}
"""What of y is differentiated. The Fisher information has the former; the public code's backward
pass begins at the logit itself, which also counts what moves all logits alike."""


def sensitivity(
    f: Apply,
    params: Params,
    examples: Examples,
    names: Sequence[str],
    key: Array,
    *,
    readout: Readout = None,
    score: str = "log_probability",
    batch_size: int = 8,
) -> dict[str, np.ndarray]:
    """Σ_x (∂ log p(y|x) / ∂θ_j)² over examples, an entry of the named leaves each.

    Args:
        f: ``f(params, *inputs) -> outputs``.
        params: θ, at which it is taken.
        examples: inputs alone count; y of example i is
            ``jax.random.categorical(jax.random.fold_in(key, i), logits)``, however it is batched.
        names: of the leaves.
        key: a PRNG key.
        readout: the frozen head, ``outputs -> logits (B, C)``; identity by default.
        score: a row of :data:`SCORES`.
        batch_size: examples whose gradients are held at a time.

    Returns:
        Sums by name, of the leaves' shapes, float32 or wider.

    Raises:
        NonFiniteError: a sum is NaN or infinite.

    >>> f = lambda params, x: x @ params["w"]
    >>> data, w = Examples(np.ones((4, 1))), np.zeros((1, 2), "float32")
    >>> sensitivity(f, {"w": w}, data, ["w"], jax.random.key(0))["w"]  # (1 - 1 / 2)² of each
    array([[1., 1.]], dtype=float32)
    """
    one_of("score", score, SCORES)
    batches = split_batches(examples.inputs, batch_size)
    f, read = current(f, params, *batches.items[0]), as_readout(readout)
    base = tree.flatten(params)
    total = tree.zeros({name: base[name] for name in names})
    rows = np.arange(len(jax.tree.leaves(batches.items[0])[0]), dtype=np.int32)
    for at, args in enumerate(track(batches.items, False, "sensitivity")):
        here = rows + at * len(rows)
        total = _added(f, score, total, params, read, args, here, here < batches.n, key)
    found = {name: np.asarray(leaf) for name, leaf in total.items()}
    tree.check_finite(found, what="the sensitivity")
    return found


@partial(jit, static_argnums=(0, 1))
def _added(
    f: Apply,
    score: str,
    total: dict[str, Array],
    params: Params,
    readout: jax.tree_util.Partial,
    args: tuple[PyTree, ...],
    rows: Array,
    known: Array,
    key: Array,
) -> dict[str, Array]:
    """The sums with those of a batch, of whose examples some are padding."""
    base = tree.flatten(params)

    def squares(row: Array, args: tuple[PyTree, ...]) -> dict[str, Array]:
        one = jax.tree.map(lambda leaf: leaf[None], args)

        def value(moving: dict[str, Array]) -> Array:
            logits = readout(f(tree.update(params, moving), *one))[0]
            drawn = jax.random.categorical(jax.random.fold_in(key, row), logits)
            return SCORES[score](logits)[drawn]

        slopes = jax.grad(value)({name: base[name] for name in total})
        return {n: jnp.abs(slopes[n].astype(t.dtype)) ** 2 for n, t in total.items()}

    each = jax.vmap(squares)(rows, args)
    return {n: t + jnp.tensordot(known.astype(t.dtype), each[n], 1) for n, t in total.items()}


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
) -> TaskVector:
    """Non-linear fine-tuning of the entries that :func:`least_sensitive` keeps."""
    mask = partial(least_sensitive, sparsity=sparsity, rounds=rounds, trainable=trainable)
    return fine_tune(study, task, regime="nonlinear", method=method, trainable=trainable, mask=mask)


TALOS = Method("talos", "TaLoS", "displaced", fine_tune_least_sensitive)
"""Non-linear fine-tuning of the tenth of the entries to which a task is least sensitive."""

TALOS_POSTHOC = posthoc(TALOS)
