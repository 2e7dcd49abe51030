"""Kernels of infinitely wide fully-connected ReLU networks, in closed form.

A network of ``depth`` hidden layers, h₁ = W₁x + b₁, h_{l+1} = W_{l+1} max(h_l, 0) + b_{l+1}, whose
output is one unit of h_{depth+1}. As widths grow its outputs become a Gaussian process (NNGP; Lee
et al. 2018) and its tangent kernel a constant (Jacot et al. 2018), both by a recursion over layers
with the arc-cosine kernels of Cho & Saad 2009.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jax.typing import ArrayLike

from linearize.choices import one_of

Parametrization = Literal["ntk", "standard"]


@dataclass(frozen=True, eq=False)
class Kernels:
    """Both kernels of one output unit; of several, they are these times the identity."""

    nngp: np.ndarray
    """(N1, N2), float64: covariance of the outputs at initialisation."""
    ntk: np.ndarray
    """(N1, N2), float64: Σ over parameters of ∂f(x1) ∂f(x2)."""


def mlp_kernel(
    x1: ArrayLike,
    x2: ArrayLike | None = None,
    *,
    depth: int,
    weight_std: float = 2**0.5,
    bias_std: float | None = None,
    parametrization: Parametrization = "ntk",
    width: int | None = None,
) -> Kernels:
    """The NNGP and the NTK of an infinitely wide ReLU network.

    Args:
        x1: (N1, D) inputs.
        x2: (N2, D); ``x1`` by default.
        depth: hidden layers, 0 (a linear model) or more.
        weight_std: σ_w; a layer's effective weights have variance σ_w² / (its inputs).
        bias_std: σ_b of the biases; ``None`` for a network without any.
        parametrization: ``"ntk"``: W = σ_w/√n · ω and b = σ_b β with standard normal ω, β, which
            are trained (Jacot et al.). ``"standard"``: W and b themselves are trained; that kernel
            grows with the width, and its leading term is given. Biases that begin at zero
            (``bias_std=0``) are trained there, and have no effect in ``"ntk"``.
        width: of the hidden layers; needed by ``"standard"``.

    Returns:
        ``(nngp, ntk)``; a ReLU's derivative at 0 counts as 0, as in ``jax.nn.relu``.

    Raises:
        ValueError: inputs that are not (N, D) and finite or differ in D; a negative depth or
            deviation; ``"standard"`` without a width, or ``"ntk"`` with one.

    >>> kernels = mlp_kernel([[1.0, 0.0], [0.0, 1.0]], depth=1)
    >>> kernels.nngp.round(6)  # x·x/2 · 2 · (1/2 on the diagonal, 1/2π off it) · 2
    array([[1.     , 0.31831],
           [0.31831, 1.     ]])
    """
    left = _inputs("x1", x1)
    right = left if x2 is None else _inputs("x2", x2)
    if left.shape[1] != right.shape[1]:
        raise ValueError(f"x1 has {left.shape[1]} features and x2 {right.shape[1]}; one number")
    if depth < 0 or not 0 <= weight_std < np.inf or not 0 <= (bias_std or 0.0) < np.inf:
        raise ValueError(
            f"depth={depth}, weight_std={weight_std}, bias_std={bias_std}; none is negative or "
            "infinite"
        )
    one_of("parametrization", parametrization, ("ntk", "standard"))
    if (parametrization == "standard") != (width is not None) or (width or 1) < 1:
        raise ValueError(
            f"width={width} with parametrization={parametrization!r}; 'standard' needs the hidden "
            "layers' width, and the 'ntk' kernel has none"
        )
    dim, w2, b2 = left.shape[1], weight_std**2, (bias_std or 0.0) ** 2

    def tangent(correlation: np.ndarray, fan_in: int) -> np.ndarray:
        """A layer's own parameters' part, from the correlation of its inputs."""
        if parametrization == "ntk":
            return w2 * correlation + b2
        return fan_in * correlation + (bias_std is not None)

    correlation = left @ right.T / dim
    cov, ntk = w2 * correlation + b2, tangent(correlation, dim)
    var1, var2 = (w2 * (x**2).sum(1) / dim + b2 for x in (left, right))
    for _ in range(depth):
        correlation, slope = _relu_expectations(cov, var1, var2, same=x2 is None)
        ntk = tangent(correlation, width or 1) + w2 * slope * ntk
        cov = w2 * correlation + b2
        var1, var2 = w2 * var1 / 2 + b2, w2 * var2 / 2 + b2
    return Kernels(cov, ntk)


def _relu_expectations(
    cov: np.ndarray, var1: np.ndarray, var2: np.ndarray, same: bool
) -> tuple[np.ndarray, np.ndarray]:
    """E[max(u, 0) max(v, 0)] and E[1(u > 0) 1(v > 0)] of Gaussian pairs (u, v): the arc-cosine
    kernels of orders 1 and 0, halved.
    """
    scale = np.sqrt(np.outer(var1, var2))
    alive = scale > 0
    cosine = np.clip(np.divide(cov, scale, out=np.zeros_like(cov), where=alive), -1, 1)
    if same:
        np.fill_diagonal(cosine, 1.0)
    angle, sine = np.arccos(cosine), np.sqrt((1 - cosine) * (1 + cosine))
    first = scale * (sine + (np.pi - angle) * cosine) / (2 * np.pi)
    return first, np.where(alive, (np.pi - angle) / (2 * np.pi), 0.0)


def _inputs(name: str, x: ArrayLike) -> np.ndarray:
    array = np.asarray(x, np.float64)
    if array.ndim != 2 or not array.shape[1] or not np.isfinite(array).all():
        raise ValueError(f"{name} has shape {array.shape}; expected finite inputs (N, D)")
    return array
