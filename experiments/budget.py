"""What a CLIP preset of ``experiments.compare`` costs, before it is run: counted, not measured.

    python -m experiments.budget --preset vit_b32
    python -m experiments.budget --preset vit_l14 --compiled

Operations are read off jaxprs (:mod:`linearize.cost`; matrix products alone count) at the preset's
batch and the papers' numbers of examples. Time is operations over the accelerator's peak and an
assumed utilisation; decoding images and compiling come on top. Memory is what the steps keep for
their backward passes, beside parameters and optimizer. ``--compiled`` also compiles the steps for
this machine, runs nothing, and tells what they hold at once; a CPU computes bfloat16 in float32, so
that an accelerator's temporaries are about half of that.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from configs.compare import PRESETS as COMPARE
from linearize import cli, cost, taylor, tree
from linearize.choices import one_of
from linearize.config import CompareConfig, ConfigError
from linearize.config.files import require
from linearize.data.vision import VISION, held_out
from linearize.losses import cross_entropy
from linearize.models import clip, prompts, vit
from linearize.models.heads import Head, apply_head
from linearize.report import terminal
from linearize.train import optim
from linearize.types import Apply, Array, Params

PEAK = 989e12
"""Operations a second in bfloat16 that an H100 SXM is rated at, without sparsity."""
TOKENS = 24
"""Of a sentence with start and end, to which heads cut a task's sentences, roughly."""
DECODED = 160
"""Images a second that a core decodes and crops for training: JPEG, 500 by 375 pixels, as measured
on an AMD EPYC. Small images, such as SVHN's, take less."""
Regime = Literal["nonlinear", "linear"]


@dataclass(frozen=True)
class Part:
    """A part of a preset: so many passes over something, at so many operations each."""

    name: str
    passes: float
    flops: float
    decodes: bool = False
    """Whether images are read as files, in every epoch anew."""

    @property
    def total(self) -> float:
        """Operations in all."""
        return self.passes * self.flops


def encoder(config: CompareConfig) -> tuple[Apply, Params]:
    """The preset's image encoder, and the shapes of its parameters.

    Raises:
        ConfigError: it is not one of the CLIP models that have a name.
    """
    model = config.model
    fields = clip.VISION[one_of("model.name", model.name, clip.VISION, ConfigError)]
    module = vit.ViT(
        image_size=model.image_size,
        **fields | {"depth": model.blocks or fields["depth"]},
        dtype=jnp.dtype(model.dtype),
        scan=model.scan,
        remat=model.remat,
    )
    shapes = jax.eval_shape(module.init, jax.random.key(0), images(config, 1))["params"]
    return lambda params, x: module.apply({"params": params}, x), shapes


def images(config: CompareConfig, count: int) -> jax.ShapeDtypeStruct:
    """So many images."""
    side = config.model.image_size
    return jax.ShapeDtypeStruct((count, side, side, 3), jnp.uint8)


def forward_flops(config: CompareConfig) -> float:
    """Operations an image of f."""
    f, params = encoder(config)
    return cost.count_flops(f, params, images(config, config.batch_size)) / config.batch_size


def affine_flops(config: CompareConfig) -> float:
    """Operations an image of f0 and the derivatives along one task vector of each task."""
    f, params = encoder(config)
    count = len(config.data.tasks)
    taus = {
        n: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype)
        for n, leaf in tree.flatten(params).items()
    }

    def passes(params: Params, taus: dict[str, Array], x: Array) -> tuple[Array, Array]:
        along = jax.vmap(lambda tau: taylor.affine_terms(f, params, [tau], x), out_axes=(None, 0))
        return along(taus)

    batch = images(config, config.batch_size)
    return cost.count_flops(passes, params, taus, batch) / config.batch_size


def loss_of(config: CompareConfig, regime: Regime) -> tuple[Callable[..., Array], tuple]:
    """``loss(tau, params, images, labels)`` of a training step, and its arguments' shapes."""
    f, params = encoder(config)
    recipe = getattr(config, regime)
    moved = taylor.tangent(f) if regime == "linear" else taylor.displaced(f)
    width, classes = clip.VISION[config.model.name]["projection"], 397
    head = Head(jnp.zeros(width), jnp.zeros((width, classes)), None, jnp.ones(()), True)

    def loss(tau: dict[str, Array], params: Params, x: Array, y: Array) -> Array:
        logits = apply_head(head, moved(params, tau, x))
        return cross_entropy(logits, y).mean()

    micro = recipe.batch_size // recipe.accumulate
    labels = jax.ShapeDtypeStruct((micro,), jnp.int32)
    return loss, (tree.flatten(params), params, images(config, micro), labels)


def step_flops(config: CompareConfig, regime: Regime) -> float:
    """Operations an image of the loss's gradient with respect to τ."""
    loss, arguments = loss_of(config, regime)
    return cost.count_flops(jax.grad(loss), *arguments) / arguments[-1].size


def kept_bytes(config: CompareConfig, regime: Regime) -> int:
    """Bytes that a step keeps from the forward for the backward pass, before XLA saves any."""
    loss, (tau, *rest) = loss_of(config, regime)

    def backward(tau: dict[str, Array], *rest: Array) -> Any:
        return jax.vjp(lambda tau: loss(tau, *rest), tau)[1]

    kept = jax.tree.leaves(jax.eval_shape(backward, tau, *rest))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in kept)


def state_bytes(config: CompareConfig) -> int:
    """Bytes of θ0, τ, AdamW's two moments and the gradient, all float32."""
    return 5 * 4 * sum(leaf.size for leaf in jax.tree.leaves(encoder(config)[1]))


def compiled_bytes(config: CompareConfig, regime: Regime) -> tuple[int, int]:
    """Bytes of a step's arguments (θ0, τ, AdamW's state, a batch), and of its temporaries."""
    loss, (tau, params, x, y) = loss_of(config, regime)
    recipe = getattr(config, regime)
    transform = optim.optimizer(recipe.optim, recipe.steps)

    def update(tau: dict, state: optax.OptState, params: Params, x: Array, y: Array) -> tuple:
        gradient = jax.grad(loss)(tau, params, x, y)
        at = tau if recipe.optim.decay == "tau" else tree.flatten(tree.add(params, tau))
        updates, state = transform.update(optim.clip(recipe.optim, gradient), state, at)
        return optax.apply_updates(tau, updates), state

    state = jax.eval_shape(transform.init, tau)
    step = jax.jit(update, donate_argnums=(0, 1)).lower(tau, state, params, x, y)
    memory = step.compile().memory_analysis()
    assert memory is not None
    return memory.argument_size_in_bytes, memory.temp_size_in_bytes


def text_flops(config: CompareConfig) -> float:
    """Operations a sentence."""
    tower = clip.TextTower(**clip.TEXT[config.model.name])
    tokens = jax.ShapeDtypeStruct((64, TOKENS), jnp.int32)
    params = jax.eval_shape(tower.init, jax.random.key(0), tokens)["params"]
    return cost.count_flops(lambda p, t: tower.apply({"params": p}, t), params, tokens) / 64


def sizes(task: str) -> tuple[int, int, int]:
    """Examples of train, validation and test, as the papers split them."""
    row = VISION[task]
    whole = sum(row.counts[part] for part in row.train.split("+"))
    if row.shares is not None:
        whole, given, test = (round(share * whole) for share in row.shares)
        return whole, given, test
    test = row.counts[row.test]
    if row.original_counts:
        whole, test = row.original_counts["train"], row.original_counts["test"]
    validation = held_out(whole)
    return whole - validation, validation, test


def parts(config: CompareConfig) -> list[Part]:
    """All that a seed of the preset computes, but for what takes no time."""
    names, alphas = config.data.tasks, config.edit.points
    train, validation, test = np.array([sizes(name) for name in names]).T
    _, control, control_test = sizes(config.data.control)
    forward = forward_flops(config)
    sentences = sum(
        VISION[name].classes * len(prompts.templates(name))
        for name in (*names, config.data.control)
    )
    found = [Part("heads of class names", sentences, text_flops(config))]
    regimes: tuple[Regime, ...] = ("nonlinear", "linear")
    for regime in regimes:
        recipe = getattr(config, regime)
        passes = [config.epochs.get(name, recipe.epochs) for name in names]
        examples = sum(
            recipe.steps * recipe.batch_size if p is None else p * n
            for p, n in zip(passes, train, strict=True)
        )
        found.append(Part(f"{regime} fine-tuning", examples, step_flops(config, regime), True))
    whole = validation.sum() + test.sum()
    swept = alphas * (validation.sum() + (test.sum() if config.edit.sweep_test else 0))
    negated = alphas * (validation.sum() + len(names) * control) + test.sum()
    edits = [
        Part("non-linear: single tasks, addition", whole + swept, forward),
        Part("non-linear: negation", negated + len(names) * control_test, forward),
    ]
    found += edits
    if "gradient_ascent" in config.baselines:
        climbing = next(part for part in found if part.name == "nonlinear fine-tuning")
        found.append(dataclasses.replace(climbing, name="gradient ascent"))
    if "random" in config.baselines:
        found.append(Part("random vectors", sum(part.passes for part in edits), forward))
    spread = config.map.points**2 * config.map.n_eval
    found.append(Part("non-linear: maps", 2 * len(config.map.pairs) * spread, forward))
    outputs = 2 * (whole + control + control_test)  # post-hoc and linear
    found.append(Part("affine outputs of both regimes", outputs, affine_flops(config)))
    return found


def main(preset: str = "vit_b32", utilisation: float = 0.4, compiled: bool = False) -> None:
    """Print the table.

    Args:
        preset: of ``experiments.compare``.
        utilisation: share of the peak that is reached.
        compiled: also compile the steps, for their memory.

    Raises:
        ConfigError: no such preset.
    """
    require(preset in COMPARE, "preset", preset, f"known: {', '.join(COMPARE)}")
    config = COMPARE[preset]()
    console, rate = terminal.console(), utilisation * PEAK
    found = parts(config)
    rows = [
        (
            part.name,
            f"{part.passes:,.0f}",
            f"{part.flops / 1e9:,.1f}",
            f"{part.total / 1e15:,.1f}",
            f"{part.total / rate / 60:,.1f}",
        )
        for part in found
    ]
    total = sum(part.total for part in found)
    rows.append(("all", "", "", f"{total / 1e15:,.1f}", f"{total / rate / 60:,.1f}"))
    head = ("part", "images", "GFLOP each", "PFLOP", "minutes")
    title = f"{preset}: one seed, at {rate / 1e12:.0f} TFLOP/s"
    terminal.show(console, title, terminal.Grid.plain(head, rows, numbers=4))
    regimes: tuple[Regime, ...] = ("nonlinear", "linear")
    drawn = sum(part.passes for part in found if part.decodes)
    minutes = drawn / DECODED / config.data.workers / 60
    console.print(
        f"training decodes {drawn / 1e6:.1f} M images: {minutes:.0f} minutes at {DECODED} a second "
        f"for each of {config.data.workers} workers"
    )
    console.print(f"parameters, optimizer and gradient: {state_bytes(config) / 1e9:.1f} GB")
    for regime in regimes:
        kept = kept_bytes(config, regime)
        console.print(f"{regime} step: {kept / 1e9:.1f} GB kept for the backward pass")
        if compiled:
            held, temporary = compiled_bytes(config, regime)
            console.print(
                f"  compiled for {jax.default_backend()}: {held / 1e9:.1f} GB of arguments, "
                f"{temporary / 1e9:.1f} GB of temporaries"
            )


if __name__ == "__main__":
    with cli.reporting():
        tyro.cli(main)
