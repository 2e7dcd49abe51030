"""The fully-connected ReLU network of the infinite-width theory, in both parametrizations."""

from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn

from linearize.choices import one_of
from linearize.types import Array


class WideMLP(nn.Module):
    """``(B, D) -> (B, outputs)``: h₁ = W₁x + b₁, h_{l+1} = W_{l+1} max(h_l, 0) + b_{l+1}.

    Its kernels at infinite width are :func:`linearize.ntk.mlp_kernel`'s, with the same names. The
    layers are called ``input``, ``hidden_1``, ..., ``output``.

    Attributes:
        width: units of each hidden layer.
        depth: hidden layers, 0 (a linear model) or more.
        outputs: C.
        weight_std: σ_w; a layer's effective weights have variance σ_w² / (its inputs).
        bias_std: σ_b of the biases; ``None`` for a network without any.
        parametrization: ``"ntk"``: W = σ_w/√n · ω and b = σ_b β with standard normal parameters ω,
            β (Jacot et al. 2018); ``"standard"``: the parameters are W and b.
        dtype: of parameters and computation.

    >>> import jax
    >>> x = jnp.ones((1, 4))
    >>> params = WideMLP(width=8, depth=2).init(jax.random.key(0), x)["params"]
    >>> {name: layer["kernel"].shape for name, layer in params.items()}
    {'input': (4, 8), 'hidden_1': (8, 8), 'output': (8, 1)}
    """

    width: int
    depth: int = 3
    outputs: int = 1
    weight_std: float = 2**0.5
    bias_std: float | None = None
    parametrization: Literal["ntk", "standard"] = "ntk"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        one_of("parametrization", self.parametrization, ("ntk", "standard"))
        names = ["input", *(f"hidden_{i}" for i in range(1, self.depth))][: self.depth]
        x = x.astype(self.dtype)
        for name in names:
            x = nn.relu(self._affine(x, self.width, name))
        return self._affine(x, self.outputs, "output")

    def _affine(self, x: Array, features: int, name: str) -> Array:
        outside = self.parametrization == "ntk"
        weight, bias = self.weight_std / x.shape[-1] ** 0.5, self.bias_std
        layer = Affine(
            features,
            weight_scale=weight if outside else 1.0,
            weight_init=1.0 if outside else weight,
            bias_scale=bias if outside or bias is None else 1.0,
            bias_init=1.0 if outside or bias is None else bias,
            dtype=self.dtype,
            name=name,
        )
        return layer(x)


class Affine(nn.Module):
    """x ↦ weight_scale · x W + bias_scale · b, with normal W and b of deviations ``*_init``."""

    features: int
    weight_scale: float
    weight_init: float
    bias_scale: float | None
    bias_init: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.normal(self.weight_init), shape, self.dtype)
        y = self.weight_scale * (x @ kernel)
        if self.bias_scale is None:
            return y
        bias = self.param("bias", nn.initializers.normal(self.bias_init), shape[1:], self.dtype)
        return y + self.bias_scale * bias[None]
