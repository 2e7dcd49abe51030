"""What a step of linear fine-tuning costs each of many devices: counted, nothing is run.

    python -m experiments.meshes --model clip_l14 --devices 8 64 256

For each number of devices and each mesh the step that :func:`linearize.train.fine_tune` takes is
compiled for so many virtual devices of this machine, from shapes alone. Its text tells the matrix
products of a device and what devices send one another (on rings); XLA tells what a device holds.
The batch grows with the devices (weak scaling). Everything is float32, and XLA for CPUs reduces
whole gradients where other backends scatter them, so that what is sent is an upper bound.
"""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import tyro
from jax.sharding import Sharding

from experiments import hlo
from linearize import cli, cost, tree
from linearize.choices import one_of
from linearize.config import ConfigError
from linearize.config.files import require
from linearize.losses import cross_entropy
from linearize.models import clip, vit
from linearize.models.language import LANGUAGE
from linearize.objectives import CausalLM
from linearize.report import terminal
from linearize.train import MeshConfig, OptimConfig
from linearize.train.mesh import Placement
from linearize.train.step import Callables, Recipe, programs

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Counts:
    """Of one model on one mesh, a device."""

    model: str
    mesh: str
    devices: int
    batch: int
    """Examples a device."""
    products: float
    """Operations in matrix products."""
    share: float
    """What one device alone would take for its examples, of that: 1 is linear scaling."""
    state: float
    """Bytes of θ0, τ, the optimizer's moments and the batch."""
    temporary: float
    """Bytes of the step's temporaries, as XLA for CPUs lays them out."""
    sent: float
    """Bytes sent in a step."""
    kinds: Mapping[str, float]
    """The same by kind of collective."""


@dataclass(frozen=True)
class Sized:
    """A model by its shapes alone."""

    module: nn.Module
    inputs: Mapping[str, tuple[tuple[int, ...], Any]]
    """Shape and dtype of an example's."""
    labels: tuple[int, ...]
    """Shape of an example's."""
    loss: Callable[..., Any]
    batch: int
    """Examples a device."""
    whole: Callable[..., Any] = lambda module, *inputs: module(*inputs)
    """The model's outputs, of the module."""

    def examples(self, count: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of so many."""
        found = {
            name: jax.ShapeDtypeStruct((count, *shape), dtype)
            for name, (shape, dtype) in self.inputs.items()
        }
        return found | {"labels": jax.ShapeDtypeStruct((count, *self.labels), jnp.int32)}

    def params(self) -> Any:
        """Shapes of θ0."""
        example = self.examples(1)
        init = nn.init(self.whole, self.module)
        key = jax.eval_shape(lambda: jax.random.key(0))
        return jax.eval_shape(init, key, *(example[name] for name in self.inputs))["params"]

    def f(self, params: Any, *inputs: Any) -> Any:
        """The model."""
        return nn.apply(self.whole, self.module)({"params": params}, *inputs)


def clip_l14() -> Sized:
    """CLIP L/14's image encoder, 304 M; features stand for logits, and no head is counted."""
    fields = clip.VISION["clip_vit_l14"]
    return Sized(
        vit.ViT(image_size=224, **fields, scan=True, remat="full"),
        {"images": ((224, 224, 3), jnp.uint8)},
        (),
        _cross_entropy,
        batch=16,
    )


def decoder(name: str, length: int, batch: int) -> Sized:
    """A decoder on rows of so many tokens."""
    family = LANGUAGE[name]
    fields = family.configure(family.config, name)
    return Sized(
        family.module(**fields, scan=True, remat="full"),
        {"tokens": ((length,), jnp.int32)},
        (length,),
        CausalLM().loss,
        batch,
        _logits,
    )


def _cross_entropy(outputs: Any, batch: Any) -> Any:
    return cross_entropy(outputs, batch["labels"])


def _logits(module: Any, tokens: Any) -> Any:
    return module.logits(module(tokens))


MODELS: Mapping[str, Callable[[], Sized]] = {
    "clip_l14": clip_l14,
    "smollm2_1.7b": partial(decoder, "smollm2_1.7b", 1024, 2),
    "toy_decoder": partial(decoder, "toy_decoder", 32, 2),
}
MESHES: Mapping[str, MeshConfig] = {
    "data": MeshConfig.data_parallel(),
    "fsdp": MeshConfig.fsdp(),
    "hybrid": MeshConfig(
        axes=(("group", -1), ("shard", 8)),
        batch_axes=("group", "shard"),
        rules=((".*", "...,shard"),),
    ),
}
"""The whole model on every device; a share of each leaf; a share among eight, groups beside each
other."""


def main(
    model: str = "clip_l14",
    devices: tuple[int, ...] = (8, 64, 256),
    mesh: tuple[str, ...] = ("data", "fsdp", "hybrid"),
    batch: int | None = None,
    out: Path | None = None,
) -> None:
    """Count, and print a table.

    Args:
        model: ``clip_l14``, ``smollm2_1.7b``, or ``toy_decoder``.
        devices: numbers of them.
        mesh: ``data`` (every device holds the whole model), ``fsdp`` (a share of each leaf), or
            ``hybrid`` (a share among eight neighbours, whole groups of eight beside each other).
        batch: examples a device; 16 images or 2 rows of 1,024 tokens by default.
        out: a JSON file for the numbers.
    """
    with cli.reporting():
        one_of("--model", model, MODELS, ConfigError)
        for name in mesh:
            one_of("--mesh", name, MESHES, ConfigError)
        for value in (*devices, *(() if batch is None else (batch,))):
            require(
                value > 0, "--devices" if value in devices else "--batch", value, "give 1 or more"
            )
        found: list[Counts] = []
        for count in devices:
            log.info("%s on %d devices", model, count)
            found += [_apart(model, each, count, batch) for each in mesh]
        rows = [
            [
                each.mesh,
                f"{each.devices}",
                f"{each.products / 1e12:.2f}",
                f"{100 * each.share:.1f} %",
                f"{each.state / 1e9:.2f}",
                f"{each.temporary / 1e9:.2f}",
                f"{each.sent / 1e9:.2f}",
            ]
            for each in found
        ]
        head = ["mesh", "devices", "TFLOP", "of linear", "state, GB", "temporary, GB", "sent, GB"]
        title = f"{model}, {found[0].batch} examples a device"
        terminal.show(terminal.console(), title, terminal.Grid.plain(head, rows, numbers=1))
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps([asdict(each) for each in found], indent=1) + "\n")


def _apart(model: str, mesh: str, devices: int, batch: int | None) -> Counts:
    """In a process of its own, which begins with so many devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    code = f"from experiments import meshes; meshes.tell({model!r}, {mesh!r}, {batch!r})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:  # it has said why
        raise SystemExit(done.returncode)
    return Counts(**json.loads(done.stdout.splitlines()[-1]))


def tell(model: str, mesh: str, batch: int | None) -> None:
    """Print the counts of all devices that this process has, as JSON."""
    with cli.reporting():
        print(json.dumps(asdict(counted(model, mesh, batch))))


def counted(model: str, mesh: str, batch: int | None = None) -> Counts:
    """Of a mesh of all devices.

    Raises:
        ConfigError: there is no such model or mesh.
    """
    row = MODELS[one_of("model", model, MODELS, ConfigError)]()
    config = MESHES[one_of("mesh", mesh, MESHES, ConfigError)]
    own = batch or row.batch
    try:
        place = Placement.make(config)
    except ValueError as error:
        raise ConfigError(f"mesh={mesh!r}: {error}") from error
    step, alone = lowered(row, place, own)
    compiled = step.compile()
    told, memory = hlo.count(compiled.as_text()), compiled.memory_analysis()
    assert memory is not None
    return Counts(
        model=model,
        mesh=mesh,
        devices=jax.device_count(),
        batch=own,
        products=told.flops,
        share=alone / told.flops,
        state=memory.argument_size_in_bytes,
        temporary=memory.temp_size_in_bytes,
        sent=told.exchanged,
        kinds=told.sent,
    )


def lowered(row: Sized, place: Placement, own: int) -> tuple[Any, float]:
    """The step of linear fine-tuning on a mesh, and one device's operations.

    Args:
        row: the model.
        place: its mesh.
        own: examples a device.

    Returns:
        ``jax.stages.Lowered``, and how many operations in matrix products the step of ``own``
        examples has on one device.
    """
    shapes, optim = row.params(), OptimConfig(lr=1e-5, warmup=10)
    split, _ = Callables.of({"f": row.f, "loss": row.loss, "readout": None, "augment": None})
    recipe = Recipe(split, "linear", tuple(row.inputs), optim, 1, 0.0, False, True)
    names = tuple(tree.flatten(shapes))
    state = jax.eval_shape(lambda params: recipe.init(params, 1000, names), shapes)
    leaves = place.of(shapes)
    layout = place.of_state(state, leaves)

    def shaped(arrays: Any, where: Any) -> Any:
        each = jax.tree.broadcast(where, arrays, is_leaf=lambda x: isinstance(x, Sharding))
        return jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), arrays, each
        )

    batch = row.examples(own * place.ways)
    key = jax.eval_shape(lambda: jax.random.key(0))
    total = jax.ShapeDtypeStruct((), jnp.int32)
    where: dict[str, Any] = dict(leaves)
    fixed = {
        "params0": shaped(shapes, tree.update(shapes, where)),
        "arrays": [],
        **shaped({"total": total, "key": key}, place.replicated),
    }
    given = (shaped(state, layout), fixed, shaped(batch, place.batch))
    each, structure = jax.tree.flatten(layout)
    step: Any = programs(recipe, place, (structure, tuple(each)), 1, True).step
    one = Placement(MeshConfig(), None)
    alone = cost.count_flops(
        partial(recipe.step, place=one), state, {**fixed, "params0": shapes}, row.examples(own)
    )
    return step.lower(*given), float(alone)


if __name__ == "__main__":
    tyro.cli(main)
