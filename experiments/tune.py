"""Learning rates, l2 and λ of a ``compare`` preset, chosen on validation data.

    python -m experiments.tune demo --run-dir runs/tune/demo

For each regime, each method with a λ among ``weights``, and each candidate: every task fine-tuned,
then single-task accuracy and the best addition over the α grid, all on validation examples; test
examples are never looked at. Writes ``results.json`` and ``table.md``, best candidate first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.compare import PRESETS as COMPARE
from experiments import protocol, running
from linearize import cli, comparison, io
from linearize.config import CompareConfig
from linearize.data import Task
from linearize.methods import METHODS, weighted
from linearize.report import schema, terminal
from linearize.report.schema import key
from linearize.study import Store

CANDIDATES: dict[str, tuple[float, ...]] = {
    "nonlinear": (2e-6, 5e-6, 1e-5, 2e-5),
    "linear": (1e-5, 2e-5, 5e-5, 1e-4),
    "exact": (1e-1, 3e-2, 1e-2, 3e-3),
}
"""Learning rates by method; of ``exact``, where it is configured, weights l2 of the penalty."""
FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Of a λ that the configuration has among ``weights``: it, and others about it."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A value and what it reaches on validation examples, mean over tasks and seeds."""

    regime: str
    value: float = key("lr, l2 or λ")
    pretrained: float
    single: float
    alpha: float
    addition: float
    normalized: float


@dataclass(frozen=True)
class Results:
    """What ``results.json`` holds."""

    rows: tuple[Candidate, ...]
    versions: Mapping[str, str]


def run(config: CompareConfig, run_dir: Path) -> tuple[Candidate, ...]:
    """Every candidate, sorted by regime and by accuracy after addition."""
    tasks = protocol.load_tasks(config, control=True)
    weights = {name: tuple(f * weight for f in FACTORS) for name, weight in config.weights.items()}
    found = [
        measure(protocol.with_value(config, regime, value), tasks, regime, value, run_dir)
        for regime, values in (CANDIDATES | weights).items()
        if regime in (config.recipes | weights)
        for value in values
    ]
    rows = tuple(sorted(found, key=lambda row: (row.regime, -row.addition)))
    record = schema.record(Results(rows, io.versions()))
    io.write_json(run_dir / "results.json", record)
    columns = list(record["rows"][0])
    shown = [[_cell(value) for value in row.values()] for row in record["rows"]]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(row) + " |" for row in shown]
    io.atomic_write(run_dir / "table.md", "\n".join(lines) + "\n")
    terminal.show(
        terminal.console(),
        "Validation accuracy, mean over tasks and seeds",
        terminal.Grid.plain(columns, shown, numbers=len(columns) - 1),
    )
    return rows


def measure(
    config: CompareConfig, tasks: Mapping[str, Task], regime: str, value: float, run_dir: Path
) -> Candidate:
    """Validation accuracies of one candidate, averaged over tasks and seeds."""
    found: list[dict[str, Any]] = []
    for seed in config.seeds:
        study = protocol.study(config, tasks, seed, Store(run_dir / f"{value:g}" / f"seed_{seed}"))
        method = weighted(METHODS[regime], config.weights)
        view, alphas = study.view(method), config.edit.alphas
        single = np.asarray(study.singles(view, "validation"))
        sweep = comparison.along(study, view, alphas, "validation")
        choice = comparison.choose(study, sweep, single, alphas)
        found.append(
            {
                "pretrained": sweep[np.argmin(np.abs(alphas))].mean(),
                "single": single.mean(),
                "alpha": choice.alpha,
                "addition": sweep[choice.index].mean(),
                "normalized": choice.normalized[choice.index].mean(),
            }
        )
    means = {key: float(np.mean([row[key] for row in found])) for key in found[0]}
    return Candidate(regime=regime, value=value, **means)


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def present(command: cli.Command[CompareConfig]) -> None:
    """Run in a directory of this configuration."""
    with running.claimed(command.run_dir, command.config):
        run(command.config, command.run_dir)


if __name__ == "__main__":
    cli.launch("tune", COMPARE, present)
