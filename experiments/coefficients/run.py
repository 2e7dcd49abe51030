"""Globally optimal scaling coefficients: one for all tasks, one per task, one per task and part.

    python -m experiments.coefficients packaged --vectors runs/compare/packaged8

Where the regime is affine, Newton steps on one pass's terms find the coefficients of least
cross-entropy on validation data. The heads' cosine normalisation makes the problem non-convex, so
it is solved twice: through an *affine* head with the same prototypes, which is convex and predicts
the same classes, to the global optimum with its certificate; and through the *true* head, from
several starts. Both are measured on test data with the true head, beside the papers' protocol: one
α for all, chosen on a grid by normalized accuracy.

The affine head of prototypes divides by one norm, their examples' mean. That of class names, CLIP's
text head, divides each example by its own norm at θ0, ``scale · (f0 + Σ α Jτ) / ‖f0‖ · w``: its
logits are the true ones where all α are 0.
"""

import dataclasses
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp

from experiments import claims, protocol, running, vectors
from experiments.claims import Claim
from experiments.coefficients.config import CoefficientsConfig
from experiments.coefficients.results import Results
from linearize import comparison, edit, evaluate, io, models, tree
from linearize.evaluate import AffineOutputs
from linearize.evaluate.view import Tangent, View
from linearize.examples import Examples
from linearize.models.heads import Head
from linearize.models.layers import shape_only
from linearize.report import schema
from linearize.study import Method, Store, Study
from linearize.study.store import Record
from linearize.task_vector import TaskVector

log = logging.getLogger(__name__)

SPLITS = ("validation", "test")
OUTSIDE = "outside the blocks"
_SHORTEST = 1e-6
"""Norm by which features of zero are divided, as by :func:`linearize.models.heads.normalize`."""


def run(config: CoefficientsConfig, run_dir: Path, preset: str = "custom") -> Path:
    """Everything from task vectors to ``report.html``, whose path is returned."""
    config = vectors.resolve(config)
    vectors.check_lent(config)
    with running.claimed(run_dir, config):
        tasks, store = protocol.load_tasks(config), Store.of(run_dir)
        measured = vectors.by_regime(partial(fitted, config), store, config, tasks)
        model = protocol.describe_model(config.model, config.seeds[0])
        found = running.about("coefficients", preset, config, model) | measured
        found |= {
            "tasks": config.data.tasks,
            "parts": list(parts(config)) if config.split else [],
            "split": config.split,
        }
        return running.finish(run_dir, claims.judged(schema.read(Results, found), CLAIMS))


def parts(config: CoefficientsConfig) -> dict[str, str]:
    """Patterns of the parameters' names by part: groups of consecutive blocks, and the rest.

    Names are those of the unrolled model, whether blocks are stacked or not; a part in which
    nothing is trainable is left out.
    """
    if not config.parts:
        return {}
    model = protocol.backbone(config.model, config.seeds[0])
    blocks = block_names(model)
    groups = [list(g) for g in np.array_split(blocks, min(config.parts, len(blocks)))]
    inside = "|".join(f"^{re.escape(block)}/" for block in blocks)
    found = {
        (group[0] if len(group) == 1 else f"{group[0]} to {group[-1]}"): "|".join(
            f"^{re.escape(block)}/" for block in group
        )
        for group in groups
    } | {OUTSIDE: f"^(?!{inside})"}
    leaves = tree.flatten(model.params)
    trainable = {n: leaves[n] for n in tree.select(leaves, config.trainable)}
    names = [n for name, leaf in trainable.items() for n in unrolled(name, leaf)]
    return {part: p for part, p in found.items() if any(re.search(p, n) for n in names)}


def block_names(model: models.Backbone) -> tuple[str, ...]:
    """The blocks from input to output, as the unrolled model calls them."""
    if model.blocks != ("blocks",):
        return model.blocks
    depth = len(jax.tree.leaves(model.params["blocks"])[0])
    return tuple(f"block_{i}" for i in range(depth))


def unrolled(name: str, leaf: Any) -> list[str]:
    """A leaf's name in the unrolled model; of stacked blocks' leaf, a name for each row.

    >>> unrolled("blocks/norm/bias", np.zeros((2, 8))), unrolled("norm/bias", np.zeros(8))
    (['block_0/norm/bias', 'block_1/norm/bias'], ['norm/bias'])
    """
    return list(models.unstack({name: shape_only(leaf)}))


def restrict(tau: TaskVector, pattern: str) -> TaskVector:
    """The vector where a pattern finds the unrolled model's names, zero elsewhere.

    Leaves without such a name are left out; of stacked blocks' leaves, other blocks' rows are zero.
    """
    delta = {}
    for name, leaf in tau.delta.items():
        rows = np.array([bool(re.search(pattern, n)) for n in unrolled(name, leaf)])
        if rows.all():
            delta[name] = leaf
        elif rows.any():
            delta[name] = jnp.where(rows.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, 0)
    return dataclasses.replace(tau, delta=delta)


def fitted(config: CoefficientsConfig, study: Study, method: Method) -> Record:
    """Coefficients of every kind, their certificates, and what they give on both splits."""
    view = study.view(method)
    T, single = len(view.vectors), study.singles(view)
    groups = parts(config) if method.name in config.split else {}
    terms = TaskTerms.of(config, study, method, groups)
    wanted = comparison.Plan(alphas=config.edit.alphas, sweep_test=False)
    grid = comparison.addition(study, wanted, view, single)["alpha"]
    P = max(len(groups), 1)
    kinds = {"shared": np.ones((T * P, 1)), "task": np.kron(np.eye(T), np.ones((P, 1)))}
    if groups:
        kinds["part"] = np.kron(np.ones((T, 1)), np.eye(P))
        kinds["task and part"] = np.eye(T * P)
    record: Record = {
        "single": single,
        "grid": {"alpha": grid} | terms.measure(np.full(T * P, grid)),
        "fits": {},
    }
    rng = np.random.default_rng([config.start_seed, study.seed])
    for kind, basis in kinds.items():
        log.info("seed %d: %s, one coefficient per %s", study.seed, method.name, kind)
        convex = terms.fit("affine", basis, config.l2, np.zeros(basis.shape[1]))
        at = convex.coefficients
        starts = [np.zeros_like(at), np.full_like(at, grid), at]
        starts += [rng.uniform(0, 1, at.shape) for _ in range(config.starts)]
        local = [terms.fit("true", basis, config.l2, start) for start in starts]
        best = min(local, key=lambda found: found.objective)
        record["fits"][kind] = {
            "affine": dataclasses.asdict(convex) | terms.measure(basis @ at),
            "true": dataclasses.asdict(best) | terms.measure(basis @ best.coefficients),
            "starts": [found.objective for found in local],
        }
    return io.to_json(record)


@dataclasses.dataclass(frozen=True)
class TaskTerms:
    """The tasks' terms along all directions, their heads and labels."""

    terms: Mapping[str, list[AffineOutputs]]
    """By split, of each task: directions are parts within tasks."""
    labels: Mapping[str, list[np.ndarray]]
    heads: Mapping[str, Sequence[Head]]
    """``true`` ones, and their ``affine`` variants."""
    fitted: Mapping[str, Sequence[AffineOutputs]]
    """What either kind of heads reads of validation data; the affine ones may have it scaled."""

    @classmethod
    def of(
        cls,
        config: CoefficientsConfig,
        study: Study,
        method: Method,
        groups: Mapping[str, str],
    ) -> "TaskTerms":
        """One seed's and regime's terms; by part where there are groups."""
        taus = study.vectors(method)
        along = [study.view(method)]
        if groups:
            restricted = (
                {name: restrict(tau, pattern) for name, tau in taus.items()}
                for pattern in groups.values()
            )
            along = [study.view(method, each) for each in restricted]
        splits = {s: [study.split(task, s) for task in study.names] for s in SPLITS}
        terms = {s: [directions(along, each) for each in splits[s]] for s in SPLITS}
        labels = {s: [each.labels for each in splits[s]] for s in SPLITS}
        true = [protocol.head(study.alike[task]) for task in study.names]
        read, affine = SURROGATES[config.head.kind](config, study, terms["validation"])
        heads = {"true": true, "affine": affine}
        return cls(terms, labels, heads, {"true": terms["validation"], "affine": read})

    def fit(
        self, head: str, basis: np.ndarray, l2: float, start: np.ndarray
    ) -> edit.OptimalCoefficients:
        """The best coefficients on validation data, in the span of a basis."""
        tied = [each.along(basis) for each in self.fitted[head]]
        return edit.optimal_coefficients(
            tied, self.labels["validation"], self.heads[head], l2=l2, start=start
        )

    def measure(self, coefficients: np.ndarray) -> dict[str, Any]:
        """Cross-entropy and accuracy of each task, on both splits, with the true heads."""
        found: dict[str, Any] = {}
        for split in SPLITS:
            sets = zip(self.terms[split], self.labels[split], self.heads["true"], strict=True)
            rows = [scored(*each, coefficients) for each in sets]
            found[split] = dict(zip(("cross_entropy", "accuracy"), np.transpose(rows), strict=True))
        return found


def scored(
    terms: AffineOutputs, labels: np.ndarray, head: Head, coefficients: np.ndarray
) -> tuple[float, float]:
    """Cross-entropy and accuracy of one data set."""
    logits = evaluate.grid_logits(terms, coefficients[None], head)[0].astype(np.float64)
    entropy = logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]
    return float(entropy.mean()), float((np.asarray(evaluate.predicted(logits)) == labels).mean())


def directions(views: Sequence[View], examples: Examples) -> AffineOutputs:
    """Terms along every vector of every tangent view, views within vectors."""
    found = [view.terms(examples) for view in views if isinstance(view, Tangent)]
    jvps = np.stack([np.asarray(each.jvps) for each in found], 1)  # (T, P, N, D)
    return AffineOutputs(found[0].f0, jvps.reshape(-1, *jvps.shape[2:]))


Surrogate = Callable[
    [CoefficientsConfig, Study, Sequence[AffineOutputs]],
    tuple[Sequence[AffineOutputs], list[Head]],
]
"""Of the tasks' terms: the terms that affine heads read, and these heads."""


def rebuilt(
    config: CoefficientsConfig, study: Study, terms: Sequence[AffineOutputs]
) -> tuple[Sequence[AffineOutputs], list[Head]]:
    """The terms as they are, and heads made anew without normalisation."""
    return terms, affine_heads(config, study)


def affine_heads(config: CoefficientsConfig, study: Study) -> list[Head]:
    """Each task's head without normalisation: the same prototypes, and the same predictions."""
    plain = dataclasses.replace(config.head, normalize=False)
    make = plain.heads(config.model, config.batch_size)
    made = (make(study.model, study.tasks[name], study.seed) for name in study.names)
    return [protocol.head(objective) for objective in made]


def frozen(
    config: CoefficientsConfig, study: Study, terms: Sequence[AffineOutputs]
) -> tuple[Sequence[AffineOutputs], list[Head]]:
    """Terms divided by each example's norm at θ0, and the same heads reading them as they are."""
    heads = [protocol.head(study.objectives[name]) for name in study.names]
    read = [frozen_norms(each, head) for each, head in zip(terms, heads, strict=True)]
    return read, [dataclasses.replace(head, normalize=False) for head in heads]


def frozen_norms(terms: AffineOutputs, head: Head) -> AffineOutputs:
    """Terms whose features at θ0 have norm 1 about a head's center c.

    ``c + (f0 − c) / n`` and ``Jτ / n`` with ``n = ‖f0 − c‖``, one for each example. The head
    without normalisation gives of them logits that are affine in the coefficients, equal the
    normalising head's where these are 0, and, without a bias, rank the classes alike everywhere.

    >>> head = models.zero_shot_head([jnp.eye(2)[:1], jnp.eye(2)[1:]], 0.0)
    >>> terms = AffineOutputs(np.array([[3.0, 4.0]]), np.array([[[5.0, 0.0]]]))
    >>> found = frozen_norms(terms, head)
    >>> found.f0.tolist(), found.jvps.tolist()
    ([[0.6, 0.8]], [[[1.0, 0.0]]])
    """
    center = np.asarray(head.center)
    z, jvps = np.asarray(terms.f0) - center, np.asarray(terms.jvps)
    n = np.maximum(np.linalg.norm(z, axis=1, keepdims=True), _SHORTEST)
    return AffineOutputs(center + z / n, jvps / n)


SURROGATES: Mapping[str, Surrogate] = {"text": frozen, "prototype": rebuilt, "probe": rebuilt}
"""What stands in for normalisation where logits must be affine, by the kind of head."""


def _mean(results: Results, regime: str, kind: str, what: str) -> np.ndarray:
    """Of test data through the true head, (S,)."""
    return getattr(results.fits[regime, kind, "true"].test, what).mean(-1)


def _gain(regime: str, less: str, more: str) -> Callable[[Results], np.ndarray]:
    """By how many nats freer coefficients lower the cross-entropy."""
    return lambda r: (
        _mean(r, regime, less, "cross_entropy") - _mean(r, regime, more, "cross_entropy")
    )


def _freer(regime: str, words: str) -> tuple[Claim[Results], ...]:
    return (
        Claim(
            f"A coefficient for each task lowers cross-entropy on test data, {words}",
            _gain(regime, "shared", "task"),
            "optimal shared α minus optimal α per task, nats",
        ),
        Claim(
            f"A coefficient for each task is more accurate than the papers' shared α, {words}",
            lambda r: _mean(r, regime, "task", "accuracy") - _mean(r, regime, "grid", "accuracy"),
            "optimal per task minus α on the grid, test accuracy, mean of tasks",
        ),
        Claim(
            f"Coefficients by task and part lower it further, {words}",
            _gain(regime, "task", "task and part"),
            "optimal per task minus per task and part, nats on test data",
        ),
    )


CLAIMS: tuple[Claim[Results], ...] = (
    *_freer("linear", "linear"),
    *_freer("posthoc", "post-hoc"),
)
