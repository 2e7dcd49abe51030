"""Kings and queens: a class that was never trained on, from three related classes.

Classes of two styles stand side by side under one frozen head. A vector each for a single class
in one style: woman = (a, first style), man = (a, second), queen = (b, first); king = (b, second)
is the target: τ_king ≈ τ_queen + (τ_man − τ_woman) (*Editing Models with Task Arithmetic*, §5).
The control is every class but these four.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from experiments import populations, protocol
from experiments.protocol import Evaluator
from experiments.records import Record
from linearize import edit, io
from linearize.config import AnalogiesConfig
from linearize.data import Task

METHODS: Mapping[str, Mapping[str, float]] = {
    "pretrained": {},
    "queen": {"queen": 1},
    "man": {"man": 1},
    "analogy": {"queen": 1, "man": 1, "woman": -1},
    "target": {"king": 1},
}
"""Weights of the four vectors; the last is fine-tuned on the target itself."""


def king(
    config: AnalogiesConfig,
    styles: tuple[Task, Task],
    pair: tuple[int, int],
    seed: int,
    folder: Path,
) -> Record:
    """One quadruple: accuracy on the target class and on all others, by regime and method."""
    whole = populations.joined(styles)
    a, b = pair
    offset = len(styles[0].classes)
    classes = {"woman": a, "man": offset + a, "queen": b, "king": offset + b}
    groups = {role: populations.of(whole, [c]) for role, c in classes.items()}
    rest = [c for c in range(len(whole.classes)) if c not in classes.values()]
    groups["control"] = populations.of(whole, rest)
    nonlinear, linear = (
        dataclasses.replace(recipe, steps=config.single_steps, epochs=None)
        for recipe in (config.setting.nonlinear, config.setting.linear)
    )
    compare = dataclasses.replace(config.setting, nonlinear=nonlinear, linear=linear)
    setting = populations.prepare(compare, seed, whole, groups, parts=styles)
    record: Record = {}
    for regime in config.regimes:
        vectors = {
            role: protocol.fine_tune(setting, regime, role, folder / regime / role)
            for role in classes
        }
        evaluator = Evaluator(setting, regime, vectors)
        record[regime] = {
            name: scaled(evaluator, weights, config.retained) for name, weights in METHODS.items()
        }
    return io.to_json(record)


def scaled(evaluator: Evaluator, weights: Mapping[str, float], retained: float) -> Record:
    """Accuracy on the target and on the control, at the best α that retains the control.

    Chosen on validation examples, as in negation: the target is to be predicted, not forgotten.
    """
    grid = protocol.alphas(evaluator.setting.config)
    columns = {role: weight * grid for role, weight in weights.items()}
    if columns:
        hit, kept = (
            evaluator(columns, "king", "validation"),
            evaluator(columns, "control", "validation"),
        )
        reference = evaluator.at({}, "control", "validation")
        choice = edit.search_negation(
            1 - hit, kept, grid, retained=retained, control_pretrained=reference
        )
        alpha = float(choice.alpha)
    else:
        alpha = 0.0
    at = {role: alpha * weight for role, weight in weights.items()}
    return {
        "alpha": alpha,
        "target": evaluator.at(at, "king", "test"),
        "control": evaluator.at(at, "control", "test"),
    }
