"""What a model writes after prompts: at θ0 + Σ α τ, or in its tangent at θ0."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from experiments.toxicity.config import DecodingConfig
from experiments.toxicity.material import Material
from linearize.compiled import jit
from linearize.evaluate.view import View


def texts(
    given: Material,
    view: View,
    point: Mapping[str, float],
    told: DecodingConfig,
    count: int,
    seed: int,
) -> list[str]:
    """Continuations of the prompts in turn, ``count`` of them; what follows an end is left out."""
    f = view.moving(given.model.f)
    tau = sum(
        (float(alpha) * view.vectors[name] for name, alpha in point.items() if True), start=0
    )
    delta = tau.delta
    out = []
    end = given.tokenizer.special["eos"]
    prompts = [given.prompts[i % len(given.prompts)] for i in range(count)]
    key = jax.random.key(seed)

    @jit
    def step(delta, tokens, sizes, key):
        logits = f(view.params0, delta, tokens)
        last = jax.numpy.take_along_axis(logits, (sizes - 1)[:, None, None], 1)[:, 0]
        return jax.random.categorical(key, last)

    width = max(map(len, prompts)) + told.tokens
    table = np.zeros((count, width), np.int32)
    for row, p in zip(table, prompts):
        row[: len(p)] = p
    sizes = np.array([len(p) for p in prompts])
    for i in range(told.tokens):
        new = np.asarray(step(delta, table, sizes, jax.random.fold_in(key, i)))
        table[np.arange(count), sizes] = new
        sizes = sizes + 1
    for row, p, size in zip(table, prompts, sizes):
        tail = row[len(p) : size].tolist()
        out.append(tail[: tail.index(end)] if end in tail else tail)
    return given.tokenizer.decode(out)
