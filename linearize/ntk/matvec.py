"""A product K v as the iterations want it: flat, float64, checked."""

from collections.abc import Callable
from math import prod

import numpy as np
from jax.typing import ArrayLike

Product = Callable[[np.ndarray], ArrayLike]
"""``matvec(v) -> K v``, both of one shape, (N, C) or (N,)."""

_ASYMMETRY = 1e-4


def flat_product(matvec: Product, shape: tuple[int, ...]) -> Callable[[np.ndarray], np.ndarray]:
    """``matvec`` between vectors (M,), M = N·C, in float64.

    Raises:
        ValueError: ``shape`` is empty; in a call, the answer has another shape or is not finite.

    >>> flat_product(lambda v: v.sum(0, keepdims=True) + 0 * v, (2, 2))(np.arange(4.0))
    array([2., 4., 2., 4.])
    """
    if not prod(shape) or any(n < 1 for n in shape):
        raise ValueError(f"shape={shape}; expected that of the product's argument, (N, C) or (N,)")

    def product(v: np.ndarray) -> np.ndarray:
        image = np.asarray(matvec(np.reshape(v, shape)), np.float64)
        if image.shape != shape:
            raise ValueError(f"matvec gives shape {image.shape} for an argument of shape {shape}")
        if not np.isfinite(image).all():
            raise ValueError(
                "matvec gives NaN or infinity: check the parameters and the inputs it closes over"
            )
        return image.ravel()

    return product


def check_symmetric(
    product: Callable[[np.ndarray], np.ndarray], size: int, rng: np.random.Generator
) -> None:
    """uᵀ K v = vᵀ K u for a random pair, at two products' cost.

    Raises:
        ValueError: they differ by more than rounding.
    """
    u, v = rng.normal(size=(2, size))
    ku, kv = product(u), product(v)
    gap = abs(u @ kv - v @ ku)
    scale = np.linalg.norm(u) * np.linalg.norm(kv) + np.linalg.norm(v) * np.linalg.norm(ku)
    if gap > _ASYMMETRY * scale:
        raise ValueError(
            f"matvec is not symmetric: uᵀKv = {u @ kv:.6g} and vᵀKu = {v @ ku:.6g} for a random "
            "pair; give the product with the kernel of one set of points with itself"
        )
