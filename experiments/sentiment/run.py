"""Sentiment of one domain from that of another and from both domains' text.

    python -m experiments.sentiment packaged

"Amazon's text is to Amazon's sentiment as Yelp's text is to Yelp's": τ_yelp,sent ≈ λ1 τ_amazon,sent
+ λ2 (τ_yelp,lm − τ_amazon,lm), where lm is language modelling of the domain's text without labels
(*Editing Models with Task Arithmetic*, §5). Both coefficients are chosen on validation examples of
the target, the only labels of it that are used. Sentiment and language modelling are two readings
of one model: a classifier by label words, or answers in words, and the likelihood of text; their
task vectors are of the same parameters, and add.
"""

from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np

from experiments import claims, running
from experiments.on_target import OF_TWO
from experiments.scaling import Direction, chosen
from experiments.sentiment.claims import CLAIMS
from experiments.sentiment.config import SentimentConfig
from experiments.sentiment.material import Material, Reading, load
from experiments.sentiment.results import Results
from linearize import comparison, objectives
from linearize.evaluate.view import VIEWS
from linearize.methods import METHODS
from linearize.objectives import CausalLM
from linearize.report import schema
from linearize.study import FineTuning, Method, Store, Study, maps
from linearize.study import fine_tunings as every_seed
from linearize.study.store import Record

MOVED = {"own": 1.0, "other": -1.0}
"""Text of the target's domain, less that of the auxiliary."""
DIRECTIONS: Mapping[str, Sequence[Direction]] = {
    "pretrained": [{}],
    "auxiliary": [{"auxiliary": 1.0}],
    "analogy": [{"auxiliary": 1.0} | MOVED],
    OF_TWO: [{"auxiliary": 1.0}, MOVED],
    "target": [{"target": 1.0}],
}
"""What each method adds, a coefficient each; the last is trained on the target's own labels."""
UNSCALED = ("pretrained", "target")
DISTANCES = (CausalLM().distance, objectives.DISTANCES["total_variation"])
"""Between next tokens: whether the likeliest is another, and how far their distributions are."""


def run(config: SentimentConfig, run_dir: Path, preset: str = "custom") -> Path:
    """Everything from weights to ``report.html``, whose path is returned."""
    with running.claimed(run_dir, config):
        material = load(config)
        each = len(config.analogies) + len(config.domains) + len(config.map.pairs)
        parts = len(config.regimes) * each
        measured = Store.of(run_dir).every_seed(
            config.seeds, parts, partial(measure, config, material)
        )
        model = {"name": material.name, **comparison.describe_model(material.sentiment.model)}
        found = running.about("sentiment", preset, config, model) | measured
        found |= {
            "domains": config.domains,
            "prompt": config.model.prompt,
            "words": config.model.words,
            "regimes": config.regimes,
            "labels": {name: METHODS[name].label for name in config.regimes},
            "methods": tuple(DIRECTIONS),
            "grids": {
                name: len(config.alphas(VIEWS[METHODS[name].view].passes))
                for name in config.regimes
            },
            "tested": {n: len(t.test) for n, t in material.sentiment.tasks.items()},
            "analogies": [
                {"auxiliary": one, "target": other, **measured["analogies"][f"{one} to {other}"]}
                for one, other in config.analogies
            ],
            "maps": mapped(config, material, measured["maps"]),
        }
        results = claims.judged(schema.read(Results, found), CLAIMS)
        return running.finish(run_dir, results)


def fine_tunings(config: SentimentConfig, run_dir: Path) -> list[FineTuning]:
    """Those of every seed, regime and domain: on sentiment, and on text."""
    material = cache(partial(load, config))

    def reading(name: str, seed: int, store: Store) -> Study:
        return study(config, getattr(material(), name), seed, store)

    return [
        each
        for name in ("sentiment", "language")
        for each in every_seed(
            Store.of(run_dir),
            config.seeds,
            [METHODS[regime] for regime in config.regimes],
            config.domains,
            partial(reading, name),
            within=name,
        )
    ]


def measure(config: SentimentConfig, material: Material, seed: int, store: Store) -> Record:
    """One seed: every analogy and every domain's perplexity, in each regime."""
    analogies: Record = {f"{one} to {other}": {"regimes": {}} for one, other in config.analogies}
    perplexity: Record = {}
    error: Record = {" and ".join(pair): {} for pair in config.map.pairs}
    for regime in config.regimes:
        method = METHODS[regime]
        # anew: the vectors of one method alone are held
        sentiment, language = (
            study(config, reading, seed, store.under(name))
            for name, reading in material._asdict().items()
            if isinstance(reading, Reading)
        )
        for pair in config.analogies:
            name = "{} to {}".format(*pair)
            told = partial(analogy, config, sentiment, language, method, *pair)
            analogies[name]["regimes"][regime] = store.kept(f"{regime}/{name}", told)
        perplexity[regime] = {
            domain: store.kept(
                f"{regime}/text of {domain}", partial(text, language, method, domain)
            )
            for domain in config.domains
        }
        for pair in config.map.pairs:
            name = " and ".join(pair)
            told = partial(errors, config, language, method, pair)
            error[name][regime] = store.kept(f"{regime}/error of {name}", told)
    return {"analogies": analogies, "perplexity": perplexity, "maps": error}


def study(config: SentimentConfig, reading: Reading, seed: int, store: Store) -> Study:
    """One reading of the model, on all domains."""
    recipes = {"nonlinear": config.nonlinear, "linear": config.linear}
    if reading.language and config.language is not None:
        recipes = dict.fromkeys(recipes, config.language)
    return Study(
        reading.model,
        reading.tasks,
        reading.objective,
        seed=seed,
        store=store,
        recipes=recipes,
        trainable=config.trainable,
        batch_size=config.batch_size,
    )


def analogy(
    config: SentimentConfig,
    sentiment: Study,
    language: Study,
    method: Method,
    auxiliary: str,
    target: str,
) -> Record:
    """Accuracy on a target by method."""
    felt, read = sentiment.vectors(method), language.vectors(method)
    vectors = {
        "auxiliary": felt[auxiliary],
        "own": read[target],
        "other": read[auxiliary],
        "target": felt[target],
    }
    view = sentiment.view(method, vectors)

    def points(name: str) -> np.ndarray:
        if name in UNSCALED:
            return np.ones(1)
        return config.pair(view.passes) if name == OF_TWO else config.alphas(view.passes)

    return {
        name: chosen(sentiment, view, directions, points(name), target)
        for name, directions in DIRECTIONS.items()
    }


def text(language: Study, method: Method, domain: str) -> Record:
    """Perplexity of a domain's test text, at θ0 and after its own language modelling."""
    view = language.view(method, {domain: language.vectors(method)[domain]})
    before, after = language.measure(view, {domain: np.array([0.0, 1.0])}, domain, "test")
    return {"before": float(before), "after": float(after)}


def errors(
    config: SentimentConfig, language: Study, method: Method, pair: tuple[str, str]
) -> Record:
    """Error maps of two domains' language modelling, by distance."""
    view = language.view(method)
    found = {}
    for distance in DISTANCES:
        measured = language.but(objectives=CausalLM(distance=distance))
        made = maps.error_map(measured, view, pair, config.map.alphas, config.map.n_eval)
        found[distance.name] = {"total": made.total, "per_task": made.per_task}
    return found


def mapped(config: SentimentConfig, material: Material, measured: Record) -> list[Record]:
    """The seeds' error maps by pair and distance, with what their figures say of them."""
    told = config.map
    return [
        {
            "tasks": pair,
            "alphas": told.alphas,
            "search_box": told.search_box,
            "distance": distance.name.replace("_", " "),
            "farthest": distance.farthest,
            "n_eval": min(examples),
            "examples": examples,
            **{
                what: {r: each[distance.name][what] for r, each in of_pair.items()}
                for what in ("total", "per_task")
            },
        }
        for pair in told.pairs
        for of_pair in [measured[" and ".join(pair)]]
        for tests in [[material.language.tasks[domain].test for domain in pair]]
        for examples in [maps.looked_at(tests, told.n_eval)]
        for distance in DISTANCES
    ]
