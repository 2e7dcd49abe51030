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

from collections.abc import Callable
from dataclasses import dataclass, replace
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
from linearize.methods import METHODS, NONLINEAR, tak, tau_jp
from linearize.methods.fine_tuning import fine_tune
from linearize.models import clip, prompts, vit
from linearize.models.heads import Head, apply_head
from linearize.report import terminal
from linearize.train import TrainConfig, optim
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


def affine_flops(config: CompareConfig, count: int | None = None) -> float:
    """Operations an image of f0 and the derivatives along some vectors, one a task by default."""
    f, params = encoder(config)
    count = len(config.data.tasks) if count is None else count
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
        clipped = optim.clip(recipe.optim, gradient, optax.tree.norm(gradient))
        at = tau if recipe.optim.decay == "tau" else tree.flatten(tree.add(params, tau))
        updates, state = transform.update(clipped, state, at)
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
        examples = seen(config, getattr(config, regime), train)
        found.append(Part(f"{regime} fine-tuning", examples, step_flops(config, regime), True))
    for name in config.methods:
        found += method_parts(config, name, train)
    whole = validation.sum() + test.sum()
    swept = alphas * (validation.sum() + (test.sum() if config.edit.sweep_test else 0))
    negated = alphas * (validation.sum() + len(names) * control) + test.sum()
    edits = [
        Part("non-linear: single tasks, addition", whole + swept, forward),
        Part("non-linear: negation", negated + len(names) * control_test, forward),
    ]
    found += edits
    added = [METHODS[name] for name in config.methods]
    stepped = [method for method in added if method.view == "displaced"]
    for method in stepped:
        found += [
            replace(part, name=part.name.replace("non-linear", method.name)) for part in edits
        ]
    views = [NONLINEAR, *stepped]
    for merge in config.merges:
        found += [Part(f"{merge} of {view.name}: addition", swept, forward) for view in views]
    if "gradient_ascent" in config.baselines:
        climbing = next(part for part in found if part.name == "nonlinear fine-tuning")
        found.append(replace(climbing, name="gradient ascent"))
    if "random" in config.baselines:
        found.append(Part("random vectors", sum(part.passes for part in edits), forward))
    spread = config.map.points**2 * config.map.n_eval
    mapped = 2 * len(config.map.pairs) * spread
    found += [Part(f"{view.label}: maps".lower(), mapped, forward) for view in views]
    affine = 2 + len(added) - len(stepped)  # post-hoc and linear
    outputs = affine * (whole + control + control_test)
    found.append(Part(f"affine outputs of {affine} methods", outputs, affine_flops(config)))
    along = len(config.merges) * affine * whole
    if along:
        found.append(Part("affine outputs of merges", along, affine_flops(config, 1)))
    return found


def seen(config: CompareConfig, recipe: TrainConfig, train: np.ndarray) -> float:
    """Examples that fine-tuning on every task sees."""
    passes = [config.epochs.get(name, recipe.epochs) for name in config.data.tasks]
    return float(
        sum(
            recipe.steps * recipe.batch_size if p is None else p * n
            for p, n in zip(passes, train, strict=True)
        )
    )


def method_parts(config: CompareConfig, name: str, train: np.ndarray) -> list[Part]:
    """Fine-tuning by a method: steps as of its regime, of all leaves, and its penalties."""
    told: Any = METHODS[name].train
    if told is None:
        return []
    regime: Regime = told.keywords.get("regime", "nonlinear")
    recipe = config.recipes.get(name, getattr(config, regime))
    examples = seen(config, recipe, train)
    own = "" if told.func is fine_tune else f", counted as {regime} steps"
    found = [Part(f"{name} fine-tuning{own}", examples, step_flops(config, regime), True)]
    for penalty in told.keywords.get("penalties", ()):
        how = penalty.keywords
        others = len(config.data.tasks) - 1 + bool(how.get("control"))
        if penalty.func is tau_jp.of_others:
            batch = how.get("batch_size", tau_jp.BATCH) * (1 if how["in_turn"] else others)
            share = examples * batch / recipe.batch_size
            found.append(Part(f"{name}: others' images", share, norms_flops(config), True))
        elif penalty.func is tak.of_others:
            terms = others if how["exact"] else 1
            steps = examples / recipe.batch_size
            found.append(Part(f"{name}: factors, a step", terms * steps, factors_flops(config)))
        else:
            found.append(Part(f"{name}: a penalty that is not counted", 0, 0))
    return found


def norms_flops(config: CompareConfig) -> float:
    """Operations an image of the gradient of τJp's penalty."""
    f, params = encoder(config)
    tau, batch = tree.flatten(params), images(config, 16)

    def gradient(tau: dict[str, Array], params: Params, x: Array) -> Any:
        return jax.grad(lambda tau: tau_jp.norms(f, params, tau, [(x,)], x))(tau)

    return cost.count_flops(gradient, tau, params, batch) / batch.shape[0]


def factors_flops(config: CompareConfig) -> float:
    """Operations of A ΔW B over the matrices that TAK moves, which value and gradient share."""
    flat, still = tree.flatten(encoder(config)[1]), tree.finder(tak.FROZEN)
    kernels = (x.shape for n, x in flat.items() if n.endswith("kernel") and not still(n))
    return float(sum(2 * np.prod(shape) * sum(shape[-2:]) for shape in kernels))


def main(
    preset: str = "vit_b32",
    utilisation: float = 0.4,
    compiled: bool = False,
    methods: tuple[str, ...] = (),
    merges: tuple[str, ...] = (),
) -> None:
    """Print the table.

    Args:
        preset: of ``experiments.compare``.
        methods: beside the preset's; all leaves are counted, whichever a method trains.
        merges: beside the preset's.
        utilisation: share of the peak that is reached.
        compiled: also compile the steps, for their memory.

    Raises:
        ConfigError: no such preset.
    """
    require(preset in COMPARE, "preset", preset, f"known: {', '.join(COMPARE)}")
    config = COMPARE[preset]()
    config = replace(config, methods=config.methods + methods, merges=config.merges + merges)
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
