"""Methods and merges.

A *method* makes task vectors: the three regimes, and others that keep tasks apart while they train.
A *merge* makes one direction of several task vectors. Both are rows of a table, and every merge is
evaluated in every method's view. At the end there is a row of one's own in each.

![Accuracy of merges of three methods' task vectors](methods_and_merges.png)
"""

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import linearize as lz
from linearize.merge.leafwise import leafwise
from linearize.methods.fine_tuning import fine_tune
from linearize.objectives import Classify
from linearize.train import OptimConfig, TrainConfig

out = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/methods_and_merges")
out.mkdir(parents=True, exist_ok=True)

# %% What there is
print(f"{len(lz.METHODS)} methods, such as {lz.METHODS['tau_jp'].label}: lz.METHODS")
print(f"{len(lz.MERGES)} merges, such as {lz.MERGES['ties'].label}: lz.MERGES")

# %% A study of three tasks
# Each task classifies points around its own place in the plane, by a border of its own.
keys = jax.random.split(jax.random.key(0), 3)
params0 = {
    "waves": jax.random.normal(keys[0], (2, 128)),
    "phases": 3 * jax.random.normal(keys[2], (1, 128)),
    "head": jax.random.normal(keys[1], (128, 2)) / 16,
}


def f(params, x):
    return jnp.cos(x @ params["waves"] + params["phases"]) @ params["head"]


rng = np.random.default_rng(0)


def task(name: str, place: tuple[float, float], border: tuple[float, float]) -> lz.Task:
    x = rng.normal(size=(400, 2)).astype(np.float32)
    labels = (x @ np.array(border) > 0).astype(int)
    return lz.data.split_task(name, x + np.float32(place), labels, validation=0.2, test=0.3)


tasks = [
    task("left", (-1.5, 0), (0, 1)),
    task("right", (1.5, 0), (1, 0)),
    task("above", (0, 2), (1, -1)),
]
recipe = TrainConfig(
    optim=OptimConfig(lr=1e-2), steps=80, batch_size=50, checkpoint_every=0, tensorboard=False
)
study = lz.Study(
    (f, params0),
    tasks,
    Classify(),
    recipes={"linear": recipe},
)

# %% A method of one's own
# Most methods are `fine_tune` of a regime with something added: a pattern of leaves, a mask, a
# penalty. This one trains the head alone, in the linearization.
lz.METHODS["head_only"] = lz.Method(
    "head_only",
    "Head only",
    "tangent",
    partial(fine_tune, regime="linear", method="head_only", trainable="head"),
)

# %% A merge of one's own
# Of task vectors by name, and a seed: directions by name. `leafwise` hands over one leaf of all
# vectors at a time, stacked. This one keeps what most vectors agree on, the median.


def median(taus: Mapping[str, lz.TaskVector], seed: int = 0) -> dict[str, lz.TaskVector]:
    return {"median": leafwise(taus, lambda name, leaves: np.median(leaves, axis=0))}


lz.MERGES["median"] = lz.Merge("median", "Median", median)

# %% Side by side
# τJp penalizes what a vector does to the other tasks' inputs while it trains; TIES settles
# conflicts afterwards. The coefficient and the merges' hyper-parameters are chosen on validation
# data.
methods = ["linear", "tau_jp", "head_only"]
found = lz.compare(study, methods, ["ties", "median"], maps=()).results
for method in methods:
    print(f"{method:16s}  alone {found.single[method].mean():.1%}")
for row, added in found.addition.items():
    print(f"{row:16s}  {added.accuracy.mean():.1%} at α = {added.alpha.mean():.2f}")

# %% Without a study
# Merges are functions of task vectors, and so is their sum.
taus = study.vectors(lz.METHODS["linear"])
merged = lz.MERGES["ties"].directions(taus, 0)["ties"]
edited = merged.apply_to(params0, scale=1.0)
print(f"‖τ‖ of TIES {merged.norm():.2f}, of the sum {sum(taus.values()).norm():.2f}")

# %% A figure
# Rows are called `MERGE_METHOD`; the sum has its method's name alone.
merges = ["", "ties_", "median_"]
figure, ax = plt.subplots(figsize=(6, 3.4), layout="constrained")
for i, method in enumerate(methods):
    kept = [found.addition[f"{merge}{method}"].accuracy.mean() for merge in merges]
    ax.bar(np.arange(len(merges)) + 0.25 * i, kept, 0.22, label=method)
ax.set_xticks(np.arange(len(merges)) + 0.25, ["sum", "TIES", "median"])
ax.set(ylabel="mean accuracy of the merged model", ylim=(0, 1.1))
ax.legend(ncols=3, loc="upper center", fontsize=8)
figure.savefig(out / "methods_and_merges.png", dpi=130)
