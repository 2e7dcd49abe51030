"""Images on the device are bytes; a model resizes and normalises them as its first operations."""

import jax
import jax.numpy as jnp

from linearize.types import Array


def check(images: Array) -> None:
    """Images are ``(B, H, W, 3) uint8``.

    Raises:
        ValueError: the shape is another.
        TypeError: the dtype is another.
    """
    shape, dtype = jnp.shape(images), jnp.result_type(images)
    if len(shape) != 4 or shape[-1] != 3 or 0 in shape[1:3]:
        hint = ""
        if len(shape) == 3 and shape[-1] == 3:
            hint = "; for one image pass images[None]"
        elif len(shape) == 4 and shape[1] == 3:
            hint = "; channels come last here: transpose to (0, 2, 3, 1)"
        elif len(shape) in (2, 3) or (len(shape) == 4 and shape[-1] == 1):
            hint = "; repeat a grey channel three times on a last axis"
        raise ValueError(f"images has shape {shape}; expected (B, H, W, 3){hint}")
    if dtype != jnp.uint8:
        raise TypeError(
            f"images has dtype {dtype}; expected uint8 from 0 to 255, since models normalise "
            "themselves: pass the bytes as decoded, or round 255 * images first"
        )


def prepare(
    images: Array,
    size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    resample: str = "bilinear",
) -> Array:
    """Square images of the wanted side, ``(pixel - mean) / std`` per channel, float32.

    Args:
        images: ``(B, H, W, 3) uint8``.
        size: side in pixels; other sizes are resized to it, with antialiasing, whatever the aspect
            ratio. Nothing is computed when it fits.
        mean: three numbers on the scale 0 to 255.
        std: likewise.
        resample: ``bilinear`` or ``bicubic``; what a filter puts beyond 0 to 255 is cut, as it is
            where images are bytes.

    Returns:
        ``(B, size, size, 3)`` float32.
    """
    check(images)
    pixels = images.astype(jnp.float32)
    if images.shape[1:3] != (size, size):
        shape = (images.shape[0], size, size, 3)
        pixels = jax.image.resize(pixels, shape, resample, antialias=True)
        pixels = jnp.clip(pixels, 0.0, 255.0)
    shift = jnp.asarray(mean, jnp.float32).reshape(1, 1, 1, 3)
    scale = jnp.asarray(std, jnp.float32).reshape(1, 1, 1, 3)
    return (pixels - shift) / scale
