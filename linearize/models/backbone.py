"""What a model is to the rest of the library: a function, its parameters, and a few facts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from linearize.types import Apply, Params


class WeightsError(ValueError):
    """A file of weights that cannot be used: unreadable, of another model, or not finite."""


@dataclass(frozen=True)
class Backbone:
    """A model as ``f(params, images)``, with ``params`` at θ0.

    Attributes:
        name: the name it was loaded by.
        f: ``f(params, images (B, H, W, 3) uint8) -> features (B, feature_dim) float32``; resizing
            to ``image_size`` and normalisation happen inside.
        params: θ0, a nested mapping of float32 arrays.
        image_size: side in pixels of the square images that the network sees.
        feature_dim: width of the output.
        blocks: names of the model's blocks from input to output, each a prefix of its leaves'
            names. A layer-scanned model has the single block ``"blocks"``, stacked on axis 0.
        batch_stats: the batch statistics that ``f`` holds fixed (evaluation mode), if any.
        kind: ``"clip"``, ``"vit"`` or ``"dinov2"`` for models whose weights others read and write.
        architecture: the fields of such a model.
    """

    name: str
    f: Apply
    params: Params
    image_size: int
    feature_dim: int
    blocks: tuple[str, ...]
    batch_stats: Mapping[str, Params] | None = None
    kind: str = ""
    architecture: Mapping[str, Any] | None = None

    def fake_batch(self, batch_size: int, seed: int = 0) -> np.ndarray:
        """Images of noise in the shape that the network sees, (B, S, S, 3) uint8."""
        shape = (batch_size, self.image_size, self.image_size, 3)
        return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)

    def last(self, n: int) -> tuple[str, ...]:
        """Patterns of the last ``n`` blocks, for :func:`linearize.tree.select`.

        Raises:
            ValueError: ``n`` is not between 1 and the number of blocks.
        """
        if not 1 <= n <= len(self.blocks):
            raise ValueError(
                f"n={n}; {self.name} has {len(self.blocks)} block(s) to choose from: "
                f"{', '.join(self.blocks)}"
            )
        return tuple(f"^{re.escape(block)}/" for block in self.blocks[-n:])
