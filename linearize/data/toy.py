"""Toy tasks: gratings at a few angles, drawn here, so that nothing is fetched."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from linearize.data.images import Colour
from linearize.data.sources import Paths, Source

SIDE, EXAMPLES = 14, 600
NOISE = 0.2
"""Standard deviation of the pixels' noise, as a share of the grating's amplitude."""


@dataclasses.dataclass(frozen=True)
class Toy:
    """A task's style.

    Attributes:
        classes: how many angles, spread over 180°.
        period: of the grating, in pixels.
        tint: colours of its dark and its light lines.
    """

    classes: int
    period: float
    tint: tuple[Colour, Colour]

    def read(self, paths: Paths, side: int) -> Source:
        """Gratings of random phase and contrast with noise, the same at each call.

        Args:
            paths: none are needed.
            side: not minded; the images are ``SIDE`` pixels wide.
        """
        rng = np.random.default_rng(self.classes)
        labels = np.arange(EXAMPLES, dtype=np.int32) % self.classes
        angle = (np.pi * labels / self.classes)[:, None, None]
        row, column = np.mgrid[:SIDE, :SIDE]
        along = np.cos(angle) * column + np.sin(angle) * row
        phase, contrast = rng.uniform((0, 0.5), (2 * np.pi, 1), (EXAMPLES, 2)).T[..., None, None]
        wave = contrast * np.sin(2 * np.pi * along / self.period + phase)
        grey = 127.5 + 80 * (wave + NOISE * rng.standard_normal(wave.shape))
        names = tuple(f"{180 * k / self.classes:.0f} degrees" for k in range(self.classes))
        images = list(np.clip(grey, 0, 255).astype(np.uint8))
        return Source(images, labels, names, threshold=0, tint=self.tint)


BLACK, WHITE = (0, 0, 0), (255, 255, 255)
TOYS: Mapping[str, Toy] = {
    "toy_a": Toy(4, 5.0, (BLACK, WHITE)),
    "toy_b": Toy(4, 7.0, ((150, 0, 40), (120, 220, 90))),
    "toy_c": Toy(4, 4.0, (WHITE, (0, 60, 160))),
    "toy_d": Toy(4, 6.0, ((30, 120, 30), (250, 230, 160))),
    "toy_e": Toy(6, 5.0, ((90, 40, 140), (240, 200, 60))),
}
"""By name. All but ``toy_e`` are styles of the same classes."""
