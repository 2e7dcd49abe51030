"""CLIP's image preprocessing on the host, up to bytes: the model subtracts mean and deviation."""

import io
import math

import numpy as np
from PIL import Image

from linearize.data.images import to_rgb

VERSION = 1
"""Raised whenever the pixels of :func:`clip_image` change."""

SCALE = (0.9, 1.0)
RATIO = (3 / 4, 4 / 3)
_ATTEMPTS = 10

READ_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises for bytes that are no image or end too early."""


def open_image(content: bytes | np.ndarray) -> Image.Image:
    """An RGB image from a file's bytes, or from an (H, W), (H, W, 1) or (H, W, 3) uint8 array.

    Raises:
        OSError: or another of ``READ_ERRORS`` where the bytes do not decode.
    """
    if isinstance(content, np.ndarray):
        grey = content[..., 0] if content.ndim == 3 and content.shape[-1] == 1 else content
        return to_rgb(Image.fromarray(grey))
    with Image.open(io.BytesIO(content)) as image:
        return to_rgb(image)


def clip_image(image: Image.Image, size: int) -> np.ndarray:
    """(size, size, 3) uint8: the shorter side to ``size``, bicubic, and the centre of that.

    Pixel for pixel what transformers' ``CLIPImageProcessor`` does before it rescales. torchvision's
    ``CenterCrop``, which open_clip calls, rounds half a pixel to even instead of down, so its crop
    lies one pixel further where the longer side exceeds ``size`` by 3, 7, 11, ...

    >>> clip_image(Image.new("RGB", (60, 40), (255, 0, 0)), 8)[0, 0].tolist()
    [255, 0, 0]
    """
    width, height = image.size
    short, long = min(width, height), max(width, height)
    longer = int(size * long / short)
    shape = (size, longer) if width <= height else (longer, size)
    image = image.resize(shape, Image.Resampling.BICUBIC)
    left, top = (shape[0] - size) // 2, (shape[1] - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))


def random_crop(image: Image.Image, size: int, rng: np.random.Generator) -> np.ndarray:
    """(size, size, 3) uint8: open_clip's training transform, torchvision's ``RandomResizedCrop``.

    A rectangle of 90 to 100 % of the area, its logarithmic aspect ratio uniform between 3:4 and
    4:3, at a uniform place, resized bicubically. Where ten draws give none that fits inside the
    image, the largest centred one of an admitted ratio is taken.
    """
    # cropped first, as torchvision does: Pillow's own ``box`` would look over the rectangle's edge
    cropped = image.crop(crop_box(image.width, image.height, rng))
    return np.asarray(cropped.resize((size, size), Image.Resampling.BICUBIC))


def crop_box(width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """The rectangle of :func:`random_crop` as left, top, right, bottom."""
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    for _ in range(_ATTEMPTS):
        area = width * height * rng.uniform(*SCALE)
        ratio = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    ratio = min(max(width / height, RATIO[0]), RATIO[1])
    w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
