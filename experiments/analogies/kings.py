"""Kings and queens: a class that was never trained on, from three related classes.

Classes of two styles stand side by side under one frozen head. A vector each for a single class
in one style: woman = (a, first style), man = (a, second), queen = (b, first); king = (b, second)
is the target: τ_king ≈ τ_queen + (τ_man − τ_woman) (*Editing Models with Task Arithmetic*, §5).
The control is every class but these four.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from experiments import protocol
from experiments.analogies import populations
from experiments.analogies.config import AnalogiesConfig
from linearize import edit
from linearize.data import Task
from linearize.evaluate.view import View
from linearize.methods import METHODS
from linearize.study import Store, Study
from linearize.study.store import Record

WEIGHTS: Mapping[str, Mapping[str, float]] = {
    "pretrained": {},
    "queen": {"queen": 1},
    "man": {"man": 1},
    "analogy": {"queen": 1, "man": 1, "woman": -1},
    "target": {"king": 1},
}
"""Weights of the four vectors; the last is fine-tuned on the target itself."""


def king(
    config: AnalogiesConfig,
    styles: Sequence[Task],
    pair: tuple[int, int],
    seed: int,
    store: Store,
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
        replace(recipe, steps=config.single_steps, epochs=None)
        for recipe in (config.setting.nonlinear, config.setting.linear)
    )
    setting = replace(config.setting, nonlinear=nonlinear, linear=linear)
    heads = dict.fromkeys(groups, populations.head(setting, seed, whole, parts=styles))
    study = protocol.study(setting, groups, seed, store, heads=heads)
    study, grid = study.but(control="control"), setting.edit.alphas
    record: Record = {}
    for regime in config.regimes:
        view = study.view(METHODS[regime])
        record[regime] = {
            name: scaled(study, view, weights, grid, config.retained)
            for name, weights in WEIGHTS.items()
        }
    return record


def scaled(
    study: Study, view: View, weights: Mapping[str, float], grid: np.ndarray, retained: float
) -> Record:
    """Accuracy on the target and on the control, at the best α that retains the control.

    Chosen on validation examples, as in negation: the target is to be predicted, not forgotten.
    """
    alpha = 0.0
    if weights:
        points = {role: weight * grid for role, weight in weights.items()}
        hit, kept = (study.measure(view, points, t, "validation") for t in ("king", "control"))
        before = study.pretrained(view, "control", "validation")
        choice = edit.search_negation(
            1 - hit, kept, grid, retained=retained, control_pretrained=before
        )
        alpha = float(choice.alpha)
    at = {role: alpha * weight for role, weight in weights.items()}
    return {
        "alpha": alpha,
        "target": study.at(view, at, "king", "test"),
        "control": study.at(view, at, "control", "test"),
    }
