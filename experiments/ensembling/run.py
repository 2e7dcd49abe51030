"""Averaging weights against ensembling outputs, of pairs of tasks, of all tasks, and of seeds.

    python -m experiments.ensembling packaged --vectors runs/compare/packaged8

For every two task vectors: accuracy on each of the two tasks of the model with averaged weights,
θ0 + ½ (τ1 + τ2), and of the ensemble that averages the two models' logits (*Editing Models with
Task Arithmetic*, appendix). In the tangent space features are equal and, where the head is affine,
so are logits; a head that normalises leaves a difference. Then the same task's vectors of several
seeds: their cosine, and the accuracy of their average.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments import claims, protocol, running, vectors
from experiments.claims import Claim
from experiments.ensembling.config import EnsemblingConfig
from experiments.ensembling.results import Results, off_diagonal
from linearize import comparison, evaluate, io
from linearize.data import Task
from linearize.evaluate import rank_correlation
from linearize.evaluate.view import View
from linearize.methods import METHODS
from linearize.objectives import Classify
from linearize.report import schema
from linearize.study import Method, Store, Study, stack
from linearize.study.store import Record

log = logging.getLogger(__name__)


def run(config: EnsemblingConfig, run_dir: Path, preset: str = "custom") -> Path:
    """Everything from task vectors to ``report.html``, whose path is returned."""
    config = vectors.resolve(config)
    vectors.check_lent(config)
    with running.claimed(run_dir, config):
        tasks, store = protocol.load_tasks(config), Store.of(run_dir)
        measured = vectors.by_regime(compared, store, config, tasks)
        model = protocol.describe_model(config.model, config.seeds[0])
        found = running.about("ensembling", preset, config, model) | measured
        found |= {
            "tasks": config.data.tasks,
            "relation": {r: relate(measured[r]) for r in config.regimes},
        }
        if len(config.seeds) > 1 and config.model.pretrained:  # seeds share θ0
            name = f"across_seeds_{'_'.join(map(str, config.seeds))}"
            across = partial(across_seeds, config, tasks, store)
            found["across"] = store.kept(name, across, folder="")
        results = claims.judged(schema.read(Results, found), CLAIMS)
        return running.finish(run_dir, results)


def compared(study: Study, method: Method) -> Record:
    """Accuracy on each task (row) of both merges of its model with another task's (column).

    ``agreement`` is the share of test examples on which the two merges predict the same class. The
    diagonal holds the single models, and ``all`` the merges of all tasks.
    """
    names, view = study.names, study.view(method)
    T = len(names)
    pairs = {key: np.ones((T, T)) for key in ("average", "ensemble", "agreement")}
    every = {key: np.zeros(T) for key in pairs}
    for i, task in enumerate(names):
        log.info("seed %d: %s merges on %s", study.seed, method.name, task)
        labels = study.split(task, "test").labels
        alone = logits(study, view, task, np.eye(T))
        weights = np.array([(np.eye(T)[i] + np.eye(T)[j]) / 2 for j in range(T)])
        points = np.concatenate([weights, np.full((1, T), 1 / T)])
        merged = logits(study, view, task, points)
        for j in range(T):
            found = scores(merged[j], (alone[i] + alone[j]) / 2, labels)
            for key, value in found.items():
                pairs[key][i, j] = value
        for key, value in scores(merged[T], alone.mean(0), labels).items():
            every[key][i] = value
    return io.to_json({"pairs": pairs, "all": every})


def scores(average: np.ndarray, ensemble: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy of two sets of logits, and how often they predict alike."""
    left, right = (np.asarray(evaluate.predicted(each)) for each in (average, ensemble))
    return {
        "average": float((left == labels).mean()),
        "ensemble": float((right == labels).mean()),
        "agreement": float(((left == right) & (left >= 0)).mean()),
    }


def logits(study: Study, view: View, task: str, points: np.ndarray) -> np.ndarray:
    """One task's logits on its test examples at each point (P, T): (P, N, C)."""
    read = study.objectives[task]
    assert isinstance(read, Classify)
    found = view.outputs(points, study.split(task, "test"))
    return np.stack([np.asarray(read.logits(each)) for each in found])


def relate(regime: Mapping[str, Any]) -> Record:
    """Correlation over ordered pairs of the two merges' accuracies.

    Pearson's r of each seed; Spearman's ρ of the means over seeds with the interval over tasks.
    """
    average, ensemble = (np.asarray(regime["pairs"][key], float) for key in ("average", "ensemble"))
    by_seed = zip(off_diagonal(average), off_diagonal(ensemble), strict=True)
    r = [np.corrcoef(a, e)[0, 1] for a, e in by_seed]
    found = rank_correlation(average.mean(0), ensemble.mean(0))
    return io.to_json({"pearson": r, "spearman": found._asdict()})


def across_seeds(config: EnsemblingConfig, tasks: Mapping[str, Task], store: Store) -> Record:
    """The same task's vectors of all seeds, trained on other heads and in another order.

    By trained regime and task: ``cosine`` (S, S) of every two seeds; accuracy with each seed's head
    (column) of each seed's vector (``single``, rows) and of the seeds' average (``average``).
    """
    studies = [
        vectors.study(config, tasks, seed, store.under(f"seed_{seed}")) for seed in config.seeds
    ]
    return {
        name: stack([averaged(studies, METHODS[name], task) for task in config.data.tasks])
        for name in ("nonlinear", "linear")
        if name in config.regimes
    }


def averaged(studies: Sequence[Study], method: Method, task: str) -> Record:
    """One task's vectors of all seeds: cosines and accuracies."""
    log.info("seeds: %s on %s", method.name, task)
    S, first = len(studies), studies[0]
    taus = {str(study.seed): study.vectors(method)[task] for study in studies}
    test, points = first.split(task, "test"), np.concatenate([np.eye(S), np.full((1, S), 1 / S)])
    outputs = first.view(method, taus).outputs(points, test)
    hits = [
        [float(study.objectives[task].measure(z, test.targets)["accuracy"]) for study in studies]
        for z in outputs
    ]
    return {"cosine": comparison.cosines(taus), "single": hits[:S], "average": hits[S]}


def _pairs(results: Results, regime: str, key: str) -> np.ndarray:
    """Mean over ordered pairs, (S,)."""
    return results.regimes[regime].over_pairs(key)


def _close(regime: str, words: str) -> Claim[Results]:
    return Claim(
        f"Averaged weights are within one point of the ensemble's accuracy, {words} (TA, appendix)",
        lambda r: 0.01 - np.abs(_pairs(r, regime, "average") - _pairs(r, regime, "ensemble")),
        "0.01 minus the absolute difference of accuracies, mean of ordered pairs",
    )


CLAIMS: tuple[Claim[Results], ...] = (
    _close("nonlinear", "non-linear"),
    _close("posthoc", "post-hoc"),
    _close("linear", "linear"),
    Claim(
        "Averaging weights and ensembling agree more often in the linear regime",
        lambda r: _pairs(r, "linear", "agreement") - _pairs(r, "nonlinear", "agreement"),
        "share of equal predictions, linear minus non-linear",
    ),
)
