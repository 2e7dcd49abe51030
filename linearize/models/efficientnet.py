"""EfficientNet-Lite0 (Tan & Le 2019, arXiv 1905.11946; the Lite variant of Google's TPU models).

Inverted residual blocks without squeeze-and-excitation, ReLU6, batch normalisation in evaluation
mode. Padding is TensorFlow's "SAME", as the weights were trained.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from linearize.models import images as image_ops
from linearize.models.key_map import Rule, rename
from linearize.types import Array

MEAN = (127.0, 127.0, 127.0)
STD = (128.0, 128.0, 128.0)
OUTPUTS = ("features", "logits")


class Stage(NamedTuple):
    """One inverted residual block: kernel side, stride, expansion and width."""

    kernel: int
    stride: int
    expand: int
    width: int


def _repeat(n: int, kernel: int, stride: int, expand: int, width: int) -> tuple[Stage, ...]:
    rest = Stage(kernel, 1, expand, width)
    return (Stage(kernel, stride, expand, width), *(rest for _ in range(n - 1)))


LITE0: tuple[Stage, ...] = (
    *_repeat(1, 3, 1, 1, 16),
    *_repeat(2, 3, 2, 6, 24),
    *_repeat(2, 5, 2, 6, 40),
    *_repeat(3, 3, 2, 6, 80),
    *_repeat(3, 5, 1, 6, 112),
    *_repeat(4, 5, 2, 6, 192),
    *_repeat(1, 3, 1, 6, 320),
)


class InvertedResidual(nn.Module):
    """Expand (1x1), depthwise, project (1x1); the input is added where the shape allows."""

    stage: Stage
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel, stride, expand, width = self.stage
        inner = x.shape[-1] * expand
        y = x
        if expand != 1:
            y = _conv(inner, 1, self.dtype, "expand")(y)
            y = relu6(_norm(self.dtype, "expand_norm")(y))
        y = _conv(inner, kernel, self.dtype, "depthwise", stride, groups=inner)(y)
        y = relu6(_norm(self.dtype, "depthwise_norm")(y))
        y = _norm(self.dtype, "project_norm")(_conv(width, 1, self.dtype, "project")(y))
        return x + y if stride == 1 and x.shape[-1] == width else y


class EfficientNetLite(nn.Module):
    """``(B, H, W, 3) uint8 -> (B, D) float32``.

    Attributes:
        image_size: side in pixels.
        depth: number of blocks taken. All 16 are followed by the 1280-channel head; fewer are
            averaged over the image as they are.
        output: ``"features"`` (averaged over the image) or ``"logits"`` (1000 ImageNet classes).
        dtype: of the computation; parameters stay in float32, and so does the mean.
    """

    image_size: int
    depth: int = len(LITE0)
    output: str = "features"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Array) -> Array:
        x = image_ops.prepare(images, self.image_size, MEAN, STD).astype(self.dtype)
        x = relu6(_norm(self.dtype, "stem_norm")(_conv(32, 3, self.dtype, "stem", 2)(x)))
        for i, stage in enumerate(LITE0[: self.depth]):
            x = InvertedResidual(stage, self.dtype, name=f"block_{i}")(x)
        if self.depth == len(LITE0):
            x = relu6(_norm(self.dtype, "head_norm")(_conv(1280, 1, self.dtype, "head")(x)))
        x = x.astype(jnp.float32).mean(axis=(1, 2))
        return x if self.output == "features" else nn.Dense(1000, name="classifier")(x)


def relu6(x: Array) -> Array:
    """``min(max(x, 0), 6)`` with derivative 0 at 0."""
    return jnp.minimum(nn.relu(x), jnp.asarray(6, x.dtype))


def _conv(
    width: int, kernel: int, dtype: Any, name: str, stride: int = 1, groups: int = 1
) -> nn.Conv:
    return nn.Conv(
        width,
        (kernel, kernel),
        (stride, stride),
        padding="SAME",
        use_bias=False,
        feature_group_count=groups,
        dtype=dtype,
        name=name,
    )


def _norm(dtype: Any, name: str) -> nn.BatchNorm:
    return nn.BatchNorm(use_running_average=True, epsilon=1e-3, dtype=dtype, name=name)


def _kernel(x: np.ndarray) -> np.ndarray:
    return x.transpose(2, 3, 1, 0)


_KINDS = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
_NORMS = {
    r"_bn0": "stem_norm",
    r"_bn1": "head_norm",
    r"_blocks\.(\d+)\._bn0": r"block_\1/expand_norm",
    r"_blocks\.(\d+)\._bn1": r"block_\1/depthwise_norm",
    r"_blocks\.(\d+)\._bn2": r"block_\1/project_norm",
}
RULES: tuple[Rule, ...] = (
    (r".*\.num_batches_tracked", None, None),
    (r"_conv_stem\.weight", "stem/kernel", _kernel),
    (r"_conv_head\.weight", "head/kernel", _kernel),
    (r"_blocks\.(\d+)\._expand_conv\.weight", r"block_\1/expand/kernel", _kernel),
    (r"_blocks\.(\d+)\._depthwise_conv\.weight", r"block_\1/depthwise/kernel", _kernel),
    (r"_blocks\.(\d+)\._project_conv\.weight", r"block_\1/project/kernel", _kernel),
    (r"_fc\.weight", "classifier/kernel", np.transpose),
    (r"_fc\.bias", "classifier/bias", None),
    *(
        (rf"{theirs}\.{kind}", f"{ours}/{_KINDS[kind]}", None)
        for theirs, ours in _NORMS.items()
        for kind in _KINDS
    ),
)


def convert(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Leaves of :class:`EfficientNetLite` with the classifier, keyed by name.

    The first block does not expand: its two norms, which torch calls ``_bn1`` and ``_bn2``, keep
    their meaning. Batch statistics are among the leaves, ``.../mean`` and ``.../var``.
    """
    return {name: np.ascontiguousarray(x) for name, x in rename(tensors, RULES).items()}
