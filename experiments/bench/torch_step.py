"""The training steps in torch: ``functional_call`` and ``torch.func.jvp``, the same models.

It knows no JAX, so that ``python -m experiments.bench.torch_step`` can be watched for its memory.
Gradients flow to τ alone; the parameters at θ0 are plain tensors.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, jvp

from experiments.bench import memory

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
CLIP_MEAN = (122.7709383, 116.7460125, 104.09373615)
CLIP_STD = (68.5005327, 66.6321579, 70.32316305)

Tensors = dict[str, torch.Tensor]


class Attention(nn.Module):
    """Multi-head self-attention written out: fused kernels have no forward-mode derivative."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-2, -1) / math.sqrt(width // self.heads)
        y = scores.softmax(-1) @ value
        return self.out(y.transpose(1, 2).reshape(batch, tokens, width))


class Block(nn.Module):
    """``x + s1 * attention(norm(x))``, then ``x + s2 * mlp(norm(x))``."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width, heads)
        self.scale_1 = nn.Parameter(torch.ones(width))
        self.norm_2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp_in = nn.Linear(width, hidden)
        self.mlp_out = nn.Linear(hidden, width)
        self.scale_2 = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.scale_1 * self.attention(self.norm_1(x))
        y = nn.functional.gelu(self.mlp_in(self.norm_2(x)))
        return x + self.scale_2 * self.mlp_out(y)


class ViT(nn.Module):
    """uint8 images (B, S, S, 3) to features (B, 2 width): class token and mean of patch tokens.

    ``positions`` are already those of the image's grid of patches.
    """

    def __init__(
        self, image_size: int, blocks: int, width: int, heads: int, hidden: int, patch: int
    ) -> None:
        super().__init__()
        self.patch = patch
        self.patch_embedding = nn.Linear(3 * patch * patch, width)
        self.class_token = nn.Parameter(torch.zeros(width))
        self.class_position = nn.Parameter(torch.zeros(width))
        side = image_size // patch
        self.positions = nn.Parameter(torch.zeros(side * side, width))
        self.blocks = nn.ModuleList(Block(width, heads, hidden) for _ in range(blocks))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.mean, self.std = _constant(MEAN), _constant(STD)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pixels = (images.float() - self.mean) / self.std
        batch, height, width, channels = pixels.shape
        p = self.patch
        rows = pixels.view(batch, height // p, p, width // p, p, channels).permute(0, 1, 3, 2, 4, 5)
        x = self.patch_embedding(rows.reshape(batch, -1, p * p * channels)) + self.positions
        first = (self.class_token + self.class_position).expand(batch, 1, -1)
        x = torch.cat([first, x], dim=1)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return torch.cat([x[:, 0], x[:, 1:].mean(dim=1)], dim=-1)


class CLIP(nn.Module):
    """uint8 images (B, S, S, 3) to features: transformers' own CLIP image encoder.

    Args:
        config: fields of transformers' ``CLIPVisionConfig``.
    """

    def __init__(self, **config: Any) -> None:
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        super().__init__()
        fields = CLIPVisionConfig(**{**config, "attn_implementation": "eager"})
        self.clip = CLIPVisionModelWithProjection(fields)
        embeddings = self.clip.vision_model.embeddings
        places = torch.arange(embeddings.num_positions, device="cpu")[None]
        embeddings.register_buffer("position_ids", places, persistent=False)
        self.mean, self.std = _constant(CLIP_MEAN), _constant(CLIP_STD)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pixels = (images.float() - self.mean) / self.std
        return self.clip(pixel_values=pixels.permute(0, 3, 1, 2)).image_embeds


MODELS: dict[str, Callable[..., nn.Module]] = {"vit": ViT, "clip": CLIP}


def _constant(values: tuple[float, ...]) -> torch.Tensor:
    """No parameter: it has values where the model is built without memory for its weights."""
    return torch.tensor(values, device="cpu")


def linearized(model: nn.Module) -> Callable[[Tensors, Tensors, torch.Tensor], torch.Tensor]:
    """``f_lin(params0, tau, images) = f0 + J tau``."""

    def f_lin(params0: Tensors, tau: Tensors, images: torch.Tensor) -> torch.Tensor:
        def f(params: Tensors) -> torch.Tensor:
            return functional_call(model, params, (images,))

        out, moved = jvp(f, (params0,), (tau,))  # type: ignore[misc]
        return out + moved

    return f_lin


def matmul_rate(side: int = 1536, repeats: int = 5) -> float:
    """The best of several products of square matrices, in operations a second."""
    a = torch.ones(side, side)
    best = math.inf
    for _ in range(repeats):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


class Step:
    """One step: cross-entropy under a frozen head, clipping, AdamW.

    Args:
        model: a key of :data:`MODELS`.
        weights: θ0 by torch's names, and the head's ``head/center`` and ``head/kernel``.
        shape: arguments of that class.
        temperature: factor of the head's cosine logits.
        learning_rate: of AdamW, without decay.
        regime: ``"linear"``: f_lin, and τ is trained; ``"nonlinear"``: f, and θ is trained.
    """

    def __init__(
        self,
        model: str,
        weights: Mapping[str, np.ndarray],
        shape: Mapping[str, Any],
        temperature: float,
        learning_rate: float,
        regime: str = "linear",
    ) -> None:
        tensors = {n: torch.from_numpy(np.array(x)) for n, x in weights.items()}
        self.center = tensors.pop("head/center")
        self.kernel = tensors.pop("head/kernel")
        self.temperature = temperature
        with torch.device("meta"):
            network = MODELS[model](**shape)
        wanted = {n: tuple(p.shape) for n, p in network.named_parameters()}
        if wanted != {n: tuple(p.shape) for n, p in tensors.items()}:
            raise ValueError("weights do not have the names and shapes of the torch model")
        self.params0 = tensors
        self.network, self.regime = network, regime
        self.f_lin = linearized(network)
        self.learning_rate = learning_rate

    def begin(self, tau: Mapping[str, np.ndarray] | None = None) -> None:
        """What is trained and the optimizer's state; τ starts at zero by default, θ at θ0."""
        start = torch.zeros_like if self.regime == "linear" else torch.clone
        self.trained = {
            n: start(p) if tau is None else torch.from_numpy(np.array(tau[n]))
            for n, p in self.params0.items()
        }
        for leaf in self.trained.values():
            leaf.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(
            self.trained.values(), lr=self.learning_rate, weight_decay=0.0, fused=True
        )

    def features(self, images: np.ndarray) -> np.ndarray:
        """f_lin at the present τ, or f at the present θ."""
        with torch.no_grad():
            return self._f(torch.tensor(images)).numpy()

    def _f(self, images: torch.Tensor) -> torch.Tensor:
        if self.regime == "linear":
            return self.f_lin(self.params0, self.trained, images)
        return functional_call(self.network, self.trained, (images,))

    def __call__(self, images: np.ndarray, labels: np.ndarray) -> float:
        """One step on a batch; the loss before it."""
        self.optimizer.zero_grad(set_to_none=True)
        z = self._f(torch.tensor(images)) - self.center
        z = z / z.norm(dim=-1, keepdim=True)
        logits = self.temperature * z @ self.kernel
        loss = nn.functional.cross_entropy(logits, torch.tensor(labels, dtype=torch.long))
        loss.backward()
        nn.utils.clip_grad_norm_(list(self.trained.values()), 1.0)
        self.optimizer.step()
        return float(loss.detach())


def main(request: dict[str, Any]) -> dict[str, float]:
    """Steady-state memory of the step, as :func:`experiments.bench.memory.steady_peak` has it."""
    torch.set_num_threads(request["threads"])
    weights = dict(np.load(request["weights"], allow_pickle=False))
    images, labels = weights.pop("images"), weights.pop("labels")
    step = Step(weights=weights, **request["step"])
    del weights

    def begin() -> Callable[[], object]:
        step.begin()
        return lambda: step(images, labels)

    return memory.steady_peak(begin, request["steps"])


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
