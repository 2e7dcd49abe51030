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
from functools import cache, partial
from pathlib import Path

from experiments import claims, protocol, running, stand_ins
from experiments.compare import exact
from experiments.compare.claims import CLAIMS, redrawn
from linearize import comparison
from linearize.config import CompareConfig
from linearize.data import Task
from linearize.study import FineTuning, Store, Study
from linearize.study.store import Record
from linearize.train.lock import exclusive

log = logging.getLogger(__name__)


def run(config: CompareConfig, run_dir: Path, preset: str = "custom") -> Path:
    """Everything from weights to ``report.html``, whose path is returned."""
    with running.claimed(run_dir, config):
        tasks, store = load_tasks(config), Store.of(run_dir)
        plan = protocol.plan(config)
        parts = plan.parts(config.exact is not None)
        measured = store.every_seed(config.seeds, parts, partial(measure, config, tasks))
        model = protocol.describe_model(config.model, config.seeds[0])
        told = running.about("compare", preset, config, model)
        if config.random_init:
            log.info("the maps once more, from random weights")
            told["random"] = run_random(config, tasks, store.under("random_init"))
        described = without_heads(config, tasks, store)
        results = comparison.gathered(described, plan, config.seeds, measured, told)
        comparison.carry(store.under(f"seed_{config.seeds[0]}"), store)
        return running.finish(run_dir, claims.judged(results, CLAIMS, redrawn))


def load_tasks(config: CompareConfig) -> dict[str, Task]:
    """All tasks; stand-ins are made first, by one process at a time."""
    if folder := stand_ins.read_by(config):
        with exclusive(folder, wait=True):
            stand_ins.make(folder, (*config.data.tasks, config.data.control))
    return protocol.load_tasks(config, control=True)


def fine_tunings(config: CompareConfig, run_dir: Path) -> list[FineTuning]:
    """Those of every seed and method, and those from random weights."""
    store, tasks = Store.of(run_dir), cache(partial(load_tasks, config))
    places = [(config, store)]
    if config.random_init:
        places.append((at_random(config), store.under("random_init")))
    return [
        each
        for told, place in places
        for each in protocol.fine_tunings(
            told, place, protocol.plan(told).methods, told.data.tasks, tasks
        )
    ]


def measure(config: CompareConfig, tasks: Mapping[str, Task], seed: int, store: Store) -> Record:
    """One seed's measurements, in the shape that ``results.json`` stacks over seeds."""
    study = protocol.study(config, tasks, seed, store)
    more = {} if config.exact is None else {"training": partial(exact.training, study, config)}
    return comparison.measure(study, protocol.plan(config), more)


def without_heads(config: CompareConfig, tasks: Mapping[str, Task], store: Store) -> Study:
    """A study that can say what it is of; heads, which take time, are for measuring."""
    return protocol.study(config, tasks, config.seeds[0], store, heads=dict.fromkeys(tasks))


def run_random(config: CompareConfig, tasks: Mapping[str, Task], store: Store) -> Record:
    """The maps once more from random weights, for the same pairs and seeds."""
    config = at_random(config)
    plan = protocol.plan(config)
    named = (*config.data.tasks, config.data.control)
    tasks = {name: task for name, task in tasks.items() if name in named}
    trained = sum(method.train is not None for method in plan.regimes)
    parts = trained + 1 + len(plan.pairs)
    measured = store.every_seed(config.seeds, parts, partial(measure_maps, config, tasks))
    maps = comparison.maps_of(without_heads(config, tasks, store), plan, measured)
    return {"tasks": list(config.data.tasks)} | measured | {"maps": maps}


def at_random(config: CompareConfig) -> CompareConfig:
    """The same of random weights: the three regimes alone, for the tasks of the maps."""
    mapped = tuple(t for t in config.data.tasks if any(t in pair for pair in config.map.pairs))
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, pretrained=False),
        exact=None,
        data=dataclasses.replace(config.data, tasks=mapped),
        epochs={task: count for task, count in config.epochs.items() if task in mapped},
        methods=(),
        training={},
        weights={},
        merges=(),
        baselines=(),
    )


def measure_maps(
    config: CompareConfig, tasks: Mapping[str, Task], seed: int, store: Store
) -> Record:
    """One seed's accuracies before and after fine-tuning, and its error maps."""
    study, plan = protocol.study(config, tasks, seed, store), protocol.plan(config)
    views = comparison.trained(study, plan)

    def accuracies() -> Record:
        before = comparison.pretrained(study, comparison.cheapest(views))["pretrained"]
        return {
            "pretrained": before,
            "single": {name: study.singles(view) for name, view in views.items()},
        }

    return store.kept("accuracies", accuracies) | {"maps": comparison.every_map(study, plan, views)}
