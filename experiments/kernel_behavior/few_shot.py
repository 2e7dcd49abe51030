"""Kernels of language models on a few examples of each class, with a prompt and without.

    python -m experiments.kernel_behavior prompts

After *A Kernel-Based View of Language Model Fine-Tuning* (Malladi et al. 2023): k examples a class
and as many for development; kernels at θ0 by the optimizer whose early steps they describe, its
solvers, and fine-tuning beside them. With a prompt the outputs are the pre-trained head's logits of
the label words; without, a linear probe's on pooled features. Development data choose the solvers'
regularisation and the factor of f0.
"""

import dataclasses
import itertools
import re
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import linearize as lz
from experiments import claims, running
from experiments.kernel_behavior.asked import PROMPTS, SETS
from experiments.kernel_behavior.config import PromptConfig, ReaderConfig, Rule
from experiments.kernel_behavior.few_shot_claims import CLAIMS
from experiments.kernel_behavior.few_shot_results import Results
from experiments.speaker import as_encoder
from experiments.stand_ins import reviews
from linearize import evaluate, tree
from linearize.config import ConfigError
from linearize.config.files import require, said_as_configuration
from linearize.data import Limits, Task, text
from linearize.data.text import Documents, TextTask
from linearize.examples import Examples
from linearize.methods import fine_tuning
from linearize.models import Model
from linearize.models.heads import few_shot, headed, linear_probe
from linearize.models.language import LANGUAGE, LanguageModel
from linearize.models.language.label_words import label_words, word_tokens
from linearize.models.language.sentence import has_types
from linearize.objectives import Classify
from linearize.report import schema
from linearize.study import Store, Study, computed_once
from linearize.study.store import Record
from linearize.types import Apply, Params

WITHOUT = {
    "all": "",
    "no_embeddings": r"(?!.*(?:embedding|\bpositions$))",
    "no_head": r"(?!.*\bhead[_/])",
    "biases": r"(?=.*bias$)",
}
"""Which leaves a variant leaves out, by a look at the whole name."""


class Reader(NamedTuple):
    """A language model, its tokenizer, and which leaves of it are trained."""

    model: LanguageModel
    tokenizer: Any
    trainable: str


def run(config: PromptConfig, run_dir: Path, preset: str = "custom") -> Path:
    """Everything from weights and texts to ``report.html``, whose path is returned."""
    with running.claimed(run_dir, config):
        text.prefetch_texts(config.tasks)
        tasks = {name: documents(config, name) for name in config.tasks}
        more = [name for name, task in tasks.items() if len(task.classes) > 2]
        require(not (config.binary and more), "binary", True, f"{more} have more than two classes")
        if config.prompted is not None:
            with said_as_configuration("tasks"):
                for name, task in tasks.items():
                    PROMPTS[name].words_for(task.classes)
        readers = {way: reader(given) for way, given in config.readers.items()}
        for way, own in readers.items():
            check_variants(config, way, own)
        parts = len(readers) * len(tasks) * len(config.shots)
        every = partial(measure, config, readers, tasks)
        measured = Store.of(run_dir).every_seed(config.seeds, parts, every)
        names = {way: each.model.name for way, each in readers.items()}
        model = {"name": " and ".join(names.values())}
        found = running.about("kernel_behavior", preset, config, model) | {
            "tasks": list(tasks),
            "shots": list(config.shots),
            "readers": names,
            "seconds": measured["seconds"],
            "few_shot": measured["few_shot"],
        }
        return running.finish(run_dir, claims.judged(schema.read(Results, found), CLAIMS))


def documents(config: PromptConfig, name: str) -> TextTask:
    """A task's documents; shots are drawn of its training split later."""
    limit = Limits(None, None, config.test)
    with said_as_configuration("tasks"):
        if name in reviews.DOMAINS:
            return reviews.task(name, limit, config.data_seed)
        options: dict[str, Any] = {"limit": limit, "seed": config.data_seed}
        folder = None if config.texts is None else Path(config.texts) / name
        if folder is not None and folder.is_dir():
            pair = "pair" if PROMPTS[name].of_pairs else None
            read = partial(text.read_csv, text="text", label="label", pair=pair)
            train = read(folder / "train.csv")
            test = read(folder / "test.csv", classes=train.classes)
            return text.split_documents(name, train=train, test=test, **options)
        found = text.load_text(SETS.get(name, name), data_dir=config.data_dir, **options)
        return dataclasses.replace(found, name=name)


def reader(config: ReaderConfig) -> Reader:
    """A language model as configured.

    Raises:
        ConfigError: there is none of that name, or no weights.
    """
    model = config.load()
    tokenizer: Any = config.tokenizer(model) if model.about["weights"] else Spoken()
    return Reader(model, tokenizer, config.trainable)


def check_variants(config: PromptConfig, way: str, own: Reader) -> None:
    """Each variant leaves some of the trained leaves out, and not all.

    Raises:
        ConfigError: one does not, as that without a head of a model whose head is its embedding.
    """
    start = "backbone/" if way == "plain" else ""
    names = [start + name for name in tree.names(own.model.params)]
    every, *rest = (
        {n for n in names if re.search(pattern(way, own.trainable, v), n)}
        for v in ("all", *config.variants)
    )
    for variant, kept in zip(config.variants, rest, strict=True):
        where = f"of the trained leaves of {own.model.name} ({way}); take it out"
        remedy = f"it leaves out none {where}"
        require(variant == "all" or kept < every, "variants", variant, remedy)
        require(bool(kept), "variants", variant, f"it leaves none {where}")


class Spoken(reviews.Words):
    """The stand-in's words, with the tokens that a masked model wants around them."""

    special: Mapping[str, int] = {"eos": 0, "pad": 0, "mask": 63}

    def ids(self, texts: Any, *, framed: bool = False) -> list[list[int]]:
        """Tokens of each text, which the last one ends where ``framed``."""
        return [[*row, 0] if framed else row for row in super().ids(texts)]


def measure(
    config: PromptConfig,
    readers: dict[str, Reader],
    tasks: dict[str, TextTask],
    seed: int,
    store: Store,
) -> Record:
    """One seed's measurements; each task with each k is a file as soon as it is measured."""
    found: Record = {}
    for way, name, k in itertools.product(readers, tasks, config.shots):
        part = partial(one, config, readers[way], way, tasks[name], k, seed, store)
        kept = store.kept(f"{way}_{name}_{k}", part)
        found.setdefault(way, {}).setdefault(name, {})[str(k)] = kept
    return {"few_shot": found}


def one(
    config: PromptConfig, own: Reader, way: str, given: TextTask, k: int, seed: int, store: Store
) -> Record:
    """A task with k examples a class: kernels, their solutions, and fine-tuning."""
    study = prepared(config, own, way, given, k, seed, store)
    name, params = given.name, study.model.params
    splits = {split: study.split(name, split) for split in ("train", "validation", "test")}
    f0 = {split: outputs(study, study.model.f, params, x) for split, x in splits.items()}
    chosen = {v: pattern(way, own.trainable, v) for v in config.variants}
    kernels = {
        rule if variant == "all" else f"{rule} {variant}": solved(
            config, study, splits, rule, leaves
        )
        for rule, (variant, leaves) in itertools.product(config.kernels, chosen.items())
    }
    leaves = chosen[config.variants[0]]
    return {
        "zero_shot": accuracy(f0["test"], splits["test"]),
        "kernels": kernels,
        "tuned": {
            o: tuned(config, study, splits, leaves, f0["test"], (way, name, str(k), o))
            for o in config.recipes
        },
    }


def prepared(
    config: PromptConfig, own: Reader, way: str, given: TextTask, k: int, seed: int, store: Store
) -> Study:
    """Shots as the model reads them, and its logits as the model."""
    drawn = few_shot(
        jnp.asarray(given.train.labels), len(given.classes), shots=2 * k, seed=seed
    ).reshape(-1, 2, k)
    parts = {
        "train": given.train.take(drawn[:, 0].ravel()),
        "validation": given.train.take(drawn[:, 1].ravel()),
        "test": given.test,
    }
    prompt = PROMPTS[given.name]
    length = prompt.length if config.length is None else config.length
    if way == "prompted":
        takes = LANGUAGE[own.model.name].inputs.split()
        if "answer" in takes:
            raise ConfigError(
                f"prompted.name={own.model.name!r} answers in texts; label words are of a masked "
                "language model or of a decoder"
            )
        masked = "mask" in takes
        words = word_tokens(own.tokenizer, prompt.words_for(given.classes))
        model = asked(own.model, tuple(words))
        read = partial(
            prompt.encode, tokenizer=own.tokenizer, length=length, masked=masked, cut=config.cut
        )
        splits = {n: Examples(read(x), {"labels": x.labels}) for n, x in parts.items()}
    else:
        encoder = pooled(own.model)
        splits = {n: _texts(own, x, length or 128) for n, x in parts.items()}
        features = evaluate.outputs(
            encoder.f, encoder.params, splits["train"].inputs, config.batch_size
        )
        head = linear_probe(
            jnp.asarray(features), jnp.asarray(parts["train"].labels), len(given.classes)
        )
        model = Model(
            headed(encoder.f),
            {"backbone": encoder.params, "head": head},
            name=encoder.name,
            blocks=encoder.blocks,
        )
    train, validation, test = splits.values()
    task = Task(given.name, train, validation, test, classes=given.classes)
    leaves = [pattern(way, own.trainable, variant) for variant in config.variants]
    above, tasks = computed_once(model, {given.name: task}, leaves, batch_size=config.batch_size)
    return Study(
        above,
        tasks,
        {given.name: Classify()},
        seed=seed,
        store=store,
        recipes=config.recipes,
        trainable=leaves[0],
        batch_size=config.batch_size,
    )


@cache
def asked(model: LanguageModel, words: tuple[int, ...]) -> Model:
    """The same function for the same words, so that what is compiled serves all seeds."""
    return label_words(model, words)


@cache
def pooled(model: LanguageModel) -> Model:
    """Likewise, of a sentence encoder."""
    return as_encoder(model)


def _texts(own: Reader, given: Documents, length: int) -> Examples:
    return text.classification(
        given,
        own.tokenizer,
        length,
        pad=own.tokenizer.special.get("pad", 0),
        too_long="cut",
        vocabulary=own.model.vocabulary,
        types=given.pairs is not None and has_types(own.model),
    )


def pattern(way: str, trainable: str, variant: str) -> str:
    """A regular expression of the leaves that are trained: those of the model, not of a probe."""
    start = "^backbone/" if way == "plain" else "^"
    within = trainable[1:] if trainable.startswith("^") else f".*(?:{trainable})"
    only = f"(?={within})" if trainable else ""
    return f"{start}{only}{WITHOUT[variant]}"


def outputs(study: Study, f: Apply, params: Params, examples: Examples) -> np.ndarray:
    """(N, C) float32."""
    return np.asarray(evaluate.outputs(f, params, examples.inputs, study.batch_size))


@cache
def difference(f: Apply) -> Apply:
    """Of two logits the second less the first, (B, 1)."""

    def binary(params: Params, *inputs: Any) -> Any:
        logits = f(params, *inputs)
        return logits[:, 1:] - logits[:, :1]

    return binary


def solved(
    config: PromptConfig, study: Study, splits: dict[str, Examples], rule: Rule, leaves: str
) -> Record:
    """Every solver's solution on one kernel at θ0, with what development data choose."""
    f, params, train = study.model.f, study.model.params, splits["train"]
    if config.binary:
        f = difference(f)
    kernel = partial(
        lz.ntk.kernel, f, params, optimizer=rule, trainable=leaves, memory=config.memory
    )
    both = jax.tree.map(
        lambda *x: np.concatenate(x), splits["validation"].inputs, splits["test"].inputs
    )
    own, cross = kernel(train.inputs), kernel(both, train.inputs)
    cut = len(splits["validation"])
    start = {split: outputs(study, f, params, x) for split, x in splits.items()}
    rows: Record = {}
    for solver in config.solvers:
        tried = [
            {
                "share": share,
                "f0_scale": scale,
                "development": accuracy(seen[:cut], splits["validation"]),
                "accuracy": accuracy(seen[cut:], splits["test"]),
            }
            for share, scale, seen in solutions(
                config, solver, rule, own, cross, np.asarray(train.labels), start
            )
        ]
        if tried:
            rows[solver] = max(tried, key=lambda row: row["development"])
    return rows


def solutions(
    config: PromptConfig,
    solver: str,
    rule: Rule,
    own: np.ndarray,
    cross: np.ndarray,
    labels: np.ndarray,
    start: dict[str, np.ndarray],
) -> Any:
    """(λ, factor of f0, outputs on development and test examples), of every choice there is."""
    beside = np.concatenate([start["validation"], start["test"]])
    if solver == "least_squares":
        row = "asymmetric_least_squares" if rule == "asymmetric_signgd" else solver
        for share, scale in itertools.product(config.shares, config.f0_scales):
            dual = lz.ntk.fit(own, labels, row, start["train"], scale, share=share)
            yield share, scale, lz.ntk.predict(dual, cross, beside)
    elif solver == "logistic_rows" or rule != "asymmetric_signgd":  # a machine wants symmetry
        mean = (np.einsum("nmcc->nm", k) / k.shape[-1] for k in (own, cross))
        shared, other = mean
        none = np.zeros_like(start["train"])
        dual = lz.ntk.fit(shared, labels, solver, none, 0.0)
        yield 0.0, 0.0, lz.ntk.predict(dual, other)


def tuned(
    config: PromptConfig,
    study: Study,
    splits: dict[str, Examples],
    leaves: str,
    f0: np.ndarray,
    place: tuple[str, ...],
) -> Record:
    """A fine-tuning from θ0, and θ_t held against θ0."""
    f, params, train, test = study.model.f, study.model.params, splits["train"], splits["test"]
    found = fine_tuning.run(
        study,
        train.arrays(),
        study.recipes[place[-1]],
        place,
        {},
        regime="nonlinear",
        trainable=leaves,
        inputs=train.arguments,
    )
    moved = found.tau.apply_to(params)
    f_t = outputs(study, f, moved, test)
    f_lin = evaluate.affine_outputs(
        f, params, [found.tau], test.inputs, batch_size=study.batch_size
    ).at(np.ones(1))
    gap = lz.ntk.linearization_gap(f_t, f_lin, test.labels, f0)
    rng = np.random.default_rng(study.seed)
    points = train.take(rng.permutation(len(train))[: config.points])
    kernel = partial(lz.ntk.kernel, f, output="trace", trainable=leaves, memory=config.memory)
    few = points.take(np.arange(max(1, len(points) // 4)))
    change = lz.ntk.feature_change(f, moved, params, few.inputs, trainable=leaves)
    loss = Classify().loss(
        jnp.asarray(outputs(study, f, moved, train)), {"labels": jnp.asarray(train.labels)}
    )
    return {
        "accuracy": accuracy(f_t, test),
        "linearized_accuracy": accuracy(np.asarray(f_lin), test),
        "gap": gap.output_of_change or 0.0,
        "feature_change": change.mean,
        "drift": lz.ntk.drift(kernel(moved, points.inputs), kernel(params, points.inputs)),
        "train_loss": float(loss.mean()),
    }


def accuracy(values: np.ndarray, examples: Examples) -> float:
    """Of logits, or of one output's sign."""
    picked = values.argmax(1) if values.shape[1] > 1 else values[:, 0] > 0
    return float(np.mean(picked == np.asarray(examples.labels)))
