"""The kernel laboratory.

From a Flax model to its kernel: spectrum, prediction, the optimum of linear fine-tuning without a
step of it, and how far real fine-tuning drifts. The model is small and untrained and the images are
those of handwritten digits, so that every step takes seconds; put your own model and arrays in
their place.

![Spectra of the kernel before and after fine-tuning, and the kernel sorted by digit](kernel.png)
"""

import sys
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx

import linearize as lz
from linearize import data
from linearize.train import OptimConfig, TrainConfig, fine_tune

out = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/kernel")
out.mkdir(parents=True, exist_ok=True)


# %% A model
# As a function of its parameters.
class CNN(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv1 = nnx.Conv(3, 16, (3, 3), strides=2, rngs=rngs)
        self.conv2 = nnx.Conv(16, 32, (3, 3), strides=2, rngs=rngs)
        self.head = nnx.Linear(32 * 16, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.conv2(nnx.relu(self.conv1(x))))
        return self.head(x.reshape(len(x), -1))


f, params0 = lz.from_nnx(CNN(nnx.Rngs(0)))

task = data.load_task(
    "digits", image_size=16, limit=data.Limits(train=200, validation=100, test=300)
)
x, x_test = (s.inputs.astype(np.float32) / 255 for s in (task.train, task.test))
y, y_test = task.train.labels, task.test.labels

# %% Its kernel
# The empirical neural tangent kernel, exactly: every output with every output.
K = lz.ntk.kernel(f, params0, x)  # (200, 200, 10, 10)
K_test = lz.ntk.kernel(f, params0, x_test, x)
f0, f0_test = np.asarray(f(params0, x)), np.asarray(f(params0, x_test))

# %% Its spectrum
# Which functions does gradient descent learn first?
trace = np.einsum("nmcc->nm", K)  # the kernel that all outputs share, summed over them
spectrum = lz.ntk.eigenpairs(trace)
print(f"leading eigenvalues {spectrum.values[:3].round(1)}")
print(f"effective rank {lz.ntk.effective_rank(spectrum.values):.1f} of {len(trace)}")

# %% Prediction
# What linearized fine-tuning would end in, without a step of it.
dual = lz.ntk.cross_entropy(K, f0, y, l2=1e-4)
predicted = lz.ntk.predict(dual, K_test, f0_test)
print(f"kernel prediction: {np.mean(predicted.argmax(1) == y_test):.1%} of test images")

# %% The same as weights
# A linear task vector like any other.
tau = lz.ntk.to_task_vector(f, params0, x, dual)
linear = np.asarray(lz.linearize(f, params0)(tau.apply_to(params0), x_test))
print(f"in weights: logits differ by {np.abs(linear - predicted).max():.1e}")

# %% Drift
# Fine-tune the model itself. How far does its kernel drift?
config = TrainConfig(optim=OptimConfig(lr=1e-3), steps=60, batch_size=50, tensorboard=False)
examples = {"inputs": x, "labels": y}
trained = fine_tune(f, params0, examples, regime="nonlinear", config=config)
params_t = trained.tau.apply_to(params0)
f_t, f_lin = f(params_t, x_test), lz.linearize(f, params0)(params_t, x_test)
K_t = lz.ntk.kernel(f, params_t, x, output="trace")
gap = lz.ntk.linearization_gap(f_t, f_lin, y_test)
print(f"fine-tuned: {np.mean(np.argmax(f_t, 1) == y_test):.1%} of test images")
print(f"kernel drift {lz.ntk.drift(K_t, trace):.2f}, alignment {lz.ntk.alignment(K_t, trace):.2f}")
print(f"the linearization agrees on {gap.agreement:.1%} of test images")

# %% A figure
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
left.loglog(np.arange(1, len(trace) + 1), spectrum.values, label="at θ0")
left.loglog(np.arange(1, len(trace) + 1), lz.ntk.eigenpairs(K_t).values, label="fine-tuned")
left.set(xlabel="index", ylabel="eigenvalue of the trace kernel")
left.legend()
order = np.argsort(y, kind="stable")
shown = right.imshow(trace[np.ix_(order, order)], cmap="viridis")
right.set(title="kernel at θ0, images sorted by digit", xticks=[], yticks=[])
figure.colorbar(shown, ax=right)
figure.savefig(out / "kernel.png", dpi=150)
