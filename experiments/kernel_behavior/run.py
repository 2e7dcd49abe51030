"""Does fine-tuning behave as a kernel? The NTK along it, and what the NTK predicts of it.

    python -m experiments.kernel_behavior packaged

For each seed and task: a few labelled examples, a frozen head, one fine-tuning by SGD and one by
Adam. At chosen steps: drift of the kernel from θ0, its alignment with itself and with the labels,
the linearization gap, the change of the gradients, the movement of each block (*A Kernel-Based
View of Language Model Fine-Tuning*, Definition 3.2). Beside them the kernels' own solutions. The
model is the head's logits, so what is linearized here are logits. Weight decays of the kernel
solutions are chosen on validation data; test data make the report.
"""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import linearize as lz
from experiments import claims, protocol, running
from experiments.kernel_behavior import few_shot as few_shots_of_text
from experiments.kernel_behavior.claims import CLAIMS
from experiments.kernel_behavior.config import KernelBehaviorConfig, PromptConfig
from experiments.kernel_behavior.results import Results
from linearize import data, evaluate
from linearize.data import Task
from linearize.examples import Examples
from linearize.methods import fine_tuning
from linearize.models import Model
from linearize.models.heads import few_shot, headed, prototype_head
from linearize.objectives import Classify
from linearize.report import schema
from linearize.study import Store, Study, stack
from linearize.study.store import Record
from linearize.types import Params

KERNELS = {"ntk": ("sgd", "full"), "signgd": ("signgd", "trace")}
"""The kernels whose solutions are compared, with optimizer and layout. A full SignGD kernel of C
outputs costs C times the trace; divided by C, the trace stands for one that all outputs share."""

TRAINED = "^backbone/"
"""The parameters that are trained and that kernels are of; the head is among the others."""


def run(config: KernelBehaviorConfig | PromptConfig, run_dir: Path, preset: str = "custom") -> Path:
    """Everything from weights to ``report.html``, whose path is returned."""
    if isinstance(config, PromptConfig):
        return few_shots_of_text.run(config, run_dir, preset)
    with running.claimed(run_dir, config):
        data.prefetch(config.data.tasks, config.data.image_size)
        tasks = {name: load_task(config, name) for name in config.data.tasks}
        parts = len(tasks) * (1 + len(config.recipes) + len(config.kernels))
        every = partial(measure, config, tasks)
        measured = Store.of(run_dir).every_seed(config.seeds, parts, every)
        model = protocol.describe_model(config.model, config.seeds[0])
        found = running.about("kernel_behavior", preset, config, model) | {
            "tasks": list(tasks),
            "steps": {name: config.steps(name) for name in config.recipes},
            "examples": {
                "train": {n: config.data.shots * len(t.classes) for n, t in tasks.items()},
                "test": {n: len(t.test.labels) for n, t in tasks.items()},
            },
            "seconds": measured["seconds"],
            **measured["tasks"],
        }
        results = claims.judged(schema.read(Results, found), CLAIMS)
        return running.finish(run_dir, results)


def load_task(config: KernelBehaviorConfig, name: str) -> Task:
    """A task with its validation and test splits cut to size; shots are drawn later."""
    sizes = data.Limits(None, config.data.validation, config.data.test)
    size, seed = config.data.image_size, config.data.seed
    return data.load_task(name, image_size=size, limit=sizes, seed=seed)


def measure(
    config: KernelBehaviorConfig, tasks: dict[str, Task], seed: int, store: Store
) -> Record:
    """One seed's measurements of every task; each part is a file as soon as it is measured."""
    found: dict[str, Record] = {"pretrained": {}, "along": {}, "spectrum": {}, "solutions": {}}
    for name, task in tasks.items():
        study = few_shots(config, name, task, seed, store)

        def part(of: str, make: Any, *given: Any, name: str = name, study: Study = study) -> Any:
            return store.kept(f"{of}_{name}", partial(make, config, study, name, *given))

        found["pretrained"][name] = part("pretrained", pretrained)
        runs = {o: part(o, along, o) for o in config.recipes}
        found["along"][name] = {o: run["along"] for o, run in runs.items()}
        found["spectrum"][name] = {o: run["spectrum"] for o, run in runs.items()}
        found["solutions"][name] = {
            k: part(f"{k}_solution", solution, *KERNELS[k]) for k in config.kernels
        }
    return {"tasks": found}


def few_shots(
    config: KernelBehaviorConfig, name: str, task: Task, seed: int, store: Store
) -> Study:
    """Shots, a head made from them at θ0, and the logits as the model."""
    model = protocol.backbone(config.model, seed)
    classes = len(task.classes)
    drawn = few_shot(jnp.asarray(task.train.labels), classes, shots=config.data.shots, seed=seed)
    shots = task.train.take(drawn)
    features = evaluate.outputs(model.f, model.params, shots.inputs, config.batch_size)
    head = prototype_head(
        jnp.asarray(features),
        jnp.asarray(shots.labels),
        classes,
        shots=config.head.shots,
        temperature=config.head.temperature,
        seed=seed,
    )
    return Study(
        Model(headed(model.f), {"backbone": model.params, "head": head}, name=model.name),
        {name: replace(task, train=shots)},
        {name: Classify()},
        seed=seed,
        store=store,
        recipes=config.recipes,
        trainable=TRAINED,
        batch_size=config.batch_size,
    )


def logits(study: Study, params: Params, examples: Examples) -> np.ndarray:
    """(N, C) float32."""
    return np.asarray(evaluate.outputs(study.model.f, params, examples.inputs, study.batch_size))


def kernel(
    config: KernelBehaviorConfig,
    study: Study,
    params: Params,
    x1: Examples,
    x2: Examples | None = None,
    **options: Any,
) -> Any:
    """The empirical kernel of the logits at ``params``, in the backbone's parameters."""
    right = None if x2 is None else x2.inputs
    options |= {"memory": config.memory, "trainable": TRAINED}
    return lz.ntk.kernel(study.model.f, params, x1.inputs, right, **options)


def along(config: KernelBehaviorConfig, study: Study, task: str, optimizer: str) -> Record:
    """A fine-tuning, and every measure at the steps asked for."""
    steps, examples = config.steps(optimizer), study.split(task, "train")
    tuned = fine_tuning.run(
        study,
        examples.arrays(),
        replace(study.recipes[optimizer], save_vectors_at=tuple(steps[1:])),
        (optimizer, task),
        {},
        regime="nonlinear",
    )
    rng = np.random.default_rng(study.seed)
    points = examples.take(rng.permutation(len(examples))[: config.points])
    params0 = study.model.params
    kernel_0 = kernel(config, study, params0, points, output="trace")
    f0 = logits(study, params0, study.split(task, "test"))
    rows, kernel_t = [], kernel_0
    for step in steps:
        tau = tuned.vectors[step] if step else 0.0 * tuned.tau
        if step:
            kernel_t = kernel(config, study, tau.apply_to(params0), points, output="trace")
        rows.append(compare(config, study, task, points, tau, kernel_t, kernel_0, f0))
    spectra = {"start": kernel_0, "end": kernel_t}
    return {
        "along": stack(rows),
        "spectrum": {k: lz.ntk.eigenpairs(v).values.tolist() for k, v in spectra.items()},
    }


def compare(
    config: KernelBehaviorConfig,
    study: Study,
    task: str,
    points: Examples,
    tau: lz.TaskVector,
    kernel_t: np.ndarray,
    kernel_0: np.ndarray,
    f0: np.ndarray,
) -> Record:
    """θ_t held against θ0 in every way; accuracies and the gap are on test data."""
    train, test = study.split(task, "train"), study.split(task, "test")
    f, params_0 = study.model.f, study.model.params
    params_t = tau.apply_to(params_0)
    f_t = logits(study, params_t, test)
    f_lin = evaluate.affine_outputs(
        f, params_0, [tau], test.inputs, batch_size=study.batch_size
    ).at(np.ones(1))
    gap = lz.ntk.linearization_gap(f_t, f_lin, test.labels, f0)
    names = protocol.backbone(config.model, study.seed).blocks
    blocks = {block: f"^{re.escape(block)}/" for block in names}
    moved = lz.ntk.movement(params_t["backbone"], params_0["backbone"], blocks)
    few = points.inputs[: max(1, len(points.labels) // 4)]
    change = lz.ntk.feature_change(f, params_t, params_0, few, trainable=TRAINED)
    return {
        "drift": lz.ntk.drift(kernel_t, kernel_0),
        "alignment": lz.ntk.alignment(kernel_t, kernel_0),
        "target_alignment": lz.ntk.target_alignment(kernel_t, points.labels),
        "feature_change": change.mean,
        "gap": gap.output_of_change or 0.0,
        "gap_loss": gap.loss,
        "gap_accuracy": gap.accuracy,
        "agreement": gap.agreement,
        **scores(f_t, test),
        "linearized_accuracy": scores(f_lin, test)["accuracy"],
        "train_loss": scores(logits(study, params_t, train), train)["loss"],
        "movement": {b: m.relative for b, m in moved.blocks.items()}
        | {"all": moved.total.relative},
    }


def pretrained(config: KernelBehaviorConfig, study: Study, task: str) -> Record:
    """Test accuracy and loss at θ0."""
    test = study.split(task, "test")
    return scores(logits(study, study.model.params, test), test)


def solution(
    config: KernelBehaviorConfig, study: Study, task: str, optimizer: str, output: str
) -> Record:
    """The cross-entropy optimum on a kernel at θ0, with the l2 that validation data choose."""
    params0, train = study.model.params, study.split(task, "train")
    splits = {name: study.split(task, name) for name in ("validation", "test")}
    share = 1 if output == "full" else len(set(train.labels.tolist()))

    def of(x1: Examples, x2: Examples | None = None) -> np.ndarray:
        options = {"optimizer": optimizer, "output": output}
        return kernel(config, study, params0, x1, x2, **options) / share

    own = of(train)
    cross = {name: of(split, train) for name, split in splits.items()}
    f0 = {name: logits(study, params0, split) for name, split in splits.items()}
    start, rows = logits(study, params0, train), []
    for l2 in config.l2:
        dual = lz.ntk.cross_entropy(own, start, train.labels, l2 * _unit(own))
        found = {
            name: scores(lz.ntk.predict(dual, cross[name], f0[name]), split)
            for name, split in splits.items()
        }
        rows.append({"l2": l2, "validation_loss": found["validation"]["loss"], **found["test"]})
    return min(rows, key=lambda row: row["validation_loss"])


def _unit(kernel: np.ndarray) -> float:
    """The mean of the kernel's diagonal: a weight decay in units of it means the same for all."""
    n = len(kernel)
    own = kernel[np.arange(n), np.arange(n)]
    return float(np.mean(own if own.ndim == 1 else np.einsum("ncc->nc", own)))


def scores(outputs: Any, examples: Examples) -> Record:
    """Accuracy and loss of logits."""
    values, labels = jnp.asarray(outputs), jnp.asarray(examples.labels)
    loss = Classify().loss(values, {"labels": labels})
    return {"accuracy": float(evaluate.accuracy(values, labels)), "loss": float(loss.mean())}
