"""Toxicity by negation: a language model that forgets how to write toxic text, and no more.

    python -m experiments.toxicity packaged

τ is fine-tuned on text of a kind (toxic comments, spam), and θ0 − ατ writes (*Editing Models with
Task Arithmetic*, §3.2). α is the largest on the grid whose perplexity on the control's validation
text stays within the tolerance; perplexity is reported on its test text, and what is written is
scored by another scorer than the one that chose the text. Beside it: θ0, the model fine-tuned on
the text, gradient ascent, a random vector of the same size, fine-tuning on other text.
"""

from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from experiments import claims, running
from experiments.toxicity import material, speak
from experiments.toxicity.claims import CLAIMS
from experiments.toxicity.config import ToxicityConfig
from experiments.toxicity.material import CONTROL, OTHER, TARGET, Material
from experiments.toxicity.results import (
    ASCENT,
    CLEAN,
    MOST,
    PRETRAINED,
    RANDOM,
    TRAINED,
    Results,
)
from linearize import comparison, edit, evaluate
from linearize.evaluate.view import View
from linearize.methods import GRADIENT_ASCENT, METHODS, NONLINEAR
from linearize.objectives import CausalLM, Control
from linearize.report import schema
from linearize.study import FineTuning, Method, Store, Study
from linearize.study import fine_tunings as every_seed
from linearize.study.store import Record
from linearize.task_vector import TaskVector

BASELINES = (PRETRAINED, TRAINED, ASCENT, CLEAN, RANDOM)
LABELS = {
    TRAINED: "Fine-tuned on it",
    CLEAN: "Fine-tuned on other text",
    RANDOM: "Random vector, negated",
}


def run(config: ToxicityConfig, run_dir: Path, preset: str = "custom") -> Path:
    """Everything from weights to ``report.html``, whose path is returned."""
    with running.claimed(run_dir, config):
        given = material.load(config)
        every = partial(measure, config, given)
        measured = Store.of(run_dir).every_seed(config.seeds, parts(config), every)
        model = {"name": config.model.name} | comparison.describe_model(given.model)
        found = running.about("toxicity", preset, config, model) | dict(given.words) | measured
        methods = [METHODS[name] for name in config.regimes]
        found |= {
            "scorers": {name: row.what for name, row in given.scorers.items()},
            "threshold": config.threshold,
            "generations": config.decoding.count,
            "swept": config.swept,
            "tolerance": config.tolerance,
            "regimes": config.regimes,
            "alphas": config.alphas,
            "points": config.points,
            **intervals(config, measured),
            "labels": LABELS | {m.name: f"{m.label}, negated" for m in methods},
        }
        results = claims.judged(schema.read(Results, found), CLAIMS)
        return running.finish(run_dir, results)


def intervals(config: ToxicityConfig, measured: Record) -> Record:
    """Wilson's, of the first scorer's shares, by row and by regime's curve."""
    first = config.scorers[0]
    edits, curves = measured["edits"].items(), measured["curves"].items()
    count, swept = config.decoding.count, config.swept
    return {
        "intervals": {row: pooled(each["scores"][first]["share"], count) for row, each in edits},
        "along": {regime: pooled(each["share"], swept) for regime, each in curves},
    }


def pooled(shares: ArrayLike, texts: int) -> np.ndarray:
    """The share of all seeds' texts together, and the ends of its 95 % interval.

    Args:
        shares: (S, ...), each of so many texts.
        texts: how many.

    Returns:
        (3, ...).

    >>> pooled([0.7, 0.9], 5).round(3).tolist()
    [0.8, 0.49, 0.943]
    """
    found = np.asarray(shares, np.float64)
    hits = np.rint(found * texts).sum(0)
    return np.stack(evaluate.binomial_interval(hits, texts * len(found)))


def fine_tunings(config: ToxicityConfig, run_dir: Path) -> list[FineTuning]:
    """Those of every seed: the regimes' and gradient ascent on the text, and one on other text."""
    given = cache(partial(material.load, config))
    regimes = [METHODS[name] for name in config.regimes]
    return [
        each
        for task, methods in {
            TARGET: [NONLINEAR, GRADIENT_ASCENT, *regimes],
            OTHER: [NONLINEAR],
        }.items()
        for each in every_seed(
            Store.of(run_dir),
            config.seeds,
            methods,
            [task],
            lambda seed, store: studied(config, given(), seed, store),
        )
    ]


def studied(config: ToxicityConfig, given: Material, seed: int, store: Store) -> Study:
    """One seed's study."""
    return Study(
        given.read,
        given.tasks,
        CausalLM(),
        control=CONTROL,
        seed=seed,
        store=store,
        recipes=config.recipes,
        trainable=config.trainable,
        batch_size=config.batch_size,
    )


def parts(config: ToxicityConfig) -> int:
    """How many parts a seed has: a row of the table each, and a curve of each regime."""
    return len(BASELINES) + 2 * len(config.regimes)


def measure(config: ToxicityConfig, given: Material, seed: int, store: Store) -> Record:
    """One seed: every edited model, and the curves of the regimes."""
    meter = Meter(config, given, studied(config, given, seed, store))
    record: Record = {"edits": {}, "curves": {}, "held_out": given.held_out}
    for row in BASELINES:
        record["edits"][row] = store.kept(row, partial(meter.baseline, row))
    for name in config.regimes:
        along = store.kept(f"{name} along alpha", partial(meter.along, METHODS[name]))
        record["curves"][name] = {each: along[each] for each in ("perplexity", "share")}
        record["edits"][name] = store.kept(
            name, partial(meter.edited, METHODS[name], -along["alpha"])
        )
    before = record["edits"][PRETRAINED]["perplexity"]
    for found in record["edits"].values():
        found["rise"] = found["perplexity"] - before
    return record


class Meter:
    """What is measured of a seed's models."""

    def __init__(self, config: ToxicityConfig, given: Material, study: Study) -> None:
        """Of a study that is not trained yet."""
        self.config, self.given, self.study = config, given, study
        self._vectors: dict[str, TaskVector] = {}

    def vector(self, method: Method, task: str = TARGET) -> TaskVector:
        """A method's vector of the target alone, or of the other text; trained once."""
        trainer = method.trainer
        place = f"{trainer.name}/{task}"
        if place not in self._vectors:
            assert trainer.train is not None
            self._vectors[place] = trainer.train(self.study, task)
        return self._vectors[place]

    def view(self, method: Method, tau: TaskVector) -> View:
        """Of one vector."""
        return self.study.view(method, {TARGET: tau})

    def baseline(self, row: str) -> Record:
        """A row of the table that is not a negated vector of a regime."""
        if row == RANDOM:
            tau = edit.random_like(self.vector(NONLINEAR), self.study.seed)
            return self.at(NONLINEAR, tau, -self.chosen(self.perplexities(NONLINEAR, tau)))
        method = GRADIENT_ASCENT if row == ASCENT else NONLINEAR
        tau = self.vector(method, OTHER if row == CLEAN else TARGET)
        return self.at(method, tau, 0.0 if row == PRETRAINED else 1.0)

    def along(self, method: Method) -> Record:
        """A regime along α: perplexity on the grid, what is written at some points, and the α."""
        tau = self.vector(method)
        perplexity = self.perplexities(method, tau)
        shares = []
        for alpha in self.config.points:
            texts = self.texts(method, tau, -alpha, self.config.swept)
            shares.append(self.scored(texts)[self.config.scorers[0]]["share"])
        return {
            "alpha": self.chosen(perplexity),
            "perplexity": np.minimum(perplexity, MOST),
            "share": shares,
        }

    def edited(self, method: Method, alpha: float) -> Record:
        """A method's vector at a coefficient."""
        return self.at(method, self.vector(method), alpha)

    def at(self, method: Method, tau: TaskVector, alpha: float) -> Record:
        """The model at θ0 + α τ, in the method's view: what it writes, and its perplexity."""
        view, config = self.view(method, tau), self.config
        texts = self.texts(method, tau, alpha, config.decoding.count)
        return {
            "alpha": alpha,
            "perplexity": min(self.study.at(view, {TARGET: alpha}, CONTROL, "test"), MOST),
            "scores": self.scored(texts),
            "texts": texts[: config.show_text],
        }

    def perplexities(self, method: Method, tau: TaskVector) -> np.ndarray:
        """On the control's validation text at each −α of the grid, (A,)."""
        view = self.view(method, tau)
        return self.study.measure(view, {TARGET: -self.config.alphas}, CONTROL, "validation")

    def chosen(self, perplexities: np.ndarray) -> float:
        """The largest α whose perplexity stays within the tolerance; α = 0 always does."""
        metric = CausalLM().primary
        allowed = Control(units=self.config.tolerance).allows(metric, perplexities, perplexities[0])
        return float(self.config.alphas[allowed].max())

    def texts(self, method: Method, tau: TaskVector, alpha: float, count: int) -> list[str]:
        """What the model writes."""
        return speak.texts(
            self.given, method.view, tau, alpha, self.config.decoding, count, self.study.seed
        )

    def scored(self, texts: list[str]) -> dict[str, Record]:
        """Share above the threshold and mean, by scorer."""
        found = {}
        for name, score in self.given.scores.items():
            each = score(texts)
            found[name] = {
                "share": float(np.mean(each > self.config.threshold)),
                "mean": float(np.mean(each)),
            }
        return found
