"""The figure of docs/idea.md: one network, non-linear and linearized, along two task vectors.

python docs/figures/idea.py [FOLDER]
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx

import linearize as lz
from linearize.train import OptimConfig, TrainConfig, fine_tune
from linearize.types import Params

out = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
CURVED, STRAIGHT = "#d95f02", "#1f6fb4"

net = nnx.Rngs(0)
model = nnx.Sequential(
    nnx.Linear(2, 64, rngs=net), nnx.tanh, nnx.Linear(64, 64, rngs=net), nnx.tanh,
    nnx.Linear(64, 2, rngs=net),
)  # fmt: skip
f, params0 = lz.from_nnx(model)

# Two tasks in two places of the plane, each with a border of its own.
rng = np.random.default_rng(0)
left, right = (rng.normal(size=(200, 2)).astype(np.float32) + c for c in ([-2, 0], [2, 0]))
tasks = {
    "left": {"inputs": left, "labels": (left[:, 1] > 0).astype(int)},
    "right": {"inputs": right, "labels": (right[:, 0] > 2).astype(int)},
}
config = TrainConfig(optim=OptimConfig(lr=4e-3), steps=60, batch_size=100, tensorboard=False)
one, two = (
    fine_tune(f, params0, task, regime="nonlinear", config=config).tau for task in tasks.values()
)


def margins(params: Params, x: jax.Array) -> jax.Array:
    return f(params, x) @ jnp.array([-1.0, 1.0])


x = jnp.array([[-2.0, 1.0], [3.0, 0.0]])  # an example of each task
start, slopes = lz.affine_terms(margins, params0, [one, two], x)


@jax.vmap
def curved(alphas: jax.Array) -> jax.Array:
    return margins((alphas[0] * one + alphas[1] * two).apply_to(params0), x)


def straight(alphas: jax.Array) -> jax.Array:
    return start + alphas @ jnp.stack(slopes)


figure, (line, plane) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")

steps = jnp.linspace(-2, 2, 81)
along = jnp.stack([steps, jnp.zeros_like(steps)], 1)
line.plot(steps, curved(along)[:, 0], color=CURVED, label="f(x; θ0 + ατ)")
line.plot(steps, straight(along)[:, 0], color=STRAIGHT, label="f(x; θ0) + α J(x)τ")
line.plot(0, start[0], "o", color="black", zorder=3)
line.set(title="Along one task vector", xlabel="α", ylabel="logit margin of an example")
line.legend()

fine, few = np.linspace(-1, 1, 41), np.linspace(-1, 1, 9)
for fixed in few:
    for pairs in ([(fixed, a) for a in fine], [(a, fixed) for a in fine]):
        alphas = jnp.asarray(pairs, jnp.float32)
        plane.plot(*curved(alphas).T, color=CURVED, linewidth=1)
        plane.plot(*straight(alphas).T, color=STRAIGHT, linewidth=1)
plane.plot(*start, "o", color="black", zorder=3)
plane.set(
    title="Over a grid of two, −1 ≤ α ≤ 1",
    xlabel="margin of an example of the first task",
    ylabel="of one of the second",
)

out.mkdir(parents=True, exist_ok=True)
figure.savefig(out / "idea.png", dpi=130)
