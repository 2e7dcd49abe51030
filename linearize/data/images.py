"""Images of any kind to uint8 RGB squares."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

Colour = tuple[int, int, int]

THUMBNAIL = 14
"""Side of the thumbnails that near-duplicates are found with, in pixels."""


class UnknownScaleError(ValueError):
    """An image whose numbers do not say which of them is white."""


def to_rgb(image: Image.Image, background: Colour = (255, 255, 255)) -> Image.Image:
    """8-bit RGB; transparency is laid over ``background``.

    Grey of 12 or 16 bits is scaled so that its largest number is white. Pillow has cut colour of 16
    bits to the upper 8 itself.

    Raises:
        UnknownScaleError: floats, 32-bit integers and L*a*b*, which have no agreed white.
    """
    image = _eight_bits(image)
    if image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        front = image.convert("RGBA")
        back = Image.new("RGBA", front.size, (*background, 255))
        return Image.alpha_composite(back, front).convert("RGB")
    return image.convert("RGB")


def upright_rgb(image: Image.Image, background: Colour = (255, 255, 255)) -> Image.Image:
    """As :func:`to_rgb`, turned and mirrored as EXIF says."""
    plain = to_rgb(image, background)
    plain.info.clear()
    plain.getexif()[_ORIENTATION] = image.getexif().get(_ORIENTATION, 1)
    return ImageOps.exif_transpose(plain)


_ORIENTATION, _BITS, _PHOTOMETRIC = 0x0112, 258, 262


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of more than 8 bits as grey of 8, its transparency kept; all else as it is."""
    grey16 = image.mode.startswith("I;16")
    # Pillow opens 16-bit portable grey maps, and once did PNGs, as 32-bit integers
    if not grey16 and not (image.mode == "I" and image.format in ("PNG", "PPM")):
        if image.mode in ("I", "F", "LAB"):
            raise UnknownScaleError(
                f"its mode is {image.mode!r}: {_NO_SCALE[image.mode]}, whose white is not known; "
                "save it with 8 bits a channel, or as 16-bit grey"
            )
        return image
    tags = getattr(image, "tag_v2", {})
    (bits,) = tags.get(_BITS, (16,))
    wide = np.asarray(image, np.float64)
    opaque = np.where(wide == image.info.get("transparency", -1), 0, 255).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == 0:  # white is 0
        wide = 2**bits - 1 - wide
    grey = np.clip(wide * 255 / (2**bits - 1) + 0.5, 0, 255).astype(np.uint8)
    return Image.fromarray(grey if opaque.all() else np.stack([grey, opaque], -1))


_NO_SCALE = {"I": "32-bit integers", "F": "floats", "LAB": "L*a*b* colour"}


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
