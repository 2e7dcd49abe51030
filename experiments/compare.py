"""The main job: three regimes of task arithmetic side by side, from a preset to a report.

    python -m experiments.compare demo
    python -m experiments.compare packaged8 --seeds 0 1 2

For each seed: frozen heads, every task fine-tuned non-linearly and in the tangent space (there also
to the optimum, where ``exact`` is configured),
single-task accuracy, addition, negation, baselines, error maps. Choices are made on validation
data; test data make the report. What a run directory already holds is not computed again.
"""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from configs import COMPARE
from experiments import claims, exact, protocol, running, stand_ins
from experiments.protocol import TRAINED, Evaluator, Regime, Setting, Trained
from experiments.records import Record, about, begin, kept, recorded, stack, total_seconds
from linearize import edit, sealed
from linearize.config import CompareConfig
from linearize.data import Task
from linearize.task_vector import TaskVector

log = logging.getLogger(__name__)

Taus = Mapping[str, TaskVector]
T = TypeVar("T")


def run(config: CompareConfig, run_dir: Path, preset: str = "custom") -> Path:
    """Everything from weights to ``report.html``, whose path is returned."""
    with running.claimed(run_dir, config):
        if config.stand_ins is not None:
            stand_ins.make(config.stand_ins, (*config.data.tasks, config.data.control))
        tasks = protocol.load_tasks(config, control=True)
        records = [measure(run_dir / f"seed_{seed}", config, tasks, seed) for seed in config.seeds]
        results = describe(config, tasks, preset) | assemble(config, records)
        if config.random_init:
            log.info("the maps once more, from random weights")
            results["random"] = run_random(config, tasks, run_dir / "random_init")
        results["claims"] = claims.judge(results, claims.COMPARE)
        shown = run_dir / f"seed_{config.seeds[0]}" / "explorer.npz"
        if shown.exists():
            sealed.write(run_dir / "explorer.npz", shown.read_bytes())
        return running.finish(run_dir, results)


def run_random(config: CompareConfig, tasks: Mapping[str, Task], run_dir: Path) -> Record:
    """The maps once more from random weights, for the same pairs and seeds."""
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, pretrained=False),
        exact=None,
        data=dataclasses.replace(
            config.data,
            tasks=tuple(t for t in config.data.tasks if any(t in p for p in config.map.pairs)),
        ),
    )
    records = [measure_maps(run_dir / f"seed_{s}", config, tasks, s) for s in config.seeds]
    return {"tasks": list(config.data.tasks)} | assemble(config, records)


def parts(config: CompareConfig) -> int:
    """How many parts a seed's measuring has: fine-tunings, files of numbers, class scores."""
    exact = config.exact is not None
    regimes = len(TRAINED) - (not exact)
    files = 1 + 3 * regimes + len(config.map.pairs) + exact + len(config.baselines)
    return fine_tunings(config) + files + 1


def fine_tunings(config: CompareConfig) -> int:
    """How many regimes are fine-tuned in."""
    return len(set(TRAINED.values())) - (config.exact is None)


@recorded(parts)
def measure(run_dir: Path, config: CompareConfig, tasks: Mapping[str, Task], seed: int) -> Record:
    """One seed's measurements, in the shape that ``results.json`` stacks over seeds.

    Each part is a file as soon as it is measured, so that a run that is killed goes on from there.
    """
    setting, vectors, evaluators = trained(config, tasks, seed, run_dir)

    def part(name: str, compute: Callable[[], T]) -> T:
        return kept(run_dir / "parts" / f"{name}.json", compute)

    def each(name: str, of: Callable[[Evaluator], T]) -> dict[str, T]:
        return {r: part(f"{name}_{r}", partial(of, e)) for r, e in evaluators.items()}

    single = each("single", singles)
    record: Record = {
        **part("pretrained", partial(pretrained, evaluators["linear"])),
        "single": single,
        "addition": each("addition", lambda e: addition(e, single[e.regime])),
        "negation": each("negation", negation),
        "cosine": {r: cosines(taus) for r, taus in vectors.items()},
        "maps": [
            part("map_" + "_".join(pair), partial(error_maps, evaluators, pair))
            for pair in config.map.pairs
        ],
    }
    if config.exact is not None:
        record["training"] = part("training", partial(exact.training, setting, vectors, run_dir))
    for name in config.baselines:
        baseline = partial(BASELINES[name], setting, vectors["nonlinear"], record, run_dir)
        for table, row in part(name, baseline).items():
            record[table][name] = row
    begin("class scores for the report's sliders")
    protocol.write_explorer(evaluators["linear"], run_dir / "explorer.npz")
    return record


@recorded(lambda config: fine_tunings(config) + 1 + len(config.map.pairs))
def measure_maps(
    run_dir: Path, config: CompareConfig, tasks: Mapping[str, Task], seed: int
) -> Record:
    """One seed's accuracies before and after fine-tuning, and its error maps."""
    setting, _, evaluators = trained(config, tasks, seed, run_dir)

    def maps(pair: tuple[str, str]) -> Record:
        begin("map, " + ", ".join(pair))
        return error_maps(evaluators, pair)

    begin("accuracies")
    return {
        "pretrained": [evaluators["linear"].at({}, task, "test") for task in setting.names],
        "single": {r: singles(e) for r, e in evaluators.items()},
        "maps": [maps(pair) for pair in config.map.pairs],
    }


def trained(
    config: CompareConfig, tasks: Mapping[str, Task], seed: int, run_dir: Path
) -> tuple[Setting, dict[Regime, Taus], dict[Regime, Evaluator]]:
    """A seed's setting, its task vectors by training regime, and an evaluator of each regime."""
    setting = protocol.prepare(config, tasks, seed)
    vectors: dict[Regime, Taus] = {}
    regimes: tuple[Trained, ...] = ("nonlinear", "linear")
    for regime in regimes:
        begin(f"{regime} fine-tuning")
        vectors[regime] = protocol.task_vectors(setting, regime, run_dir)
    if config.exact is not None:
        begin("exact linear fine-tuning")
        vectors["exact"] = exact.task_vectors(setting, config.exact, run_dir)
    evaluators = {r: Evaluator(setting, r, vectors[t]) for r, t in TRAINED.items() if t in vectors}
    return setting, vectors, evaluators


def pretrained(evaluator: Evaluator) -> Record:
    """Accuracy at θ0, of each task and, once a task, of the control task."""
    names, control = evaluator.setting.names, evaluator.setting.config.data.control
    return {
        "pretrained": [evaluator.at({}, task, "test") for task in names],
        "control_pretrained": [evaluator.at({}, control, "test")] * len(names),
    }


def singles(evaluator: Evaluator, split: str = "test") -> list[float]:
    """Each task's accuracy with its own task vector, α = 1."""
    return [evaluator.at({task: 1.0}, task, split) for task in evaluator.setting.names]


def addition(evaluator: Evaluator, single: list[float]) -> Record:
    """All task vectors added with one α, which validation data choose; ``single`` is on test."""
    names = evaluator.setting.names
    alphas = protocol.alphas(evaluator.setting.config)
    splits = ("validation", "test") if evaluator.setting.config.edit.sweep_test else ("validation",)
    sweep = {
        split: np.stack([evaluator(dict.fromkeys(names, alphas), t, split) for t in names], -1)
        for split in splits
    }
    alone = np.asarray(singles(evaluator, "validation"))
    choice = edit.search_scale(sweep["validation"], alone, alphas)
    if "test" in sweep:
        accuracy = sweep["test"][choice.index]
    else:
        chosen = dict.fromkeys(names, choice.alpha)
        accuracy = np.array([evaluator.at(chosen, t, "test") for t in names])
    return {
        "alpha": choice.alpha,
        "accuracy": accuracy.tolist(),
        "normalized": (accuracy / np.asarray(single)).tolist(),
        **{f"sweep_{split}": values.tolist() for split, values in sweep.items()},
    }


def negation(evaluator: Evaluator) -> Record:
    """Each task vector subtracted, with the α that validation data choose under control."""
    config = evaluator.setting.config
    alphas, control = protocol.alphas(config), config.data.control
    rows = []
    for task in evaluator.setting.names:
        target, kept = (evaluator({task: -alphas}, t, "validation") for t in (task, control))
        choice = edit.search_negation(target, kept, alphas, retained=config.edit.retained)
        after = {task: -float(choice.alpha)}
        rows.append(
            {
                "alpha": float(choice.alpha),
                "target": evaluator.at(after, task, "test"),
                "control": evaluator.at(after, control, "test"),
            }
        )
    return stack(rows)


def cosines(taus: Taus) -> list[list[float]]:
    """Cosine similarity of every two task vectors."""
    return [[float(a.cosine(b)) for b in taus.values()] for a in taus.values()]


def error_maps(evaluators: Mapping[Regime, Evaluator], pair: tuple[str, str]) -> Record:
    """Disentanglement error of one pair of tasks in all regimes, on one grid."""
    maps = {regime: evaluator.error_map(pair) for regime, evaluator in evaluators.items()}
    return {
        "per_task": {regime: np.asarray(m.per_task).tolist() for regime, m in maps.items()},
        "total": {regime: np.asarray(m.total).tolist() for regime, m in maps.items()},
    }


def random_vectors(setting: Setting, taus: Taus, record: Record, run_dir: Path) -> Record:
    """Random vectors with each tensor's norm matched, added and negated non-linearly."""
    drawn = {
        task: edit.random_like(tau, seed=1000 * setting.seed + i)
        for i, (task, tau) in enumerate(taus.items())
    }
    evaluator = Evaluator(setting, "nonlinear", drawn)
    return {
        "addition": addition(evaluator, singles(evaluator)),
        "negation": negation(evaluator),
    }


def gradient_ascent(setting: Setting, taus: Taus, record: Record, run_dir: Path) -> Record:
    """Fine-tuning that climbs the loss instead of descending it, in place of negation."""
    climbed = {
        task: protocol.fine_tune(
            setting, "nonlinear", task, run_dir / "gradient_ascent" / task, direction="ascend"
        )
        for task in taus
    }
    evaluator = Evaluator(setting, "nonlinear", climbed)
    control = setting.config.data.control
    return {
        "negation": {
            "target": singles(evaluator),
            "control": [evaluator.at({task: 1.0}, control, "test") for task in taus],
        }
    }


def joint(setting: Setting, taus: Taus, record: Record, run_dir: Path) -> Record:
    """One fine-tuning on all tasks together, for as many steps as they took apart."""
    evaluator = Evaluator(
        setting, "nonlinear", {"joint": protocol.fine_tune_jointly(setting, run_dir / "joint")}
    )
    accuracy = [evaluator.at({"joint": 1.0}, task, "test") for task in setting.names]
    normalized = np.divide(accuracy, record["single"]["nonlinear"])
    return {"addition": {"accuracy": accuracy, "normalized": normalized.tolist()}}


BASELINES = {"random": random_vectors, "gradient_ascent": gradient_ascent, "joint": joint}


def describe(config: CompareConfig, tasks: Mapping[str, Task], preset: str) -> Record:
    """What was run, on what, by which versions."""
    names = config.data.tasks
    splits = ("train", "validation", "test")
    return about("compare", preset, config) | {
        "model": protocol.describe_model(config.model, config.seeds[0]),
        "tasks": list(names),
        "classes": {name: list(tasks[name].classes) for name in names},
        "counts": {n: {s: len(getattr(t, s).labels) for s in splits} for n, t in tasks.items()},
        "skipped": {name: dict(task.skipped) for name, task in tasks.items() if task.skipped},
        "alphas": protocol.alphas(config).tolist(),
        "control_task": config.data.control,
        "control_share": config.edit.retained,
    }


def assemble(config: CompareConfig, records: list[Record]) -> Record:
    """Seeds' records as one, every measurement a list over seeds."""
    maps = config.map
    facts = {
        "n_eval": maps.n_eval,
        "search_box": list(maps.search_box),
        "alphas": np.linspace(maps.low, maps.high, maps.points).tolist(),
        "distance": "argmax disagreement",
        "reduction": "sum",
    }
    by_pair = zip(*(record["maps"] for record in records), strict=True)
    drawn = [
        {"tasks": list(pair), **facts, **stack(list(seeds))}
        for pair, seeds in zip(maps.pairs, by_pair, strict=True)
    ]
    return stack(records) | {"maps": drawn, "seconds": total_seconds(records)}


if __name__ == "__main__":
    running.launch("compare", COMPARE, run)
