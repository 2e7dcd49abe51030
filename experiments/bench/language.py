"""SmolLM2-135M's linearized step beside transformers' and ``torch.func.jvp``, and its loading."""

import copy
import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import against_torch, measure, memory
from experiments.bench.measure import Row
from experiments.bench.step import operations
from experiments.bench.workload import OPTIM, Size, Step, displacement, step_of
from linearize import assets, models, taylor, tree
from linearize.cost import count_flops
from linearize.models.hf import export_leaves
from linearize.objectives import CausalLM
from linearize.types import Array

CASE = "language"
MODEL = "smollm2_135m"
OURS: dict[str, Any] = {"scan": True, "remat": "dots"}


def _model(size: Size) -> models.LanguageModel:
    whole: dict[str, Any] = {} if size.pretrained else {"blocks": 1, "pretrained": False}
    return models.load_language(MODEL, **OURS, **whole)


def _batch(model: models.LanguageModel, size: Size) -> dict[str, Array]:
    shape = (8, 128) if size.pretrained else (2, 8)
    tokens = np.random.default_rng(0).integers(0, model.vocabulary, shape, dtype=np.int32)
    labels = np.concatenate([tokens[:, 1:], np.full((len(tokens), 1), -1, np.int32)], 1)
    return {"inputs": jnp.asarray(tokens), "labels": jnp.asarray(labels)}


def _step(model: models.LanguageModel, batch: dict[str, Array]) -> Step:
    return step_of(model, batch, "linear", loss=CausalLM().loss)


def rows(size: Size) -> list[Row]:
    """Operations, parity and the ratio of times; resident memory and loading by themselves."""
    return beside(size) + alone(size)


def beside(size: Size) -> list[Row]:
    """Ours and torch's in one process, in turns."""
    model = _model(size)
    batch = _batch(model, size)
    step = _step(model, batch)
    unit = count_flops(model.f, model.params, batch["inputs"])
    about = "{} x {} tokens, scanned, remat='dots'".format(*batch["inputs"].shape)
    count = Row(
        CASE,
        "operations of a linearized step",
        operations(step) / unit,
        "F",
        ("<=", 5.1),
        note=f"matrix products of the jaxpr, in forward passes; {about}",
    )
    theirs = Theirs(model)
    tau = displacement(model.params, seed=0)
    tensors, one = _tensors(model, tau), batch["inputs"][:1]
    exact, single = theirs.logits(tensors, one, double=True), theirs.logits(tensors, one)
    got = np.asarray(jax.jit(taylor.tangent(model.f))(model.params, tau, one))
    ours, torchs = (float(np.abs(x - exact).max() / np.abs(exact).max()) for x in (got, single))
    del exact, single, got, tau, tensors
    parity = Row(
        CASE,
        "error of f_lin in float32, ours / torch",
        ours / torchs,
        "x",
        ("<=", 2.0),
        note=f"{ours:.1e} / {torchs:.1e} of the largest logit, from torch's in float64; f0 + J tau "
        "at a random tau, one row of tokens",
    )
    theirs.begin()
    host = {name: np.asarray(x) for name, x in batch.items()}
    times = measure.in_turns(step, lambda: theirs(host), max(2, size.repeats // 3))
    ratio = Row(
        CASE,
        "time of a linearized step, ours / torch",
        times.ratio,
        "x",
        ("<=", 1.0),
        times.spread,
        f"{times.medians[0]:.2f} s / {times.medians[1]:.2f} s; {about}; transformers' "
        "LlamaForCausalLM, eager attention, torch.func.jvp, AdamW(fused), clipping",
    )
    return [count, parity, ratio]


def alone(size: Size) -> list[Row]:
    """What a process of its own needs."""
    if size.pretrained:
        assets.fetch(MODEL)
    found = against_torch.in_process("language", {"size": vars(size), "steps": 3})
    return [
        Row(
            CASE,
            "largest resident memory of linear fine-tuning",
            found["peak"] / 1e6,
            "MB",
            ("<=", 6000),
            note="a process that loads, compiles and makes 3 steps of 8 x 128 tokens",
        ),
        Row(
            CASE,
            "loading from GGUF",
            found["loading"],
            "s",
            ("<=", 10),
            note="135 M parameters dequantised, first time in a process, file in the cache",
        ),
    ]


def _tensors(model: models.LanguageModel, params: Any) -> dict[str, np.ndarray]:
    assert model.family is not None
    return export_leaves(models.unstack(tree.flatten(params)), model.family.dialects[0])


class Theirs:
    """The step in torch: cross-entropy of the next token, clipping, AdamW on τ."""

    def __init__(self, model: models.LanguageModel) -> None:
        import torch
        import transformers

        config = {k: v for k, v in model.about["config"].items() if k != "model_type"}
        self.torch = torch
        config |= {"attn_implementation": "eager", "use_cache": False}
        self.net = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config)).eval()
        self.base = self._own(_tensors(model, model.params))

    def _own(self, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
        return {name: self.torch.from_numpy(np.array(x)) for name, x in tensors.items()}

    def begin(self) -> None:
        """τ at 0, and the optimizer's state."""
        torch = self.torch
        self.tau = {n: torch.zeros_like(x).requires_grad_() for n, x in self.base.items()}
        self.optimizer = torch.optim.AdamW(
            self.tau.values(), lr=OPTIM.lr, weight_decay=0.0, fused=True
        )

    def _f_lin(self, tau: Mapping[str, Any], tokens: np.ndarray, double: bool = False) -> Any:
        given = self.torch.from_numpy(np.array(tokens)).long()
        net = copy.deepcopy(self.net).double() if double else self.net
        base, along = (
            {n: x.double() if double else x for n, x in each.items()} for each in (self.base, tau)
        )

        def f(params: dict[str, Any]) -> Any:
            whole = params | {"lm_head.weight": params["model.embed_tokens.weight"]}
            return self.torch.func.functional_call(net, whole, (given,), tie_weights=False).logits

        out, moved = self.torch.func.jvp(f, (base,), (along,))  # type: ignore[misc]
        return out + moved

    def logits(
        self, tau: Mapping[str, np.ndarray], tokens: Array, *, double: bool = False
    ) -> np.ndarray:
        """Of f_lin, in float32 or in float64."""
        with self.torch.no_grad():
            return self._f_lin(self._own(tau), np.asarray(tokens), double).numpy()

    def __call__(self, batch: Mapping[str, np.ndarray]) -> float:
        """One step; the loss before it."""
        torch = self.torch
        self.optimizer.zero_grad(set_to_none=True)
        out = self._f_lin(self.tau, batch["inputs"])
        labels = torch.from_numpy(np.array(batch["labels"])).long()
        loss = torch.nn.functional.cross_entropy(
            out.flatten(0, 1), labels.flatten(), ignore_index=-1
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(self.tau.values()), 1.0)
        self.optimizer.step()
        return float(loss.detach())


def main(request: Mapping[str, Any]) -> dict[str, float]:
    """The largest resident memory of a process that does nothing else, and its loading."""
    size = Size(**request["size"])
    begin = time.perf_counter()
    model = _model(size)
    jax.block_until_ready(model.params)
    loading = time.perf_counter() - begin
    step: Callable[[], Array] = _step(model, _batch(model, size))
    for _ in range(request["steps"]):
        jax.block_until_ready(step())
    return {"loading": loading, "peak": memory.most()}


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
