"""How good is the Kronecker factorisation? TAK's estimate beside exact ‖Jτ‖², along training.

    python -m experiments.kronecker packaged

For each seed, method and kept step, every task's vector on every task's test examples: mean
‖J_l τ_l‖² of each layer's displacement and ‖Jτ‖² of the whole, of features of length 1, exactly
(:func:`linearize.disentangle.interference`), beside what the task's curvature card says of them.
The vectors of TAK itself were trained to make the cards' numbers small.
"""

import dataclasses
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path

import numpy as np

from experiments import claims, protocol, running, vectors
from experiments.claims import Claim
from experiments.kronecker.config import KroneckerConfig
from experiments.kronecker.results import Results
from linearize.config.compare import CompareConfig
from linearize.curvature import Card, Normalized, merge
from linearize.data import Task
from linearize.disentangle import interference
from linearize.evaluate import rank_correlation
from linearize.methods import METHODS, weighted
from linearize.methods.tak import card_of
from linearize.report import schema
from linearize.study import FineTuning, Method, Store, Study, stack
from linearize.study.store import Record

WHOLE = "whole"


def run(config: KroneckerConfig, run_dir: Path, preset: str = "custom") -> Path:
    """Everything from weights to ``report.html``, whose path is returned."""
    with running.claimed(run_dir, config):
        tasks, store = load_tasks(config), Store.of(run_dir)
        parts = len(config.methods) * len(config.along)
        measured = store.every_seed(config.seeds, parts, partial(measure, config, tasks))
        model = protocol.describe_model(config.setting.model, config.seeds[0])
        layers, factored = measured.pop("layers")[0], measured.pop("factored")[0]
        seconds = measured.pop("seconds")
        found = running.about("kronecker", preset, config, model) | {
            "tasks": config.setting.data.tasks,
            "along": config.along,
            "layers": layers,
            "factored": factored,
            "seconds": seconds,
            "methods": {name: each | relate(each) for name, each in measured.items()},
        }
        return running.finish(run_dir, claims.judged(schema.read(Results, found), CLAIMS))


def keeping(config: KroneckerConfig) -> CompareConfig:
    """The setting, whose vectors are kept after each step that is measured."""
    keep = partial(dataclasses.replace, save_vectors_at=config.steps)
    training = {name: keep(recipe) for name, recipe in config.setting.training.items()}
    return dataclasses.replace(
        config.setting, linear=keep(config.setting.linear), training=training
    )


def methods(config: KroneckerConfig) -> list[Method]:
    """With the setting's weights."""
    return [weighted(METHODS[name], config.setting.weights) for name in config.methods]


def load_tasks(config: KroneckerConfig) -> dict[str, Task]:
    """The setting's, with the control task where a method trains with it."""
    return protocol.load_tasks(config.setting, methods=methods(config))


def fine_tunings(config: KroneckerConfig, run_dir: Path) -> list[FineTuning]:
    """Those of every seed, method and task."""
    setting, tasks = keeping(config), cache(partial(load_tasks, config))
    names = setting.data.tasks
    return protocol.fine_tunings(setting, Store.of(run_dir), methods(config), names, tasks)


def measure(config: KroneckerConfig, tasks: Mapping[str, Task], seed: int, store: Store) -> Record:
    """One seed: every method's numbers, stacked over steps."""
    study = protocol.study(keeping(config), tasks, seed, store)
    cards = {
        probes: {
            task: card_of(study, task, examples=config.examples, probes=probes)
            for task in study.names
        }
        for probes in config.probes
    }
    first = next(iter(cards[config.probes[0]].values()))
    record: Record = {
        "layers": list(first.parts),
        "factored": [label in first.factored for label in first.parts],
    }
    for name, method in zip(config.methods, methods(config), strict=True):
        study.vectors(method)
        record[name] = stack(
            [
                store.kept(f"{name}_{step}", partial(at_step, config, study, cards, method, kept))
                for step, kept in zip(config.along, (*config.steps, None), strict=True)
            ]
        )
    return record


def at_step(
    config: KroneckerConfig,
    study: Study,
    cards: Mapping[int, Mapping[str, Card]],
    method: Method,
    step: int | None,
) -> Record:
    """One method after some steps, or after all, where None.

    Rows are tasks whose examples are looked at, columns those whose vectors.
    """
    taus = list(vectors.after(study, method, step).values())
    own = cards[config.probes[0]]
    parts = next(iter(own.values())).parts
    parts = {**parts, WHOLE: {name: () for part in parts.values() for name in part}}
    features, params = Normalized(study.model.f), study.model.params
    exact = np.stack(
        [
            interference(
                features,
                params,
                taus,
                study.split(task, "test").take(slice(config.exact)).inputs,
                parts,
            ).mean(-1, dtype=np.float64)
            for task in study.names
        ]
    )
    estimates = {
        str(probes): np.stack([[card.by_part(tau) for tau in taus] for card in given.values()])
        for probes, given in cards.items()
    }
    others = [
        merge([card for task, card in own.items() if task != name]).by_part(tau).sum()
        for name, tau in zip(study.names, taus, strict=True)
    ]
    return {
        "exact": exact[..., :-1],
        WHOLE: exact[..., -1],
        "estimates": estimates,
        "merged": others,
    }


def relate(method: Record) -> Record:
    """The rank correlation of whole pairs at the last step, of means over seeds."""
    estimate = np.asarray(next(iter(method["estimates"].values())))[:, -1].sum(-1).mean(0)
    mean, low, high = rank_correlation(estimate, np.asarray(method[WHOLE])[:, -1].mean(0))
    return {"over_tasks": {"mean": mean, "low": low, "high": high}}


def _last(results: Results, name: str, what: str, *args: str, **how: bool | str) -> np.ndarray:
    found = getattr(results.methods[name], what)(*args, **how)
    return np.asarray(found[:, -1])


CLAIMS: tuple[Claim[Results], ...] = (
    Claim(
        "The estimate orders the pairs of tasks, linear vectors: rank correlation above 0.5",
        lambda r: _last(r, "linear", "correlation", "pairs", ranks=True) - 0.5,
        "Spearman's ρ over ordered pairs at the last step minus 0.5",
    ),
    Claim(
        "It orders pairs and layers together: rank correlation above 0.5",
        lambda r: _last(r, "linear", "correlation", "layers", ranks=True) - 0.5,
        "Spearman's ρ over pairs and layers at the last step minus 0.5",
    ),
    Claim(
        "Within a factor of two of the exact number, linear vectors",
        lambda r: 1 - np.abs(_last(r, "linear", "log_ratio")),
        "1 minus |log₂ of estimate ÷ exact|, mean of pairs",
    ),
    Claim(
        "Vectors trained against the estimate are worse than it says (Goodhart)",
        lambda r: _last(r, "linear", "log_ratio") - _last(r, "tak", "log_ratio"),
        "log₂ of estimate ÷ exact, linear minus TAK",
    ),
    Claim(
        "What layers do to each other's changes is less than a factor of two",
        lambda r: 1 - np.abs(_last(r, "linear", "log_layers")),
        "1 minus |log₂ of Σ ‖J_l τ_l‖² ÷ ‖Jτ‖²|, mean of pairs",
    ),
    Claim(
        "One card for all other tasks, (Σ B) ⊗ (mean A), is within a tenth of their sum",
        lambda r: np.log2(1.1) - np.abs(_last(r, "linear", "log_merged")),
        "log₂ 1.1 minus |log₂ of merged ÷ sum|, mean of vectors",
    ),
)
