"""Result files of an experiment, read and checked; nothing here needs a model."""

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linearize import files, sealed
from linearize.objectives.metric import Control
from linearize.report import schema
from linearize.report.claims import Verdict
from linearize.report.compare import measures
from linearize.report.compare.measures import Measures
from linearize.report.node import Floats, Node, ResultsError, checked, read
from linearize.report.style import REGIMES, Look

ARGMAX = "argmax disagreement"


@dataclass(frozen=True)
class Addition:
    """θ0 + α Σ τ_t: S seeds, T tasks, A coefficients.

    What is called accuracy is each task's metric on test data, in its own units.
    """

    accuracy: Floats  # (S, T)
    normalized: Floats | None  # (S, T)
    alpha: Floats | None  # (S,)
    sweep_validation: Floats | None  # (S, A, T)
    sweep_test: Floats | None  # (S, A, T)


@dataclass(frozen=True)
class Negation:
    """θ0 − α τ_t, a task at a time: the metric of that task (target) and of its control task."""

    target: Floats  # (S, T)
    control: Floats  # (S, T)
    alpha: Floats | None  # (S, T)


@dataclass(frozen=True)
class PairMap:
    """Disentanglement error ξ(α_a, α_b) of a pair; axis order (S, α of a, α of b)."""

    tasks: tuple[str, str]
    alphas: Floats  # (G,)
    total: Mapping[str, Floats]  # method -> (S, G, G)
    n_eval: int | None
    search_box: tuple[float, float] | None
    distance: str
    farthest: float | None
    """The largest distance of one task, where there is one."""
    reduction: str

    @property
    def measured(self) -> str:
        """What the error sums, for captions."""
        if self.distance.endswith("disagreement"):
            return self.distance
        return f"distance of predictions: {self.distance}"

    @property
    def most(self) -> float | None:
        """The largest error that there is."""
        count = 2 if self.reduction == "sum" else 1
        return None if self.farthest is None else count * self.farthest


@dataclass(frozen=True)
class Results:
    """``results.json``, parsed; mappings are keyed by method or merge."""

    preset: str
    experiment: str
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    seconds: float | None
    model: Mapping[str, Any]
    versions: Mapping[str, Any]
    config: Mapping[str, Any]
    classes: Mapping[str, tuple[str, ...]]
    counts: Mapping[str, Mapping[str, int]]
    measures: Measures
    control_measures: Measures
    look: Look
    explored: str
    """The method that the live explorer shows."""
    alphas: Floats  # (A,)
    pretrained: Floats  # (S, T)
    random_init: Floats | None  # (S, T)
    single: Mapping[str, Floats]  # (S, T)
    addition: Mapping[str, Addition]
    negation: Mapping[str, Negation]
    control_tasks: tuple[str, ...] | None  # one a task
    control_pretrained: Floats | None  # (S, T)
    tolerance: Control
    cosine: Mapping[str, Floats]  # (S, T, T)
    maps: tuple[PairMap, ...]
    claims: tuple[Verdict, ...]
    training: Mapping[str, Mapping[str, Floats]]  # regime -> what was recorded -> (S, T)

    def regime(self, row: str) -> bool:
        """Whether a row is a method whose vectors are added and negated."""
        return row in REGIMES or row in self.single

    def contends(self, row: str) -> bool:
        """Whether a row may be the best: regimes and merges, not what they are held against."""
        if self.regime(row):
            return True
        return (
            row in self.look.own and row in self.addition and self.addition[row].alpha is not None
        )

    @property
    def merged(self) -> bool:
        """Whether merges contend beside the sum of a regime's vectors."""
        return any(self.contends(m) and not self.regime(m) for m in self.addition)


@dataclass(frozen=True)
class TaskLogits:
    """A task's cached linear-regime logits: logits(α) = logits0 + Σ_k α_k dlogits[k]."""

    name: str
    logits0: NDArray[np.float32]  # (E, C)
    dlogits: NDArray[np.float32]  # (T, E, C)
    labels: NDArray[np.int32]  # (E,)


def load(run_dir: Path | str) -> Results:
    """Reads ``results.json`` of a run directory.

    Raises:
        ResultsError: the file is missing, is no JSON, or does not fit the schema; the message
            names the file and the key.
    """
    raw = read(run_dir).value
    try:
        return parse(raw)
    except ResultsError as error:
        raise ResultsError(f"{Path(run_dir) / 'results.json'}: {error}") from None


def parse(raw: Any) -> Results:
    """Checks a decoded ``results.json`` and turns its lists into float64 arrays.

    Raises:
        ResultsError: a key is missing, or its value has another shape, type or range.
    """
    top = checked(raw)
    tasks = top.names("tasks")
    seeds = top.integers("seeds")
    S, T = len(seeds), len(tasks)
    if not S or not T:
        raise ResultsError(f"seeds={list(seeds)}, tasks={list(tasks)}; each needs at least one")
    alphas = top.numbers("alphas", (None,)) if top.has("alphas") else np.zeros(0)
    A = len(alphas)

    control = top.get("control_task", default=None)
    if isinstance(control, str):
        control = [control] * T
    if control is not None and (not isinstance(control, Sequence) or len(control) != T):
        raise ResultsError(f"control_task is {control!r}; expected a name or {T} names")
    of = measures.read(top, tasks)
    controls = of if control is None else measures.read(top, [str(task) for task in control])

    def addition(node: Node) -> Addition:
        return Addition(
            accuracy=measures.values(node, "accuracy", (S, T), of),
            normalized=node.optional("normalized", (S, T)),
            alpha=node.optional("alpha", (S,)),
            sweep_validation=measures.optional(node, "sweep_validation", (S, A, T), of),
            sweep_test=measures.optional(node, "sweep_test", (S, A, T), of),
        )

    def negation(node: Node) -> Negation:
        return Negation(
            target=measures.values(node, "target", (S, T), of),
            control=measures.values(node, "control", (S, T), controls),
            alpha=node.optional("alpha", (S, T)),
        )

    classes = Node(top.mapping("classes"), "classes")
    counts = Node(top.mapping("counts"), "counts")
    seconds = top.optional("seconds", ())
    return Results(
        preset=str(top.get("preset")),
        experiment=str(top.get("experiment", default="compare")),
        tasks=tasks,
        seeds=seeds,
        seconds=None if seconds is None else float(seconds),
        model=top.mapping("model"),
        versions=top.mapping("versions"),
        config=top.mapping("config"),
        classes={t: tuple(map(str, classes.list(t))) for t in classes.value},
        counts={t: counts.mapping(t) for t in counts.value},
        measures=of,
        control_measures=controls,
        look=Look({row: str(name) for row, name in top.mapping("labels").items()}),
        explored=str(top.get("explored", default=None) or "linear"),
        alphas=alphas,
        pretrained=measures.values(top, "pretrained", (S, T), of),
        random_init=measures.optional(top, "random_init", (S, T), of),
        single={m: measures.values(top, f"single/{m}", (S, T), of) for m in top.mapping("single")},
        addition={m: addition(top.child(f"addition/{m}")) for m in top.mapping("addition")},
        negation={m: negation(top.child(f"negation/{m}")) for m in top.mapping("negation")},
        control_tasks=None if control is None else tuple(map(str, control)),
        control_pretrained=measures.optional(top, "control_pretrained", (S, T), controls),
        tolerance=_tolerance(top),
        cosine={m: top.numbers(f"cosine/{m}", (S, T, T)) for m in top.mapping("cosine")},
        maps=tuple(_pair_map(node, S, tasks) for node in top.children("maps")),
        claims=tuple(schema.read(Verdict, child) for child in top.children("claims")),
        training={
            m: {k: top.numbers(f"training/{m}/{k}", (S, T)) for k in top.mapping(f"training/{m}")}
            for m in top.mapping("training")
        },
    )


def _tolerance(node: Node) -> Control:
    share, units = node.optional("control_share", ()), node.optional("control_units", ())
    try:
        return Control(
            retained=Control.retained if share is None else float(share),
            units=None if units is None else float(units),
        )
    except ValueError as error:
        raise ResultsError(f"control_share or control_units: {error}") from None


def _pair_map(node: Node, S: int, tasks: Sequence[str]) -> PairMap:
    pair = node.names("tasks")
    if len(pair) != 2 or any(t not in tasks for t in pair):
        raise ResultsError(f"{node.path}/tasks is {list(pair)}; expected two of {list(tasks)}")
    alphas = node.numbers("alphas", (None,))
    G = len(alphas)
    if G < 2 or np.any(np.diff(alphas) <= 0):
        raise ResultsError(f"{node.path}/alphas must be two or more rising numbers, got {alphas}")
    box = node.optional("search_box", (2,))
    n_eval = node.optional("n_eval", ())
    distance = str(node.get("distance", default=ARGMAX))
    farthest = node.optional("farthest", ())
    if farthest is None and distance == ARGMAX:  # runs that knew no other did not say so
        farthest = np.asarray(1.0)
    return PairMap(
        tasks=(pair[0], pair[1]),
        alphas=alphas,
        total={m: node.numbers(f"total/{m}", (S, G, G)) for m in node.mapping("total")},
        n_eval=None if n_eval is None else int(n_eval),
        search_box=None if box is None else (float(box[0]), float(box[1])),
        distance=distance,
        farthest=None if farthest is None else float(farthest),
        reduction=str(node.get("reduction", default="sum")),
    )


def load_explorer(run_dir: Path | str, results: Results) -> tuple[TaskLogits, ...] | None:
    """Reads ``explorer.npz``: the first seed's linear-regime logits of each task's examples.

    Returns:
        One entry a task, in the results' order; None where the file does not exist.

    Raises:
        ResultsError: the file is damaged or does not fit the results.
    """
    path = Path(run_dir) / "explorer.npz"
    if not path.exists():
        return None
    if wrong := sealed.problem(path):
        raise ResultsError(
            f"{path} {wrong}; delete it for a page without the live explorer, or run the "
            "experiment again"
        )
    try:
        with files.open_regular(path) as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except OSError as error:
        raise ResultsError(f"{path} cannot be read: {error}") from None
    except (ValueError, EOFError, TypeError, zlib.error, zipfile.BadZipFile) as error:
        raise ResultsError(
            f"{path} is damaged ({error}); move it away for a page without the live explorer, "
            "or run the experiment again"
        ) from None
    return tuple(_task_logits(path, arrays, task, results) for task in results.tasks)


def _task_logits(
    path: Path, arrays: Mapping[str, NDArray[Any]], task: str, results: Results
) -> TaskLogits:
    missing = [
        k for k in (f"{task}/{n}" for n in ("logits0", "dlogits", "labels")) if k not in arrays
    ]
    if missing:
        raise ResultsError(f"{path} lacks {', '.join(missing)}; it holds {', '.join(arrays)}")
    logits0 = arrays[f"{task}/logits0"].astype(np.float32)
    dlogits = arrays[f"{task}/dlogits"].astype(np.float32)
    labels = arrays[f"{task}/labels"]
    if (
        logits0.ndim != 2
        or not logits0.size
        or dlogits.shape != (len(results.tasks), *logits0.shape)
    ):
        raise ResultsError(
            f"{path}: {task}/logits0 {logits0.shape} and {task}/dlogits {dlogits.shape} do not fit "
            f"(E, C) and ({len(results.tasks)}, E, C)"
        )
    if not (np.isfinite(logits0).all() and np.isfinite(dlogits).all()):
        raise ResultsError(f"{path}: the logits of {task} hold NaN or infinity")
    classes = logits0.shape[1]
    if labels.shape != logits0.shape[:1] or labels.min() < 0 or labels.max() >= classes:
        raise ResultsError(
            f"{path}: {task}/labels {labels.shape} must be {logits0.shape[0]} class numbers below "
            f"{classes}"
        )
    named = results.classes.get(task)
    if named is not None and len(named) != classes:
        raise ResultsError(
            f"{path}: {task} has {classes} logits, results.json {len(named)} classes"
        )
    return TaskLogits(task, logits0, dlogits, labels.astype(np.int32))
