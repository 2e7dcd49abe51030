"""Error maps: do two tasks interfere?

The disentanglement error ξ(α₁, α₂) says on which share of inputs the sum of two task vectors
predicts something else than each task's own vector does on its own inputs. It is measured over a
grid of both coefficients; where the model is affine, from outputs that are computed once.

![Disentanglement error of two tasks, non-linear, post-hoc linearized and linear](error_maps.png)
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import linearize as lz
from linearize.train import OptimConfig, TrainConfig, fine_tune

out = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/error_maps")
out.mkdir(parents=True, exist_ok=True)

# %% A model and two tasks
# A plain function of parameters and inputs: random waves and a head. Each task has its own place in
# the plane, and a border of its own between two classes.
keys = jax.random.split(jax.random.key(0), 3)
params0 = {
    "waves": jax.random.normal(keys[0], (2, 128)),
    "phases": 3 * jax.random.normal(keys[2], (1, 128)),
    "head": jax.random.normal(keys[1], (128, 2)) / 16,
}


def f(params, x):
    return jnp.cos(x @ params["waves"] + params["phases"]) @ params["head"]


rng = np.random.default_rng(0)
left, right = (rng.normal(size=(300, 2)).astype(np.float32) + place for place in ([-2, 0], [2, 0]))
tasks = {
    "left": {"inputs": left, "labels": (left[:, 1] > 0).astype(int)},
    "right": {"inputs": right, "labels": (right[:, 0] > 2).astype(int)},
}

# %% Task vectors
# The same loop trains the model and its linearization.
config = TrainConfig(optim=OptimConfig(lr=1e-2), steps=100, batch_size=100, tensorboard=False)
taus = {
    regime: [
        fine_tune(f, params0, data, regime=regime, config=config).tau for data in tasks.values()
    ]
    for regime in ("nonlinear", "linear")
}

# %% Maps
# Post-hoc maps take the non-linear vectors and evaluate them in the linearization. The affine maps
# cost one pass over the data, however fine the grid; the non-linear one costs a pass a point.
inputs = [data["inputs"] for data in tasks.values()]
maps = {
    regime: lz.disentanglement_error(f, params0, vectors, inputs, regime=regime)
    for regime, vectors in (
        ("nonlinear", taus["nonlinear"]),
        ("posthoc", taus["nonlinear"]),
        ("linear", taus["linear"]),
    )
}
for regime, found in maps.items():
    print(f"{regime:9s}  mean ξ {found.total.mean():.3f}  of {found.passes} passes")

# %% Where does it interfere?
# `per_task` says which task's inputs are hurt, `total` sums both. Along the axes only one vector is
# added: what is left there is the error that it makes on the other task's inputs.
linear = maps["linear"]
print(
    f"on left inputs {linear.per_task[0].mean():.3f}, on right ones {linear.per_task[1].mean():.3f}"
)

# %% Without a grid
# ‖J(x)τ‖² is how far a vector moves outputs in the tangent space, here for the vector of `left`: on
# its own inputs, and on those of the other task.
tau = taus["linear"][0]
for name, x in zip(tasks, inputs, strict=True):
    moved = lz.affine_terms(f, params0, [tau], x)[1][0]
    print(f"‖J(x)τ‖² of left on {name:5s} inputs {jnp.mean(jnp.sum(moved**2, -1)):.2f}")

# %% A figure
# One scale for all maps, so that they can be compared.
upper = max(float(found.total.max()) for found in maps.values())
figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
for ax, (regime, found) in zip(axes, maps.items(), strict=True):
    found.plot(ax, names=list(tasks), upper=upper)
    ax.set_title(regime)
figure.savefig(out / "error_maps.png", dpi=130)
