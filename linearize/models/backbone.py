"""An image encoder of :func:`linearize.models.load`: a model, and what its weights say of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from linearize.models.model import Model
from linearize.types import Params


class WeightsError(ValueError):
    """A file of weights that cannot be used: unreadable, of another model, or not finite."""


@dataclass(frozen=True, eq=False)
class Backbone(Model):
    """A model ``f(params, images (B, H, W, 3) uint8) -> features (B, feature_dim) float32``.

    Resizing to ``image_size`` and normalisation happen inside; ``params`` are float32. The facts
    below are read from ``about``.
    """

    @property
    def image_size(self) -> int:
        """Side in pixels of the square images that the network sees."""
        return self.about["image_size"]

    @property
    def feature_dim(self) -> int:
        """Width of the output."""
        return self.about["feature_dim"]

    @property
    def batch_stats(self) -> Mapping[str, Params] | None:
        """The batch statistics that ``f`` holds fixed (evaluation mode), if any."""
        return self.about.get("batch_stats")

    @property
    def kind(self) -> str:
        """``"clip"``, ``"vit"`` or ``"dinov2"`` of models whose weights others read and write."""
        return self.about.get("kind", "")

    @property
    def architecture(self) -> Mapping[str, Any] | None:
        """The fields of such a model."""
        return self.about.get("architecture")

    @property
    def weights(self) -> Path | None:
        """The file that others wrote and θ0 was read from, if any."""
        return self.about.get("weights")
