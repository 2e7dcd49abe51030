"""Does the auditor predict? Every ordered pair of tasks: interference, and the loss of accuracy.

    python -m experiments.audit packaged

For each seed and regime: the audit of all tasks' vectors on validation examples
(:func:`linearize.interference.audit`), and the test accuracy of each task with its own vector alone
and with another's beside it, both at α = 1, in the regime's view. Then the rank correlation of each
of the auditor's measures with the loss, over ordered pairs.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from experiments import protocol, running, vectors
from experiments.audit.config import AuditConfig
from experiments.audit.results import MEASURES, Relation, Results
from linearize.data import Task
from linearize.evaluate import rank_correlation
from linearize.interference.auditor import AuditPlan, Vectors, entry
from linearize.interference.auditor import measure as audited
from linearize.methods import METHODS
from linearize.report import schema
from linearize.report.claims import Verdict
from linearize.report.style import label
from linearize.study import FineTuning, Method, Store, Study
from linearize.study.store import Record


def run(config: AuditConfig, run_dir: Path, preset: str = "custom") -> Path:
    """Everything from task vectors to ``report.html``, whose path is returned."""
    config = vectors.resolve(config)
    vectors.check_lent(config)
    with running.claimed(run_dir, config):
        tasks, plan = protocol.load_tasks(config), AuditPlan(examples=config.examples)
        parts = len(config.regimes) * (plan.parts(len(tasks)) + 1)
        measured = Store.of(run_dir).every_seed(
            config.seeds, parts, partial(measure, config, plan, tasks)
        )
        model = protocol.describe_model(config.model, config.seeds[0])
        found = running.about("audit", preset, config, model) | {
            "seconds": measured["seconds"],
            "tasks": config.data.tasks,
            "alpha": plan.alpha,
            "split": plan.split,
            "audited": {
                r: entry(METHODS[r], [each for (each,) in measured["audited"][r]])
                for r in config.regimes
            },
            "accuracy": measured["accuracy"],
        }
        results = schema.read(Results, found)
        results = dataclasses.replace(results, relation=relate(results))
        return running.finish(run_dir, dataclasses.replace(results, claims=judge(results)))


def fine_tunings(config: AuditConfig, run_dir: Path) -> list[FineTuning]:
    """Those of every seed, regime and task."""
    return vectors.fine_tunings(config, run_dir, study=protocol.study)


def measure(
    config: AuditConfig, plan: AuditPlan, tasks: Mapping[str, Task], seed: int, store: Store
) -> Record:
    """One seed: each regime's audit and accuracies; every part is kept as a file."""
    study = protocol.study(config, tasks, seed, store).but(borrowed=vectors.borrowed(config, seed))
    record: Record = {"audited": {}, "accuracy": {}}
    for name in config.regimes:
        method = METHODS[name]
        given = Vectors.of(study, method, method.view)
        given.check(study, plan)
        record["audited"][name] = [audited(study, plan, given, f"{name}_")]  # stacked as it is
        record["accuracy"][name] = store.kept(
            f"{name}_accuracy", partial(accuracies, study, method)
        )
    return record


def accuracies(study: Study, method: Method) -> np.ndarray:
    """Each task's with its own vector and another's, (T, T), test data; alone on the diagonal."""
    view, names = study.view(method), study.names
    return np.array(
        [
            [study.at(view, {task: 1.0, other: 1.0}, task, "test") for other in names]
            for task in names
        ]
    )


def relate(results: Results) -> tuple[Relation, ...]:
    """Spearman's ρ of every measure with the loss, by regime."""
    return tuple(
        _relation(results, regime, name) for regime in results.audited for name in MEASURES
    )


def _relation(results: Results, regime: str, name: str) -> Relation:
    values, loss = results.measure(regime, name), results.loss(regime)
    seeds = [float(rank_correlation(*each).mean) for each in zip(values, loss, strict=True)]
    whole = rank_correlation(values.mean(0), loss.mean(0))
    return Relation(regime, name, np.array(seeds), *map(float, whole))


def judge(results: Results) -> tuple[Verdict, ...]:
    """Whether the auditor's own measure predicts, by its interval over tasks."""
    return tuple(
        Verdict(
            "The farther a foreign vector moves a task's outputs, in units of the task's own, the "
            f"more accuracy is lost when it is added ({label(each.regime).lower()})",
            True if each.low > 0 else False if each.high < 0 else None,
            f"Spearman's ρ over ordered pairs, interval over tasks: {each.mean:+.3f} "
            + (
                f"[{each.low:+.3f}, {each.high:+.3f}]"
                if np.isfinite(each.low)
                else "no interval: too few tasks"
            ),
        )
        for each in results.relation
        if each.measure == "relative"
    )
