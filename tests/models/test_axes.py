"""Logical axes: of every leaf of every transformer, told by sizes that no two axes share."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linearize import tree
from linearize.models import axes, clip, vit
from linearize.models.language import encoder, gpt2, llama, t5
from linearize.train.mesh import MeshConfig, Placement

BLOCKS = {"depth": 2, "width": 24, "hidden": 40, "scan": True}
WORDS = {**BLOCKS, "vocabulary": 50}
TOKENS = jnp.zeros((1, 2), jnp.int32)
SEEN = (TOKENS, TOKENS == 0)
EVERY = {"layers": 2, "embed": 24, "mlp": 40, "vocabulary": 50}
MODELS = {
    "gpt2": (
        gpt2.GPT2Decoder(**WORDS, heads=3, context=14, tied=False),
        (TOKENS,),
        {"heads": {24, 72}, "...": 14},
    ),
    "llama and gemma": (
        llama.Decoder(
            **WORDS,
            context=14,
            heads=4,
            shared=2,
            head_width=8,
            tied=False,
            attention_bias=True,
            out_bias=True,
            mlp_bias=True,
            head_norms=True,
            post_norms=True,
        ),
        (TOKENS,),
        {"heads": {32, 16}, "head_width": 8},
    ),
    "bert, roberta, minilm and mpnet": (
        encoder.Encoder(**WORDS, heads=4, positions=14, types=2, buckets=6, pooler=True),
        SEEN,
        {"heads": {24, 4}, "positions": {14, 2}, "buckets": 6, "features": 24},
    ),
    "t5": (
        t5.T5(**WORDS, decoder_depth=2, heads=4, head_width=8, buckets=6, gated=True, tied=False),
        (*SEEN, TOKENS),
        {"heads": {32, 4}, "buckets": 6},
    ),
    "vit": (
        vit.ViT(
            28,
            **BLOCKS,
            heads=3,
            patch=14,
            grid=2,
            pooling="class_token",
            projection=10,
            pre_norm=True,
        ),
        (np.zeros((1, 28, 28, 3), np.uint8),),
        {"heads": {24, 72}, "...": 2, "pixels": 588, "features": 10},
    ),
    "clip's text": (
        clip.TextTower(**WORDS, heads=3, context=14, projection=10),
        (TOKENS,),
        {"heads": {24, 72}, "...": 14, "features": 10},
    ),
}


def whole(module, *inputs):
    hidden = module(*inputs)
    return module.logits(hidden) if hasattr(module, "logits") else hidden


@pytest.mark.parametrize("name", MODELS)
def test_axes_are_those_of_every_leaf(name):
    """Each is found by one pattern; and a split axis splits the leaves that have it, no others."""
    module, inputs, own = MODELS[name]
    sizes = {a: s if isinstance(s, set) else {s} for a, s in (EVERY | own).items()}
    key = jax.random.key(0)
    shapes = jax.eval_shape(lambda: module.init(key, *inputs, method=whole))["params"]
    leaves, told = tree.flatten(shapes), {}
    for leaf, x in leaves.items():
        (found,) = (each for pattern, each in axes.AXES if re.search(pattern, leaf))
        stacked = ("layers",) * ("blocks/" in leaf)
        rest = x.ndim - len(stacked) - len(found) + 1
        told[leaf] = [*stacked, *(a for a in found for _ in range(rest if a == "..." else 1))]
        assert len(told[leaf]) == x.ndim, leaf
        for axis, size in zip(told[leaf], x.shape, strict=True):
            assert size in sizes[axis], (leaf, axis)
    there = {axis for each in told.values() for axis in each}
    assert there >= own.keys() | {"layers", "embed", "mlp"}
    for axis in there - {"..."}:
        rules = axes.sharding_rules({axis: "model"}, scan=True)
        mesh = MeshConfig(axes=(("model", 2),), batch_axes=(), rules=rules)
        for leaf, placed in Placement.make(mesh).of(leaves).items():
            split = ["model" if a == axis else None for a in told[leaf]]
            assert list(placed.spec) == (split if "model" in split else []), (leaf, axis)


def test_an_axis_that_no_leaf_has_is_named():
    with pytest.raises(ValueError, match="depth; there are"):
        axes.sharding_rules({"depth": "model"})
