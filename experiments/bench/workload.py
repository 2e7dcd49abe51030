"""What is measured: a ViT, a frozen head, one batch, and the library's training step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from linearize import models, tree
from linearize.models import heads
from linearize.train import step as training
from linearize.train.mesh import Placement
from linearize.train.optim import OptimConfig
from linearize.types import Apply, Array, Params

CLASSES = 10


@dataclass(frozen=True)
class Size:
    """How large, and how often.

    Attributes:
        model: a name of :func:`linearize.models.load`.
        image_size: of the ViT, in pixels.
        blocks: the ViT's first so many.
        batch: examples a step.
        pretrained: the packaged weights, or random ones of the same shapes.
        repeats: timed pairs.
        n_eval: examples a task in the maps.
        grid: points a side of the maps.
        naive_points: grid points of which the pass-per-point side is timed, in either turn.
        large_image_size: where activations outweigh parameters (50 tokens, as in CLIP's B/32):
            of the second row wherever memory is measured.
        kernels: which cases of :mod:`experiments.bench.kernels`: ``"full"`` or ``"tiny"``.
    """

    model: str = "vit_s_focus"
    image_size: int = 28
    blocks: int = 6
    batch: int = 64
    pretrained: bool = True
    repeats: int = 9
    n_eval: int = 128
    grid: int = 21
    naive_points: int = 6
    large_image_size: int = 98
    kernels: str = "full"


FULL = Size()
TINY = Size(
    image_size=14,
    blocks=1,
    batch=4,
    pretrained=False,
    repeats=2,
    n_eval=6,
    grid=3,
    naive_points=2,
    large_image_size=28,
    kernels="tiny",
)


@dataclass(frozen=True)
class Workload:
    """A backbone with a frozen head, and a batch on the device."""

    backbone: models.Backbone
    head: heads.Head
    images: Array
    labels: Array


def workload(size: Size, **options: Any) -> Workload:
    """Random images and labels, and class prototypes of them as the head.

    Args:
        size: which model and batch.
        options: further arguments of :func:`linearize.models.load`, such as ``remat``.
    """
    rng = np.random.default_rng(1)
    chosen = {"image_size": size.image_size, "blocks": size.blocks} | options
    backbone = models.load(size.model, pretrained=size.pretrained, **chosen)
    images = backbone.fake_batch(size.batch)
    labels = rng.integers(0, CLASSES, size.batch, dtype=np.int32)
    kernel = rng.normal(size=(backbone.feature_dim, CLASSES)).astype(np.float32)
    head = heads.Head(
        center=jnp.zeros(backbone.feature_dim),
        kernel=jnp.asarray(kernel / np.linalg.norm(kernel, axis=0)),
        bias=None,
        scale=jnp.asarray(20.0),
        normalize=True,
    )
    return Workload(backbone, head, jax.device_put(images), jax.device_put(labels))


def displacement(params0: Params, seed: int) -> dict[str, Array]:
    """A random τ: each tensor normal, with a twentieth of its own spread, or 0.001 if constant."""
    rng = np.random.default_rng([7, seed])
    return {
        n: jnp.asarray(0.05 * (float(jnp.std(x)) or 0.02) * rng.normal(size=x.shape), jnp.float32)
        for n, x in tree.flatten(params0).items()
    }


OPTIM = OptimConfig(lr=1e-5, schedule="constant", warmup=0, weight_decay=0.0, clip=1.0)


@dataclass
class Step:
    """The library's training step in one regime, with its state."""

    recipe: training.Recipe
    run: Callable[..., Any]
    fixed: dict[str, Any]
    batch: dict[str, Array]
    initial: Callable[[], training.State]
    shapes: training.State
    state: training.State | None = None

    def __call__(self) -> Array:
        """One step, in place; the measured values, still on the device."""
        if self.state is None:
            self.state = self.initial()
        self.state, metrics = self.run(self.state, self.fixed, self.batch)
        return metrics["values"]

    def arguments(self) -> tuple[Any, dict[str, Any], dict[str, Array]]:
        """State, as shapes alone, and the fixed arrays and batch."""
        return self.shapes, self.fixed, self.batch

    def temporaries(self) -> int:
        """Bytes that the compiled step needs beyond its arguments and results."""
        program: Any = self.run
        compiled = program.lower(*self.arguments()).compile()
        return int(compiled.memory_analysis().temp_size_in_bytes)


def train_step(workload: Workload, regime: str, optim: OptimConfig = OPTIM) -> Step:
    """The step of a classifier under its frozen head."""
    return step_of(
        workload.backbone,
        {"inputs": workload.images, "labels": workload.labels},
        regime,
        optim,
        readout=jax.tree_util.Partial(heads.apply_head, workload.head),
    )


def step_of(
    model: models.Model,
    batch: dict[str, Array],
    regime: str,
    optim: OptimConfig = OPTIM,
    *,
    loss: Callable[..., Array] | None = None,
    readout: Callable[..., Array] | None = None,
) -> Step:
    """:mod:`linearize.train.step` as :func:`linearize.train.fine_tune` uses it: AdamW on τ."""
    given = {"f": model.f, "loss": loss, "readout": readout, "augment": None}
    functions, arrays = training.Callables.of(given)
    recipe = training.Recipe(
        functions=functions,
        regime=regime,
        inputs=("inputs",),
        optim=optim,
        accumulate=1,
        label_smoothing=0.0,
        ascend=False,
        own_loss=loss is not None,
    )
    place = Placement.make(None)
    params0 = model.params
    total = jnp.asarray(1_000_000, jnp.int32)
    trainable = tree.select(params0)
    shapes = jax.eval_shape(lambda p, t: recipe.init(p, t, trainable), params0, total)
    layout = place.of_state(shapes, place.of(params0))
    leaves, treedef = jax.tree.flatten(layout)
    in_place = training.overwritten(place, shapes)
    programs = training.programs(recipe, place, (treedef, tuple(leaves)), 1, in_place)
    fixed = {"params0": params0, "arrays": arrays, "total": total, "key": jax.random.key(0)}

    def initial() -> training.State:
        return programs.init(params0, total, trainable)

    return Step(recipe, programs.step, fixed, batch, initial, shapes)


def forward(workload: Workload) -> tuple[Apply, tuple[Any, ...]]:
    """The model's forward pass and its arguments: what the unit F counts."""
    return workload.backbone.f, (workload.backbone.params, workload.images)
