"""Networks for kernels, in jax.numpy alone, with weights and inputs drawn by NumPy from a seed.

They run unchanged under the old jax of neural-tangents and under ours, so that both sides of a
comparison take the kernel of the same function at the same point without anything being stored.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

OUTPUTS = 10

Params = dict[str, Any]


class Network(NamedTuple):
    """``f(params, x)``, its parameters as NumPy arrays of float64, and inputs ``draw(n, seed)``."""

    f: Callable[[Any, Any], Any]
    params: Params
    draw: Callable[[int, int], np.ndarray]


def cast(params: Params, dtype: Any) -> Params:
    """Parameters as jax arrays of a dtype."""
    return jax.tree_util.tree_map(lambda leaf: jnp.asarray(leaf, dtype), params)


def mlp(width: int, depth: int, features: int = 64, outputs: int = OUTPUTS) -> Network:
    """``depth`` hidden layers with biases and ReLU."""
    rng = np.random.default_rng(0)
    sizes = [features, *[width] * depth]
    params = {f"layer_{i}": _dense(rng, a, b) for i, (a, b) in enumerate(pairwise(sizes))}
    params["head"] = _dense(rng, width, outputs)

    def f(params: Params, x: Any) -> Any:
        for i in range(depth):
            x = jax.nn.relu(_affine(params[f"layer_{i}"], x))
        return _affine(params["head"], x)

    return Network(f, params, lambda n, seed: _normal(seed, n, features))


def cnn(side: int, widths: tuple[int, ...] = (32, 64, 64), outputs: int = OUTPUTS) -> Network:
    """3 x 3 convolutions of stride 1, 2, 2, ..., ReLU, average pooling by 2, mean over places."""
    rng = np.random.default_rng(1)
    params: Params = {}
    channels = 3
    for i, width in enumerate(widths):
        kernel = rng.normal(size=(3, 3, channels, width)) * (2 / (9 * channels)) ** 0.5
        params[f"conv_{i}"] = {"kernel": kernel, "bias": 0.1 * rng.normal(size=width)}
        channels = width
    params["head"] = _dense(rng, channels, outputs)

    def f(params: Params, x: Any) -> Any:
        for i in range(len(widths)):
            layer, stride = params[f"conv_{i}"], 1 if i == 0 else 2
            x = lax.conv_general_dilated(
                x,
                layer["kernel"],
                (stride, stride),
                "SAME",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            x = jax.nn.relu(x + layer["bias"].reshape(1, 1, 1, -1))
        x = lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4
        return _affine(params["head"], x.mean((1, 2)))

    return Network(f, params, lambda n, seed: _normal(seed, n, side, side, 3))


def vit(
    side: int,
    patches: int = 8,
    width: int = 64,
    depth: int = 4,
    heads: int = 4,
    outputs: int = OUTPUTS,
) -> Network:
    """Pre-norm blocks on ``patches`` x ``patches`` tokens, mean over tokens, a dense head."""
    rng = np.random.default_rng(2)
    patch = side // patches
    tokens = patches * patches
    params: Params = {
        "embedding": _dense(rng, 3 * patch * patch, width),
        "positions": 0.5 * rng.normal(size=(tokens, width)),
        "norm": _norm_params(rng, width),
        "head": _dense(rng, width, outputs),
    }
    for i in range(depth):
        params[f"block_{i}"] = {
            "norm_1": _norm_params(rng, width),
            "qkv": _dense(rng, width, 3 * width),
            "out": _dense(rng, width, width),
            "norm_2": _norm_params(rng, width),
            "mlp_in": _dense(rng, width, 4 * width),
            "mlp_out": _dense(rng, 4 * width, width),
        }

    def f(params: Params, x: Any) -> Any:
        n = x.shape[0]
        x = x.reshape(n, patches, patch, patches, patch, 3).transpose(0, 1, 3, 2, 4, 5)
        x = _affine(params["embedding"], x.reshape(n, tokens, 3 * patch * patch))
        x = x + params["positions"][None]
        for i in range(depth):
            block = params[f"block_{i}"]
            x = x + _attention(block, _normalize(block["norm_1"], x), heads)
            y = _affine(block["mlp_in"], _normalize(block["norm_2"], x))
            x = x + _affine(block["mlp_out"], jax.nn.gelu(y))
        return _affine(params["head"], _normalize(params["norm"], x).mean(1))

    return Network(f, params, lambda n, seed: _normal(seed, n, side, side, 3))


def words(vocabulary: int = 11, length: int = 5, width: int = 6, outputs: int = 2) -> Network:
    """A look-up, one tanh layer, mean over places, a head: ``x`` are integers (N, length)."""
    rng = np.random.default_rng(3)
    params = {
        "table": rng.normal(size=(vocabulary, width)),
        "layer": _dense(rng, width, width),
        "head": _dense(rng, width, outputs),
    }

    def f(params: Params, x: Any) -> Any:
        x = jnp.tanh(_affine(params["layer"], params["table"][x]))
        return _affine(params["head"], x.mean(1))

    def draw(n: int, seed: int) -> np.ndarray:
        return np.random.default_rng([4, seed]).integers(0, vocabulary, (n, length), np.int32)

    return Network(f, params, draw)


def _normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng([4, seed]).normal(size=shape)


def _dense(rng: np.random.Generator, inputs: int, outputs: int) -> Params:
    kernel = rng.normal(size=(inputs, outputs)) * (2 / inputs) ** 0.5
    return {"kernel": kernel, "bias": 0.1 * rng.normal(size=outputs)}


def _affine(layer: Params, x: Any) -> Any:
    return x @ layer["kernel"] + layer["bias"].reshape((1,) * (x.ndim - 1) + (-1,))


def _norm_params(rng: np.random.Generator, width: int) -> Params:
    return {"scale": 1 + 0.1 * rng.normal(size=width), "bias": 0.1 * rng.normal(size=width)}


def _normalize(layer: Params, x: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    unit = centred * lax.rsqrt((centred * centred).mean(-1, keepdims=True) + 1e-6)
    return unit * layer["scale"].reshape(1, 1, -1) + layer["bias"].reshape(1, 1, -1)


def _attention(block: Params, x: Any, heads: int) -> Any:
    n, tokens, width = x.shape
    qkv = _affine(block["qkv"], x).reshape(n, tokens, 3, heads, width // heads)
    query, key, value = (qkv[:, :, i].transpose(0, 2, 1, 3) for i in range(3))
    scores = query @ key.transpose(0, 1, 3, 2) / (width // heads) ** 0.5
    y = (jax.nn.softmax(scores, -1) @ value).transpose(0, 2, 1, 3)
    return _affine(block["out"], y.reshape(n, tokens, width))
