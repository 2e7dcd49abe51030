"""The interference auditor: which vectors will move which tasks' outputs, how far and where.

    found = audit(study, {"cars": tau_1, "dogs": tau_2})
    print(found.sentence())
    found.report()                                    # a matrix, layers, a page

Where f is affine in its weights, a foreign vector harms a task through J(x)τ on the task's examples
and through nothing else, so that is measured, exactly and layer by layer, before anything is merged
or evaluated; beside it what TAK's Kronecker factors make of it, the disentanglement error ξ and the
cosine. That these numbers predict a loss of accuracy is an experiment: ``experiments.audit``.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import jax.numpy as jnp
import numpy as np
from scipy.special import stdtrit

from linearize import comparison, curvature, fields, identity, io, tree
from linearize.choices import one_of
from linearize.comparison import Measured
from linearize.data.records import SPLITS
from linearize.disentangle.interference import Part, restricted
from linearize.disentangle.moved import Moved, moved
from linearize.evaluate.affine import check_taus
from linearize.evaluate.view import View, of_the_same_leaves
from linearize.examples import Examples, as_arguments
from linearize.interference.layers import in_order, layers
from linearize.methods import METHODS, named
from linearize.report import schema
from linearize.report.audit.results import Results
from linearize.report.audit.words import sentence
from linearize.study import Method, Study, stack
from linearize.study.maps import error_map, mapped
from linearize.study.store import Record
from linearize.task_vector import TaskVector
from linearize.train import RunMismatchError
from linearize.types import Array

GIVEN = "given"
"""What vectors are called that no method of the study trained."""


@dataclass(frozen=True)
class AuditPlan:
    """What of the tasks is looked at, and how."""

    alpha: float = 1.0
    """The coefficient of both vectors at which ξ is measured."""
    examples: int = 64
    """Of each task at most; the study's seed draws them."""
    split: str = "validation"
    """Whose; what was trained on is moved farther by its own vector than other examples are."""
    layers: Mapping[str, tree.Pattern] | None = None
    """Patterns of leaves by layer (:func:`linearize.interference.layers.layers`)."""
    kronecker: bool = True
    """Whether each task's curvature is measured, for TAK's estimate."""

    def __post_init__(self) -> None:
        fields.number("alpha", self.alpha)
        fields.integer("examples", self.examples, low=1)
        one_of("split", self.split, SPLITS)

    def parts(self, tasks: int) -> int:
        """How many parts the measuring has."""
        return 3 + tasks * (1 + self.kronecker)


@dataclass(frozen=True)
class Audit(Measured[Results]):
    """What was measured, and where that is kept."""

    def sentence(self) -> str:
        """Which vectors will harm which tasks, and where; what is not told apart is said too."""
        return sentence(self.results)


def audit(
    study: Study,
    vectors: str | Method | Mapping[str, TaskVector],
    *,
    view: str = "displaced",
    alpha: float = 1.0,
    examples: int = 64,
    split: str = "validation",
    layers: Mapping[str, tree.Pattern] | None = None,
    kronecker: bool = True,
) -> Audit:
    """What every task's vector does to every task's outputs, before any merge is evaluated.

    Of vector j on the examples x of task i, in root mean squares over them:

        moved      √ E ‖J(x) τ_j‖
        relative   that, divided by the same of i's own vector; with a 95 % interval over examples
        layers     √ E ‖J_l(x) τ_j,l‖², of the layer's part alone; their squares do not sum up
        shares     E ⟨J_l τ_j,l, J τ_j⟩ / E ‖J τ_j‖², which sum to 1 over the layers
        kronecker  √ τ_jᵀ G_i τ_j with the Kronecker factors of G_i = E[JᵀJ] (TAK), by layer too
        xi         the share of i's predictions that α τ_j changes beside α τ_i
        cosine     of the two vectors

    J is that of the model's outputs at θ0, before any head; where an example has several outputs
    that are asked for or not (tokens), each that is counts as an example. What the store already
    holds is not measured again.

    Args:
        study: of the tasks; their objectives say what is asked for, and what ξ compares.
        vectors: a task vector for two tasks or more, by the task's name; or a method of the study,
            or its name, whose vectors they are.
        view: how ξ's points are evaluated, of vectors that are given: a row of ``study.views``.
        alpha: the coefficient of both vectors in ξ.
        examples: of each task at most.
        split: whose examples; nothing is looked at that a merge will be tested on.
        layers: patterns of leaves by layer; by default the blocks that names tell of.
        kronecker: whether to measure each task's curvature, a few more passes.

    Raises:
        ValueError: fewer than two vectors, one of a task that the study has not, one that is zero,
            a task of whose examples nothing is asked, layers that leaves are not of or share,
            complex leaves that move while ``kronecker`` is asked for.
        TypeError: what is no task vector, or no mapping of them by task.
        StructureMismatch: a vector of another base, or of other leaves.
        NonFiniteError: NaN or infinity in θ0, a vector or what comes out.
        RunMismatchError: the store holds an audit of other vectors, examples or settings.
        DisagreementError: a sampled number is another by a second way.

    >>> from linearize.data import split_task
    >>> from linearize.objectives import Classify
    >>> x = np.random.default_rng(0).normal(size=(40, 2)).astype("float32")
    >>> tasks = [split_task(name, x, (x[:, 0] > 0).astype(int)) for name in ("one", "two")]
    >>> study = Study((lambda p, x: x @ p["w"], {"w": np.eye(2)}), tasks, Classify())
    >>> taus = {n: TaskVector({"w": s * np.eye(2)}) for n, s in (("one", 1.0), ("two", 0.5))}
    >>> audit(study, taus, kronecker=False).results.audited["given"].relative[0].round(3).tolist()
    [[1.0, 0.5], [2.0, 1.0]]
    """
    plan = AuditPlan(alpha, examples, split, layers, kronecker)
    given = Vectors.of(study, vectors, view)
    given.check(study, plan)
    store = study.store.under("audit" if given.name == GIVEN else f"audit_{given.name}")
    there = study.but(objectives=study.objectives, store=store)
    with store.claimed(_identity_of(study, plan, given)):
        parts = plan.parts(len(given.taus))
        record = store.recorded(parts, partial(measure, there, plan, given))
        told = {
            "experiment": "audit",
            "preset": "custom",
            "versions": io.versions(),
            "seeds": [study.seed],
            "model": comparison.describe_model(study.model),
            "seconds": record["seconds"],
            "tasks": list(given.taus),
            "alpha": plan.alpha,
            "split": plan.split,
            "audited": {given.name: entry(given, [record])},
        }
        found = Audit(schema.read(Results, io.to_json(told)), store)
        store.write("results.json", found.record)
        return found


@dataclass(frozen=True)
class Vectors:
    """What is audited: vectors by task, and how points of them are evaluated."""

    name: str
    label: str
    view: str
    taus: Mapping[str, TaskVector]

    @classmethod
    def of(
        cls, study: Study, given: str | Method | Mapping[str, TaskVector], view: str
    ) -> "Vectors":
        """Those of a method that the study trains, or given ones.

        Raises:
            ValueError: a method or a view that there is not.
            TypeError: what is no task vector, or no mapping of them by task.
        """
        if not isinstance(given, str | Method | Mapping):
            raise TypeError(
                f"vectors is a {type(given).__name__}; expected task vectors by the task's name, a "
                "method, or its name"
            )
        if isinstance(given, Mapping):
            for task, tau in given.items():
                if not isinstance(tau, TaskVector):
                    raise TypeError(
                        f"vectors[{task!r}] is a {type(tau).__name__}; expected a TaskVector, such "
                        "as TaskVector.between(params0, params)"
                    )
            return cls(GIVEN, "Given", one_of("view", view, study.views), dict(given))
        method = named(given, METHODS, "vectors") if isinstance(given, str) else given
        return cls(method.name, method.label, method.view, study.vectors(method))

    def check(self, study: Study, plan: AuditPlan) -> None:
        """Each is of a task of the study with examples, displaces its model, and is not zero.

        Raises:
            ValueError: as :func:`audit`.
            StructureMismatch: likewise.
            NonFiniteError: likewise.
        """
        for task in self.taus:
            one_of("vectors: task", task, study.names)
        if len(self.taus) < 2:
            raise ValueError(
                f"vectors is of {', '.join(map(repr, self.taus)) or 'no task'}; interference is "
                "between two tasks or more: give each a vector"
            )
        check_taus(study.model.params, self.taus)
        for task, tau in self.taus.items():
            tree.check_finite(tau, what=f"vectors[{task!r}]")
            if not float(tree.norm(self._moving(study, tau))):
                raise ValueError(
                    f"vectors[{task!r}] is zero: it moves nothing, and no other movement can be "
                    "measured in its units; give the vector of a fine-tuning that moved"
                )
            drawn(study, plan, task)
            pairs = [n for n, d in self._moving(study, tau).items() if jnp.iscomplexobj(d)]
            if pairs and plan.kronecker:
                raise ValueError(
                    f"vectors[{task!r}] moves {', '.join(pairs)}, which is complex, and Kronecker "
                    "factors are of real leaves; give kronecker=False for what is exact alone"
                )
        layers(self.shapes(study), plan.layers, study.scanned)

    def shapes(self, study: Study) -> dict[str, tuple[int, ...]]:
        """Of all leaves that move, as the model meets them."""
        model, leaves = study.model, dict[str, tuple[int, ...]]()
        for tau in self.taus.values():
            leaves |= {n: jnp.shape(d) for n, d in self._moving(study, tau).items()}
        example = study.split(next(iter(self.taus)), "train").alone
        return {n: leaves[n] for n in in_order(model.f, model.params, leaves, *example)}

    def seen(self, study: Study) -> View:
        """The study's view of them."""
        model = study.model
        return study.views[self.view](model.f, model.params, self.taus, study.batch_size)

    @staticmethod
    def _moving(study: Study, tau: TaskVector) -> dict[str, Array]:
        return {n: tau.delta[n] for n in tree.select(study.model.params) if n in tau.delta}


def measure(study: Study, plan: AuditPlan, given: Vectors, prefix: str = "") -> Record:
    """One study's audit; each part is kept as soon as it is measured.

    Args:
        study: of one seed, in whose store the parts are kept.
        plan: what is looked at.
        given: the vectors, checked.
        prefix: of the parts' names.
    """
    kept, tasks = study.store.kept, tuple(given.taus)
    parts = layers(given.shapes(study), plan.layers, study.scanned)
    record: Record = {"parts": kept(f"{prefix}layers", lambda: list(parts))}
    _same(record["parts"], list(parts))
    record["xi"] = kept(f"{prefix}xi", partial(errors, study, plan, given))
    record |= kept(f"{prefix}angles", partial(angles, given))
    rows = [
        kept(f"{prefix}moved_{task}", partial(movement, study, plan, given, parts, task))
        for task in tasks
    ]
    if plan.kronecker:
        for row, task in zip(rows, tasks, strict=True):
            row |= kept(
                f"{prefix}curvature_{task}", partial(estimate, study, plan, given, parts, task)
            )
    return record | stack(rows)


def movement(
    study: Study, plan: AuditPlan, given: Vectors, parts: Mapping[str, Part], task: str
) -> Record:
    """How far each vector moves one task's outputs, and by which layers: a row of the matrix."""
    seen, asked = drawn(study, plan, task)
    found = moved(
        study.model.f,
        study.model.params,
        list(given.taus.values()),
        seen.inputs,
        parts,
        asked,
        batch_size=min(study.batch_size, 64),
        label=f"{task}: outputs moved",
    )
    total, own = found.counts.sum(), list(given.taus).index(task)
    squares = found.squares.sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = found.along.sum(-1) / squares[:, None]
    relative, low, high = ratios(found, own)
    return {
        "examples": int(np.count_nonzero(found.counts)),
        "moved": np.sqrt(squares / total),
        "relative": relative,
        "low": low,
        "high": high,
        "layers": np.sqrt(found.layers.sum(-1) / total),
        "shares": shares,
    }


def ratios(found: Moved, own: int, level: float = 0.95) -> tuple[np.ndarray, ...]:
    """√ of every vector's mean square over that of one of them, (T,), with its interval.

    A ratio of means over the same N examples, by the delta method with Student's t of N − 1; NaN
    where the one moves nothing, the bounds also of one example.
    """
    squares, N = found.squares, int(np.count_nonzero(found.counts))
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = squares.sum(-1) / squares[own].sum()
        apart = squares - ratio[:, None] * squares[own]
        variance = np.divide(N, N - 1) * (apart**2).sum(-1)  # NaN or infinite where N is 1
        error = np.sqrt(variance) / squares[own].sum()
    half = stdtrit(N - 1, (1 + level) / 2) * error if N > 1 else np.full_like(ratio, np.nan)
    return np.sqrt(ratio), np.sqrt(np.maximum(ratio - half, 0)), np.sqrt(ratio + half)


def estimate(
    study: Study, plan: AuditPlan, given: Vectors, parts: Mapping[str, Part], task: str
) -> Record:
    """TAK's estimate of the same, from Kronecker factors on the same examples."""
    seen, asked = drawn(study, plan, task)
    card = curvature.measure(
        study.model.f,
        study.model.params,
        as_arguments(seen.inputs),
        asked=asked,
        trainable=tree.exactly(name for part in parts.values() for name in part),
        normalized=False,
        seed=study.seed,
        batch_size=min(study.batch_size, 16),
    )
    squares = np.array(
        [[_value(card, tau, part) for part in parts.values()] for tau in given.taus.values()]
    )
    squares *= len(seen) / (len(seen) if asked is None else asked.sum())
    return {"kronecker": np.sqrt(squares.sum(1)), "kronecker_layers": np.sqrt(squares)}


def _value(card: curvature.Card, tau: TaskVector, part: Part) -> float:
    own = restricted(tau.delta, part)
    return max(float(card.value(own)), 0.0) if own else 0.0


def drawn(study: Study, plan: AuditPlan, task: str) -> tuple[Examples, np.ndarray | None]:
    """A task's examples of which something is asked, and which of their positions are.

    Raises:
        ValueError: there is none.
    """
    return study.some(task, plan.examples, "audit", plan.split)


def errors(study: Study, plan: AuditPlan, given: Vectors) -> np.ndarray:
    """ξ by task: the share of its predictions that α τ_j changes beside its own α τ_i, (T, T).

    NaN where two tasks' distances have different units.
    """
    names, view, grid = list(given.taus), given.seen(study), np.array([plan.alpha])
    found = np.full((len(names),) * 2, np.nan)
    np.fill_diagonal(found, 0.0)
    for (i, one), (j, other) in itertools.combinations(enumerate(names), 2):
        if mapped(study, (one, other)):
            at = error_map(study, view, (one, other), grid, plan.examples, plan.split)
            found[i, j], found[j, i] = at.per_task[:, 0, 0]
    return found


def angles(given: Vectors) -> Record:
    """Norms and cosines; a leaf that a vector lacks counts as zero."""
    norms = [float(tau.norm()) for tau in given.taus.values()]
    return {"norm": norms, "cosine": comparison.cosines(of_the_same_leaves(given.taus))}


def entry(given: Method | Vectors, records: Sequence[Record]) -> Record:
    """What :func:`measure` gave for each seed, with what it is of, as the schema has it."""
    first = records[0]["parts"]
    for record in records:
        _same(record["parts"], first)
    about = {"label": given.label, "view": given.view, "parts": first}
    return {**stack(list(records)), **about}


def _same(kept: Sequence[str], wanted: Sequence[str]) -> None:
    """Rows of other layers, or in another order, are not read as if they were of these.

    Raises:
        RunMismatchError: with both.
    """
    if list(kept) != list(wanted):
        raise RunMismatchError(
            f"what is kept is of the layers {', '.join(kept)}; these are {', '.join(wanted)}: "
            "choose another directory, or move this one away"
        )


def _identity_of(study: Study, plan: AuditPlan, given: Vectors) -> Record:
    """All that decides the numbers, as JSON: models, data and vectors by their content."""
    model, tasks = study.model, list(given.taus)
    args = study.split(tasks[0], plan.split).alone
    return io.to_json(
        {
            "f": identity.of(model.f, model.params, *args, derivative=True),
            "base": tree.fingerprint(model.params),
            "data": {task: study.split(task, plan.split).fingerprint for task in tasks},
            "objectives": {task: comparison.objective_of(study, task) for task in tasks},
            "vectors": {task: tree.fingerprint(tau.delta) for task, tau in given.taus.items()},
            "view": given.view,
            "layers": list(layers(given.shapes(study), plan.layers, study.scanned)),
            "seed": study.seed,
            "plan": asdict(plan),
        }
    )
