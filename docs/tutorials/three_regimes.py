"""A model of your own in three regimes.

A pretrained model is fine-tuned on two tasks, once as it is and once linearized. The task vectors
are added and negated, and every sum is evaluated in the network or in its linearization: the main
job of the library, in a few seconds. Put your own model and data in place of these.

![Accuracy of the sum of two task vectors against the coefficient](three_regimes.png)
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from flax import nnx

import linearize as lz
from linearize.objectives import Classify
from linearize.train import OptimConfig, TrainConfig, fine_tune

out = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/three_regimes")

# %% A model
# Anything of the form `f(params, x)` will do; this is an nnx model. Here it is pretrained for a
# moment on a rule of three classes, where yours would come with its weights.
net = nnx.Rngs(0)
model = nnx.Sequential(
    nnx.Linear(20, 64, rngs=net), nnx.relu, nnx.Linear(64, 64, rngs=net), nnx.relu,
    nnx.Linear(64, 3, rngs=net),
)  # fmt: skip

rng = np.random.default_rng(0)
rule = rng.normal(size=(20, 3))
recipe = TrainConfig(
    optim=OptimConfig(lr=1e-2), steps=60, batch_size=100, checkpoint_every=0, tensorboard=False
)
f, params = lz.from_nnx(model)
x = rng.normal(size=(2000, 20)).astype(np.float32)
seen = {"inputs": x, "labels": (x @ rule).argmax(1)}
pretrained = fine_tune(f, params, seen, regime="nonlinear", config=recipe).tau.apply_to(params)

# %% Tasks
# Arrays, split by a hash of their content. Each of two tasks has inputs in a place of its own, and
# a rule that departs from the first one. A third task is the control: it keeps the old rule,
# nothing is trained on it, and negation must leave it alone.


def task(name: str, shift: float, departure: float) -> lz.Task:
    x = (rng.normal(size=(700, 20)) + shift).astype(np.float32)
    own = rule + departure * rng.normal(size=(20, 3))
    return lz.data.split_task(name, x, ((x - shift) @ own).argmax(1), validation=0.2, test=0.3)


first, second, other = task("first", -0.5, 1.0), task("second", 0.5, 1.0), task("other", 0.0, 0.0)
print(first.counts)

# %% A study
# The model at θ0, the tasks, what a number is, and how to train. `Classify()` reads the outputs as
# logits. Where the outputs are features, leave it out: each task then gets a frozen head of
# prototypes, the mean features of a few training examples of each class.
study = lz.Study(
    (f, pretrained),
    [first, second],
    Classify(),
    control=other,
    store=out / "study",
    recipes={"nonlinear": recipe, "linear": recipe},
)

# %% Compare
# Trains four task vectors, searches α on validation data, evaluates on test data, and keeps all of
# it in the store: the same lines again compute nothing.
found = lz.compare(study, maps=()).results
before, control = found.pretrained.mean(), found.control_pretrained.mean()
print(f"pretrained {before:.1%}, on the control {control:.1%}")
for regime in ("nonlinear", "posthoc", "linear"):
    alone, added = found.single[regime].mean(), found.addition[regime]
    print(
        f"{regime:9s}  alone {alone:.1%}  added {added.accuracy.mean():.1%} "
        f"at α = {added.alpha.mean():.2f}"
    )

# %% Negation
# θ0 − α τ: as much forgetting of the target as the control task allows.
for regime, negated in found.negation.items():
    print(f"{regime:9s}  target {negated.target.mean():.1%}  control {negated.control.mean():.1%}")

# %% The task vectors
# They are plain values, and lie in the store as safetensors files.
taus = study.vectors(lz.METHODS["linear"])
print(f"cosine of the two: {taus['first'].cosine(taus['second']):.2f}")

# %% A figure
# What `comparison.report()` draws for a page, and more, can be drawn from the results by hand.
figure, ax = plt.subplots(figsize=(5.5, 3.4), layout="constrained")
for regime, added in found.addition.items():
    ax.plot(found.alphas, added.sweep_test[0].mean(-1), label=regime)
ax.set(xlabel="α of both task vectors", ylabel="mean accuracy on test data")
ax.legend()
figure.savefig(out / "three_regimes.png", dpi=130)
