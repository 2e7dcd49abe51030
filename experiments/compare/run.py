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
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from experiments import claims, protocol, running, stand_ins
from experiments.compare import exact
from experiments.compare.claims import CLAIMS
from experiments.running import about
from linearize import comparison, sealed
from linearize.config import CompareConfig
from linearize.data import Task
from linearize.study import Store, stack
from linearize.study.store import Record, begin, total_seconds

log = logging.getLogger(__name__)


def run(config: CompareConfig, run_dir: Path, preset: str = "custom") -> Path:
    """Everything from weights to ``report.html``, whose path is returned."""
    with running.claimed(run_dir, config):
        if folder := stand_ins.read_by(config):
            stand_ins.make(folder, (*config.data.tasks, config.data.control))
        tasks, store = protocol.load_tasks(config, control=True), Store.of(run_dir)
        records = [measure(store, config, tasks, seed) for seed in config.seeds]
        results = describe(config, tasks, preset) | assemble(config, records)
        if config.random_init:
            log.info("the maps once more, from random weights")
            results["random"] = run_random(config, tasks, store.under("random_init"))
        results["claims"] = claims.judge(results, CLAIMS)
        shown = run_dir / f"seed_{config.seeds[0]}" / "explorer.npz"
        if shown.exists():
            sealed.write(run_dir / "explorer.npz", shown.read_bytes())
        return running.finish(run_dir, results)


def measure(store: Store, config: CompareConfig, tasks: Mapping[str, Task], seed: int) -> Record:
    """One seed's measurements, in the shape that ``results.json`` stacks over seeds."""
    wanted, place = protocol.plan(config), store.under(f"seed_{seed}")

    def measured() -> Record:
        study = protocol.study(config, tasks, seed, place)
        more = {} if config.exact is None else {"training": partial(exact.training, study, config)}
        return comparison.measure(study, wanted, more)

    return place.recorded(wanted.parts(config.exact is not None), measured)


def run_random(config: CompareConfig, tasks: Mapping[str, Task], store: Store) -> Record:
    """The maps once more from random weights, for the same pairs and seeds."""
    mapped = tuple(t for t in config.data.tasks if any(t in pair for pair in config.map.pairs))
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, pretrained=False),
        exact=None,
        data=dataclasses.replace(config.data, tasks=mapped),
        baselines=(),
    )
    records = [measure_maps(store, config, tasks, seed) for seed in config.seeds]
    return {"tasks": list(mapped)} | assemble(config, records)


def measure_maps(
    store: Store, config: CompareConfig, tasks: Mapping[str, Task], seed: int
) -> Record:
    """One seed's accuracies before and after fine-tuning, and its error maps."""
    wanted, place = protocol.plan(config), store.under(f"seed_{seed}")

    def measured() -> Record:
        study = protocol.study(config, tasks, seed, place)
        views = comparison.trained(study, wanted)

        def maps(pair: tuple[str, str]) -> Record:
            begin("map, " + ", ".join(pair))
            return comparison.error_maps(study, wanted, views, pair)

        begin("accuracies")
        return {
            "pretrained": comparison.pretrained(study, views["linear"])["pretrained"],
            "single": {name: study.singles(view) for name, view in views.items()},
            "maps": [maps(pair) for pair in wanted.pairs],
        }

    trained = sum(method.train is not None for method in wanted.regimes)
    return place.recorded(trained + 1 + len(wanted.pairs), measured)


def describe(config: CompareConfig, tasks: Mapping[str, Task], preset: str) -> Record:
    """What was run, on what, by which versions."""
    names = config.data.tasks
    return about("compare", preset, config) | {
        "model": protocol.describe_model(config.model, config.seeds[0]),
        "tasks": list(names),
        "classes": {name: list(tasks[name].classes) for name in names},
        "counts": {name: task.counts for name, task in tasks.items()},
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
