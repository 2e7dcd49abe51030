"""Kernel behaviour against width: one network at many widths, beside its infinite-width kernels.

    python -m experiments.width mlp

For each width, many draws of θ0: how far the empirical kernels are from the analytic ones. For each
width and seed, full-batch gradient descent on squared error, with one learning rate for all widths
(Lee et al. 2019), and at some steps t: drift ‖K_t − K_0‖ / ‖K_0‖, how far the weights moved, and
the gap of f(θ_t) to the linearization, once trained by its own dynamics (closed form) and once at
θ_t.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import jax
import numpy as np
from jax import numpy as jnp

import linearize as lz
from experiments import running
from experiments.width import scaling
from experiments.width.config import WidthConfig
from experiments.width.results import Measured, Results
from linearize import data, evaluate
from linearize.config import ConfigError
from linearize.examples import Examples
from linearize.models.wide import WideMLP
from linearize.ntk.infinite_width import Kernels
from linearize.report import schema
from linearize.study import Store, stack
from linearize.study.store import Record, total_seconds
from linearize.task_vector import TaskVector
from linearize.train import OptimConfig, TrainConfig, fine_tune
from linearize.types import Apply, Array, Batch, Params, PyTree

KERNELS = ("ntk", "nngp")
kernel = partial(lz.ntk.kernel, implementation="structured")  # all layers are dense


@dataclass(frozen=True, eq=False)
class Regression:
    """Training examples, then test examples; targets are one-hot rows minus their mean 1/C."""

    x: np.ndarray
    """(N + M, D) float32."""
    y: np.ndarray
    """(N + M, C) float32."""
    train: int
    """N."""

    @property
    def labels(self) -> np.ndarray:
        """(N + M,) classes."""
        return self.y.argmax(1)


def run(config: WidthConfig, run_dir: Path, preset: str = "custom") -> Path:
    """Everything from random weights to ``report.html``, whose path is returned."""
    with running.claimed(run_dir, config):
        examples, store = load(config), Store.of(run_dir)

        def trained(seed: int, place: Store) -> Record:
            return at_widths(config, place, partial(at_width, config, examples, seed=seed))

        measured = store.every_seed(config.seeds, len(config.widths), trained)
        place = store.under("start")
        drawn = partial(at_widths, config, place, partial(start_at_width, config, examples))
        start = place.recorded(len(config.widths), drawn)
        seconds = total_seconds([measured, start])
        del measured["seconds"]
        measured |= {f"{n}_error": np.transpose(start[f"{n}_error"]).tolist() for n in KERNELS}
        layers = f"{config.depth} hidden layer{'s' * (config.depth > 1)}"
        name = f"ReLU network, {layers}, {config.parametrization} parametrization"
        found = running.about("width", preset, config, {"name": name}) | {
            "task": config.task,
            "counts": {"train": examples.train, "test": len(examples.x) - examples.train},
            "inputs": examples.x.shape[1],
            "outputs": examples.y.shape[1],
            "widths": config.widths,
            "steps": config.steps,
            "fit_from": config.fit_from,
            "measured": measured,
            "slopes": scaling.slopes(
                schema.read(Measured, measured).largest, config.widths, config.fit_from
            ),
            "error_of_mean": {n: start[f"{n}_error_of_mean"] for n in KERNELS},
            "seconds": seconds,
        }
        results = schema.read(Results, found)
        claims = scaling.judge(results.slopes, config.parametrization)
        return running.finish(run_dir, replace(results, claims=claims))


def load(config: WidthConfig) -> Regression:
    """The task's examples as the vectors and targets of a regression."""
    limit = data.Limits(config.train, config.test, config.test)
    task = data.load_task(
        config.task, image_size=config.image_size, limit=limit, seed=config.data_seed
    )
    x = np.concatenate([vectors(split, config.scale) for split in (task.train, task.test)])
    labels = np.concatenate([task.train.labels, task.test.labels])
    y = np.eye(len(task.classes), dtype=np.float32)[labels] - np.float32(1 / len(task.classes))
    return Regression(x, y, len(task.train))


def vectors(split: Examples, scale: float) -> np.ndarray:
    """Images as centred vectors of norm scale · √D, (N, D) float32; a blank image is zero."""
    x = split.inputs.astype(np.float64).mean(-1).reshape(len(split), -1)
    x -= x.mean(1, keepdims=True)
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return (scale * x.shape[1] ** 0.5 * x / np.where(norm > 0, norm, 1)).astype(np.float32)


def at_widths(config: WidthConfig, store: Store, measure: Callable[[int], Record]) -> Record:
    """What is measured of every width, in the shape (W, ...); each is a file once it is."""
    return stack([store.kept(f"width_{width}", partial(measure, width)) for width in config.widths])


def at_width(config: WidthConfig, examples: Regression, width: int, seed: int) -> Record:
    """One random network, trained: its kernels, weights and outputs at every step."""
    with jax.enable_x64(config.float64):
        f, params0 = network(config, examples, width, seed)
        N, rate = examples.train, learning_rate(config, examples, width)
        K = kernel(f, params0, examples.x, output="full")
        K0, features0 = np.einsum("nmcc->nm", K[:N, :N]), last_layer(f, params0, examples)
        f0 = outputs(f, params0, examples)
        try:
            dual = lz.ntk.gradient_descent(
                K[:N, :N], f0[:N], examples.y[:N], rate, np.asarray(config.steps)
            )
        except ValueError as error:
            raise ConfigError(
                f"rate={config.rate}: too large for width {width} with seed {seed}; lower it, or "
                f"leave out narrow widths ({error})"
            ) from error
        linear = lz.ntk.predict(dual, K[:, :N], f0)
        tuned = train(config, f, params0, examples, rate)
        f_lin, steps = lz.linearize(f, params0), []
        for step, own in zip(config.steps, linear, strict=True):
            params = tuned[step].apply_to(params0, scale=1.0)
            ft, at_theta = (outputs(g, params, examples) for g in (f, f_lin))
            Kt = kernel(f, params, examples.x[:N], output="trace")
            moved = lz.ntk.movement(params, params0, blocks(config))
            gap = lz.ntk.linearization_gap(ft[N:], own[N:], examples.labels[N:], f0[N:])
            steps.append(
                {
                    "drift": lz.ntk.drift(Kt, K0),
                    "feature_drift": lz.ntk.drift(last_layer(f, params, examples), features0),
                    "gap": rms(ft[N:] - own[N:]),
                    "gap_at_theta": rms(ft[N:] - at_theta[N:]),
                    "gap_share": gap.output_of_change,
                    "agreement": gap.agreement,
                    **{name: block.relative for name, block in moved.blocks.items()},
                    "distance": moved.total.distance,
                    "f": progress(examples, ft, f0),
                    "f_lin": progress(examples, own, f0),
                }
            )
        return stack(steps)


def start_at_width(config: WidthConfig, examples: Regression, width: int) -> Record:
    """Relative distance of each draw's kernels, one output's mean, and of their mean over draws."""
    C, limit = examples.y.shape[1], analytic(config, examples, width)
    exact = dict(zip(KERNELS, (limit.ntk, limit.nngp), strict=True))
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in exact}
    with jax.enable_x64(config.float64):
        for draw in range(config.draws):
            f, params = network(config, examples, width, draw)
            K = kernel(f, params, examples.x[: examples.train], output="trace") / C
            drawn["ntk"].append(K)
            features = last_layer(f, params, examples) / C
            drawn["nngp"].append(nngp(config, width, features))
    each = {f"{n}_error": [lz.ntk.drift(K, exact[n]) for K in drawn[n]] for n in exact}
    mean = {f"{n}_error_of_mean": lz.ntk.drift(np.mean(drawn[n], 0), exact[n]) for n in exact}
    return each | mean


def network(
    config: WidthConfig, examples: Regression, width: int, seed: int
) -> tuple[Apply, Params]:
    """A width's network and the seed's weights."""
    module = WideMLP(
        width,
        config.depth,
        examples.y.shape[1],
        config.weight_std,
        config.bias_std,
        config.parametrization,
        jnp.float64 if config.float64 else jnp.float32,
    )
    f, draw = model(module, examples.x.shape[1])
    return f, draw(jax.random.fold_in(jax.random.key(seed), width))


@cache
def model(module: WideMLP, inputs: int) -> tuple[Apply, Callable[[Array], Params]]:
    """One ``f`` and one way to draw weights for all seeds, so that they share compilations."""
    init = jax.jit(lambda key: module.init(key, jnp.zeros((1, inputs))))
    f, _ = lz.from_linen(module, jax.eval_shape(init, jax.random.key(0)))
    return f, lambda key: init(key)["params"]


def analytic(config: WidthConfig, examples: Regression, width: int) -> Kernels:
    """The kernels of one output at infinite width, on the training examples."""
    return lz.ntk.mlp_kernel(
        examples.x[: examples.train],
        depth=config.depth,
        weight_std=config.weight_std,
        bias_std=config.bias_std,
        parametrization=config.parametrization,
        width=width if config.parametrization == "standard" else None,
    )


def learning_rate(config: WidthConfig, examples: Regression, width: int) -> float:
    """η of the summed loss."""
    rate = config.rate * lz.ntk.max_learning_rate(analytic(config, examples, width).ntk)
    # N η is the optimizer's, whose schedule is float32
    return float(np.float32(examples.train * rate)) / examples.train


def train(
    config: WidthConfig, f: Apply, params0: Params, examples: Regression, rate: float
) -> Mapping[int, TaskVector]:
    """Task vectors after some steps of gradient descent on the mean of ½ ‖f − y‖², all in memory.

    The closed form's loss is the sum, so the learning rate is N times as large here.
    """
    N = examples.train
    recipe = TrainConfig(
        optim=OptimConfig(name="sgd", lr=N * rate, schedule="constant", clip=None),
        steps=config.steps[-1],
        batch_size=N,
        save_vectors_at=config.steps,
        log_every=config.steps[-1],
    )
    batch = {"inputs": examples.x[:N], "targets": examples.y[:N]}
    return fine_tune(
        f, params0, batch, regime="nonlinear", loss=half_square, config=recipe, progress=False
    ).vectors


def half_square(outputs: PyTree, batch: Batch) -> Array:
    """½ ‖f − y‖² of each example, (B,)."""
    return 0.5 * jnp.sum((outputs - batch["targets"]) ** 2, axis=-1)


def outputs(f: Apply, params: Params, examples: Regression) -> np.ndarray:
    """What f gives for all examples, (N + M, C) float64."""
    return np.asarray(evaluate.outputs(f, params, examples.x), np.float64)


def last_layer(f: Apply, params: Params, examples: Regression) -> np.ndarray:
    """Trace kernel of the last layer's weights on the training examples, (N, N)."""
    x = examples.x[: examples.train]
    return kernel(f, params, x, output="trace", trainable="^output/kernel")


def nngp(config: WidthConfig, width: int, features: np.ndarray) -> np.ndarray:
    """The empirical NNGP kernel of one output, from its last layer's weights' kernel."""
    scale = config.weight_std**2 / width if config.parametrization == "standard" else 1.0
    return scale * features + (config.bias_std or 0.0) ** 2


def blocks(config: WidthConfig) -> dict[str, str]:
    """The weights whose movement is followed: a network of one hidden layer has no hidden ones."""
    found = {"input": "^input/kernel", "hidden": "^hidden_.*/kernel", "output": "^output/kernel"}
    return found if config.depth > 1 else {k: v for k, v in found.items() if k != "hidden"}


def progress(examples: Regression, now: np.ndarray, then: np.ndarray) -> Record:
    """How far learning is: the training loss as a share of its beginning, and test accuracy."""
    N, right = examples.train, now.argmax(1) == examples.labels
    before, after = (rms(f[:N] - examples.y[:N]) ** 2 for f in (then, now))
    return {"loss": after / before, "accuracy": float(right[N:].mean())}


def rms(values: np.ndarray) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.mean(values**2)))
