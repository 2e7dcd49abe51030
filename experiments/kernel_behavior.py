"""Does fine-tuning behave as a kernel? The NTK along it, and what the NTK predicts of it.

    python -m experiments.kernel_behavior packaged

For each seed and task: a few labelled examples, a frozen head, one fine-tuning by SGD and one by
Adam. At chosen steps: drift of the kernel from θ0, its alignment with itself and with the labels,
the linearization gap, the change of the gradients, the movement of each block (*A Kernel-Based
View of Language Model Fine-Tuning*, Definition 3.2). Beside them the kernels' own solutions. The
model is the head's logits, so what is linearized here are logits. Weight decays of the kernel
solutions are chosen on validation data; test data make the report.
"""

import logging
import re
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import linearize as lz
from configs import KERNEL_BEHAVIOR
from experiments import claims, protocol, running
from experiments.records import Record, about, kept, recorded, stack
from linearize import data, evaluate, identity, train
from linearize.config import KernelBehaviorConfig
from linearize.data import Split, Task
from linearize.models.heads import apply_head, few_shot, prototype_head
from linearize.types import Apply, Array, Params

log = logging.getLogger(__name__)

KERNELS = {"ntk": ("sgd", "full"), "signgd": ("signgd", "trace")}
"""The kernels whose solutions are compared, with optimizer and layout. A full SignGD kernel of C
outputs costs C times the trace; divided by C, the trace stands for one that all outputs share."""

TRAINED = "^backbone/"
"""The parameters that are trained and that kernels are of."""


@dataclass(frozen=True)
class Setting:
    """One seed's few-shot task: logits as a function of the parameters, and the examples.

    The head is among the parameters, frozen, so that what is compiled for one serves all tasks of
    as many classes, and all seeds.
    """

    config: KernelBehaviorConfig
    seed: int
    f: Apply
    params0: Params
    """``{"backbone": θ0, "head": head}``"""
    blocks: tuple[str, ...]
    train: Split
    validation: Split
    test: Split

    def logits(self, params: Params, split: Split) -> np.ndarray:
        """(N, C) float32."""
        return np.asarray(evaluate.outputs(self.f, params, split.images, self.config.batch_size))

    def kernel(self, params: Params, x1: Split, x2: Split | None = None, **options: Any) -> Any:
        """The empirical kernel of the logits at ``params``, in the backbone's parameters."""
        right = None if x2 is None else x2.images
        options |= {"memory": self.config.memory, "trainable": TRAINED}
        return lz.ntk.kernel(self.f, params, x1.images, right, **options)


def run(config: KernelBehaviorConfig, run_dir: Path, preset: str = "custom") -> Path:
    """Everything from weights to ``report.html``, whose path is returned."""
    with running.claimed(run_dir, config):
        data.prefetch(config.data.tasks, config.data.image_size)
        tasks = {name: load_task(config, name) for name in config.data.tasks}
        measured = running.every_seed(measure, run_dir, config, tasks)
        results = about("kernel_behavior", preset, config) | {
            "model": protocol.describe_model(config.model, config.seeds[0]),
            "tasks": list(tasks),
            "steps": {name: config.steps(name) for name in config.recipes},
            "examples": {
                "train": {n: config.data.shots * len(t.classes) for n, t in tasks.items()},
                "test": {n: len(t.test.labels) for n, t in tasks.items()},
            },
            "seconds": measured["seconds"],
            **measured["tasks"],
        }
        results["claims"] = claims.judge(results, claims.KERNEL_BEHAVIOR)
        return running.finish(run_dir, results)


def load_task(config: KernelBehaviorConfig, name: str) -> Task:
    """A task with its validation and test splits cut to size; shots are drawn later."""
    sizes = data.Limits(None, config.data.validation, config.data.test)
    size, seed = config.data.image_size, config.data.seed
    return data.load_task(name, image_size=size, limit=sizes, seed=seed)


@recorded(lambda config: len(config.data.tasks) * (1 + len(config.recipes) + len(config.kernels)))
def measure(
    run_dir: Path, config: KernelBehaviorConfig, tasks: dict[str, Task], seed: int
) -> Record:
    """One seed's measurements of every task; each part is a file as soon as it is measured."""
    found: dict[str, Record] = {"pretrained": {}, "along": {}, "spectrum": {}, "solutions": {}}
    for name, task in tasks.items():
        setting, part = prepare(config, task, seed), partial(_part, run_dir / "parts", name)
        found["pretrained"][name] = part("pretrained", lambda s=setting: accuracies(s, s.params0))
        runs = {o: part(o, partial(along, setting, o, run_dir / o / name)) for o in config.recipes}
        found["along"][name] = {o: run["along"] for o, run in runs.items()}
        found["spectrum"][name] = {o: run["spectrum"] for o, run in runs.items()}
        found["solutions"][name] = {
            k: part(f"{k}_solution", partial(solution, setting, *KERNELS[k]))
            for k in config.kernels
        }
    return {"tasks": found}


def _part(folder: Path, task: str, name: str, compute: Any) -> Any:
    return kept(folder / f"{name}_{task}.json", compute)


def prepare(config: KernelBehaviorConfig, task: Task, seed: int) -> Setting:
    """Shots, a head made from them at θ0, and the logits as one function."""
    model = protocol.backbone(config.model, seed)
    classes = len(task.classes)
    drawn = few_shot(jnp.asarray(task.train.labels), classes, shots=config.data.shots, seed=seed)
    shots = Split(task.train.images[drawn], task.train.labels[drawn])
    features = evaluate.outputs(model.f, model.params, shots.images, config.batch_size)
    head = prototype_head(
        jnp.asarray(features),
        jnp.asarray(shots.labels),
        classes,
        shots=config.head.shots,
        temperature=config.head.temperature,
        seed=seed,
    )

    params0 = {"backbone": model.params, "head": head}
    f = logits_of(model.f)
    return Setting(config, seed, f, params0, model.blocks, shots, task.validation, task.test)


@cache
def logits_of(features: Apply) -> Apply:
    """The head's logits of the backbone's features; one function for all tasks and seeds."""

    def f(params: Params, images: Array) -> Array:
        return apply_head(params["head"], features(params["backbone"], images))

    if stated := identity.stated(features):
        f.fingerprint = f"logits of {stated}"  # type: ignore[attr-defined]
    return f


def along(setting: Setting, optimizer: str, run_dir: Path) -> Record:
    """A fine-tuning, and every measure at the steps asked for."""
    config, recipe = setting.config, setting.config.recipes[optimizer]
    steps = config.steps(optimizer)
    tuned = train.fine_tune(
        setting.f,
        setting.params0,
        {"inputs": setting.train.images, "labels": setting.train.labels},
        regime="nonlinear",
        config=replace(recipe, seed=setting.seed, save_vectors_at=tuple(steps[1:])),
        trainable=TRAINED,
        run_dir=run_dir,
    )
    rng = np.random.default_rng(setting.seed)
    chosen = rng.permutation(len(setting.train.labels))[: config.points]
    points = Split(setting.train.images[chosen], setting.train.labels[chosen])
    kernel_0 = setting.kernel(setting.params0, points, output="trace")
    f0 = setting.logits(setting.params0, setting.test)
    rows, kernel_t = [], kernel_0
    for step in steps:
        tau = tuned.vectors[step] if step else 0.0 * tuned.tau
        if step:
            kernel_t = setting.kernel(tau.apply_to(setting.params0), points, output="trace")
        rows.append(compare(setting, points, tau, kernel_t, kernel_0, f0))
    spectra = {"start": kernel_0, "end": kernel_t}
    return {
        "along": stack(rows),
        "spectrum": {k: lz.ntk.eigenpairs(v).values.tolist() for k, v in spectra.items()},
    }


def compare(
    setting: Setting,
    points: Split,
    tau: lz.TaskVector,
    kernel_t: np.ndarray,
    kernel_0: np.ndarray,
    f0: np.ndarray,
) -> Record:
    """θ_t held against θ0 in every way; accuracies and the gap are on test data."""
    test, params_0, params_t = setting.test, setting.params0, tau.apply_to(setting.params0)
    f_t = setting.logits(params_t, test)
    f_lin = evaluate.affine_outputs(
        setting.f, params_0, [tau], test.images, batch_size=setting.config.batch_size
    ).at(np.ones(1))
    gap = lz.ntk.linearization_gap(f_t, f_lin, test.labels, f0)
    blocks = {block: f"^{re.escape(block)}/" for block in setting.blocks}
    moved = lz.ntk.movement(params_t["backbone"], params_0["backbone"], blocks)
    few = points.images[: max(1, len(points.labels) // 4)]
    change = lz.ntk.feature_change(setting.f, params_t, params_0, few, trainable=TRAINED)
    return {
        "drift": lz.ntk.drift(kernel_t, kernel_0),
        "alignment": lz.ntk.alignment(kernel_t, kernel_0),
        "target_alignment": lz.ntk.target_alignment(kernel_t, points.labels),
        "feature_change": change.mean,
        "gap": gap.output_of_change or 0.0,
        "gap_loss": gap.loss,
        "gap_accuracy": gap.accuracy,
        "agreement": gap.agreement,
        "accuracy": _accuracy(f_t, test.labels),
        "linearized_accuracy": _accuracy(f_lin, test.labels),
        "loss": _loss(f_t, test.labels),
        "train_loss": _loss(setting.logits(params_t, setting.train), setting.train.labels),
        "movement": {b: m.relative for b, m in moved.blocks.items()}
        | {"all": moved.total.relative},
    }


def accuracies(setting: Setting, params: Params) -> Record:
    """Test accuracy and loss."""
    logits = setting.logits(params, setting.test)
    labels = setting.test.labels
    return {"accuracy": _accuracy(logits, labels), "loss": _loss(logits, labels)}


def solution(setting: Setting, optimizer: str, output: str) -> Record:
    """The cross-entropy optimum on a kernel at θ0, with the l2 that validation data choose."""
    splits = {"validation": setting.validation, "test": setting.test}
    share = 1 if output == "full" else len(set(setting.train.labels.tolist()))

    def kernel(x1: Split, x2: Split | None = None) -> np.ndarray:
        options = {"optimizer": optimizer, "output": output}
        return setting.kernel(setting.params0, x1, x2, **options) / share

    own = kernel(setting.train)
    cross = {name: kernel(split, setting.train) for name, split in splits.items()}
    f0 = {n: setting.logits(setting.params0, s) for n, s in splits.items()}
    start, labels = setting.logits(setting.params0, setting.train), setting.train.labels
    rows = []
    for l2 in setting.config.l2:
        dual = lz.ntk.cross_entropy(own, start, labels, l2 * _unit(own))
        predicted = {n: lz.ntk.predict(dual, cross[n], f0[n]) for n in splits}
        losses = {n: _loss(predicted[n], s.labels) for n, s in splits.items()}
        rows.append(
            {
                "l2": l2,
                "validation_loss": losses["validation"],
                "loss": losses["test"],
                "accuracy": _accuracy(predicted["test"], setting.test.labels),
            }
        )
    return min(rows, key=lambda row: row["validation_loss"])


def _unit(kernel: np.ndarray) -> float:
    """The mean of the kernel's diagonal: a weight decay in units of it means the same for all."""
    n = len(kernel)
    own = kernel[np.arange(n), np.arange(n)]
    return float(np.mean(own if own.ndim == 1 else np.einsum("ncc->nc", own)))


def _accuracy(logits: Any, labels: np.ndarray) -> float:
    return float(evaluate.accuracy(jnp.asarray(logits), jnp.asarray(labels)))


def _loss(logits: Any, labels: np.ndarray) -> float:
    return float(train.cross_entropy(jnp.asarray(logits), jnp.asarray(labels)).mean())


if __name__ == "__main__":
    running.launch("kernel_behavior", KERNEL_BEHAVIOR, run)
