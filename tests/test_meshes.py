"""What a step does on many devices, read off its program, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from experiments import hlo, meshes
from linearize import tree
from linearize.config import ConfigError
from linearize.train.mesh import Placement

DEPTH, WIDTH, ROWS, WAYS = 5, 16, 32, 8
"""Of a stack of layers, a batch, and devices."""


def deep(w, x):
    def layer(h, wi):
        return jnp.tanh(h @ wi), None

    return jnp.mean(jax.lax.scan(layer, x, w)[0] ** 2)


def counted(split):
    """Of its gradient, whose weights are split so."""
    mesh = jax.make_mesh((WAYS,), ("data",), axis_types=(AxisType.Auto,))
    lies = NamedSharding(mesh, split)
    w = jax.ShapeDtypeStruct((DEPTH, WIDTH, WIDTH), "float32", sharding=lies)
    rows = NamedSharding(mesh, PartitionSpec("data"))
    x = jax.ShapeDtypeStruct((ROWS, WIDTH), "float32", sharding=rows)
    return hlo.count(jax.jit(jax.grad(deep), out_shardings=lies).lower(w, x).compile().as_text())


@pytest.mark.slow
def test_loops_count_as_often_as_they_run():
    """Three products a layer: one forward, two backward."""
    size = 4 * DEPTH * WIDTH**2
    ring = (WAYS - 1) / WAYS
    whole = counted(PartitionSpec())
    assert whole.flops == 3 * DEPTH * 2 * (ROWS // WAYS) * WIDTH**2
    assert whole.sent == {"all-reduce": 2 * ring * size}
    split = counted(PartitionSpec(None, "data"))
    assert split.flops == whole.flops
    assert split.sent["all-gather"] in (ring * size, 2 * ring * size)  # kept, or gathered twice
    assert split.exchanged >= 2 * ring * size


@pytest.mark.parametrize(
    ("groups", "ways"),
    [
        ("mesh['axis_0'=4,'axis_1'=2] {'axis_0'}", 4),
        ("mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a','b'}, x={1}", 8),
        ("mesh['a'=8] {'a':(1)4}", 4),
        ("[16,2]<=[32]", 2),
        ("{{0,1,2},{3,4,5}}", 3),
    ],
)
def test_groups_as_xla_writes_them(groups, ways):
    text = (
        "ENTRY %main (p: f32[6]) -> f32[6] {\n  %p = f32[6]{0} parameter(0)\n"
        f"  ROOT %r = f32[6]{{0}} all-reduce(%p), channel_id=1, replica_groups={groups}, "
        "to_apply=%add\n}\n\n%add (a: f32[]) -> f32[] {\n  ROOT %a = f32[] parameter(0)\n}\n"
    )
    assert hlo.count(text).sent == {"all-reduce": 2 * 24 * (ways - 1) / ways}


@pytest.mark.parametrize(
    ("kind", "shape", "sent"),
    [
        ("all-reduce-start", "(f32[6], bf16[4])", 2 * (24 + 8) * 3 / 4),
        ("all-gather-start", "(f32[6], f32[24])", 96 * 3 / 4),
        ("collective-permute-start", "(f32[6], f32[6], u32[], u32[])", 24),
        ("reduce-scatter", "f32[6]", 24 * 3),
    ],
)
def test_what_begins_apart_from_its_end_counts_once(kind, shape, sent):
    text = (
        f"ENTRY %main (p: f32[6]) -> f32[6] {{\n  %r = {shape} {kind}(%p), "
        "replica_groups=[2,4]<=[8]\n"
        f"  ROOT %d = f32[6] {kind.removesuffix('-start')}-done(%r)\n}}\n"
    )
    assert hlo.count(text).exchanged == sent


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        hlo.count("")
    with pytest.raises(ConfigError, match="fsdp"):
        meshes.counted("toy_decoder", "fdsp")
    with pytest.raises(ConfigError, match="toy_decoder"):
        meshes.counted("toy_decoders", "fsdp")


def test_what_a_loop_only_moves_is_counted():
    """In one pass: a transposition, a slice at a place that is not known, and three of them."""

    def bytes_of(body):
        def loop(n, x):
            return jax.lax.while_loop(lambda s: s[0] < n, lambda s: (s[0] + 1, body(*s)), (0, x))[1]

        return hlo.copied(jax.jit(loop).lower(9, jnp.ones((8, 8))).compile().as_text())

    def thrice(_, x):
        return jax.lax.fori_loop(0, 3, lambda _, x: x.T, x)

    assert bytes_of(lambda _, x: 2 * x) == 0
    assert bytes_of(lambda _, x: x.at[0].set(7)) == 0  # in place
    assert bytes_of(lambda _, x: x.T) >= 256
    assert bytes_of(thrice) >= 3 * 256


@pytest.mark.slow
def test_the_step_of_fine_tuning(quick):
    """Data-parallel: nothing but the gradient is sent, and the work is that of one device."""
    found = meshes.counted("toy_decoder", "data")
    shapes = tree.flatten(meshes.MODELS["toy_decoder"]().params())
    own = {name: 4 * leaf.size for name, leaf in shapes.items()}
    assert found.devices == WAYS
    assert found.share == pytest.approx(1, abs=0.02)
    # what is looked up is the head too, and XLA reduces both parts of its gradient
    (tied,) = (size for name, size in own.items() if "embedding" in name)
    sent = 2 * (WAYS - 1) / WAYS * (sum(own.values()) + tied)
    assert sent <= found.sent <= sent + 100  # sums of the loss and the like
    assert found.state >= 4 * sum(own.values())  # θ0, τ and two moments


@pytest.mark.slow
def test_fully_sharded_devices_send_parameters_and_no_activations(quick):
    """θ0 and τ forward and once more backward, and the gradient, at a batch many times larger."""
    shapes = tree.flatten(meshes.MODELS["toy_decoder"]().params())
    own = sum(4 * leaf.size for leaf in shapes.values())
    found = meshes.counted("toy_decoder", "fsdp", 8)
    assert found.sent <= 6 * own + 2 * own  # the head's part of the tied gradient beside it
    assert found.state < own  # of four times as much


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["hybrid"])
def test_a_model_that_says_nothing_of_its_activations(mesh, quick):
    """A user's own: leaves are gathered before it, so that a larger batch sends no more."""
    module = nn.Sequential([nn.Dense(64), nn.tanh, nn.Dense(64), nn.tanh, nn.Dense(8)])
    row = meshes.Sized(module, {"x": ((16,), jnp.float32)}, (), meshes._cross_entropy, 4)
    place = Placement.make(meshes.MESHES[mesh])
    steps = (meshes.lowered(row, place, batch)[0] for batch in (4, 64))
    few, many = (hlo.count(step.compile().as_text()).exchanged for step in steps)
    own = sum(4 * leaf.size for leaf in tree.flatten(row.params()).values())
    assert many == pytest.approx(few, rel=0.01)
    assert many <= 6 * own


@pytest.mark.slow
def test_scanned_blocks_that_say_nothing_of_their_activations(quick):
    """Stacked leaves too are gathered before a model that does not call ``activations.keep``."""

    def f(params, x):
        def block(h, w):
            return h + jnp.tanh(h @ w["up"]) @ w["down"], None

        return jax.lax.scan(block, x, params["blocks"])[0]

    place = Placement.make(meshes.MESHES["fsdp"])
    shapes = {"blocks": {"up": np.ones((DEPTH, 64, 256)), "down": np.ones((DEPTH, 256, 64))}}
    lie = place.of(shapes)

    def sent(rows):
        params = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, "float32", sharding=s),
            shapes,
            tree.update(shapes, lie),
        )
        x = jax.ShapeDtypeStruct((rows, 64), "float32", sharding=place.batch)
        grad = jax.grad(lambda params, x: jnp.mean(place.laid(f)(params, x) ** 2))
        step = jax.jit(grad, out_shardings=tree.update(shapes, lie)).lower(params, x)
        return hlo.count(step.compile().as_text()).exchanged

    assert sent(64 * WAYS) == pytest.approx(sent(WAYS), rel=0.01)
    assert sent(WAYS) <= 4 * 4 * 2 * DEPTH * 64 * 256
