"""Images of any kind to uint8 RGB squares."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

Colour = tuple[int, int, int]

THUMBNAIL = 14
"""Side of the thumbnails that near-duplicates are found with, in pixels."""


def to_rgb(image: Image.Image, background: Colour = (255, 255, 255)) -> Image.Image:
    """RGB; transparency is laid over ``background``; 16-bit grey is scaled to 8 bits."""
    if image.mode.startswith("I"):
        wide = np.asarray(image, np.float64)
        image = Image.fromarray(np.clip(wide / 257 + 0.5, 0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        front = image.convert("RGBA")
        back = Image.new("RGBA", front.size, (*background, 255))
        return Image.alpha_composite(back, front).convert("RGB")
    return image.convert("RGB")


def square(image: Image.Image) -> Image.Image:
    """The largest centred square."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def resize(image: np.ndarray, side: int) -> np.ndarray:
    """Bicubic with antialiasing, (h, w) or (h, w, 3) uint8 to (side, side, ...)."""
    if image.shape[:2] == (side, side):
        return image
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


def resize_all(images: Sequence[np.ndarray], side: int | None) -> np.ndarray:
    """A stack of resized images; ``side=None`` keeps images that have one shape already."""
    return np.stack([np.ascontiguousarray(x) if side is None else resize(x, side) for x in images])


def thumbnails(images: Sequence[np.ndarray]) -> np.ndarray:
    """(N, t, t, ...) uint8 box averages, t at most ``THUMBNAIL``."""
    side = min(THUMBNAIL, *(min(x.shape[:2]) for x in images))
    if all(x.shape[:2] == (2 * side, 2 * side) for x in images):
        whole = np.stack(list(images)).astype(np.uint16)
        blocks = whole.reshape(len(whole), side, 2, side, 2, *whole.shape[3:])
        return ((blocks.sum((2, 4)) + 2) // 4).astype(np.uint8)
    box = Image.Resampling.BOX
    return np.stack([np.asarray(Image.fromarray(x).resize((side, side), box)) for x in images])


def colour(images: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) from grey (N, H, W) or colour."""
    return images if images.ndim == 4 else np.repeat(images[..., None], 3, axis=-1)


def tinted(images: np.ndarray, black: Colour, white: Colour) -> np.ndarray:
    """(N, H, W, 3) colours between those given for 0 and for 255, from grey (N, H, W)."""
    table = np.linspace(black, white, 256).round().astype(np.uint8)
    return table[images]


def decode(content: bytes, background: Colour = (255, 255, 255)) -> np.ndarray:
    """(H, W, 3) uint8 from the bytes of a PNG, JPEG or other file that Pillow reads."""
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(to_rgb(image, background))
