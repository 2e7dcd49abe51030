"""Optimizers of τ by name, and the learning rate as a function of the optimizer step."""

import difflib
import functools
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import jax.numpy as jnp
import optax
import optax.contrib

from linearize.types import Array, PyTree

Decay = Literal["tau", "theta"]
Schedule = Literal["cosine", "linear", "constant"]

# These need more than gradients and parameters (a value, a function, per-example gradients), or a
# rate that does not change.
_UNFIT = {
    *("lbfgs", "noisy_sgd", "contrib.dpsgd", "contrib.momo", "contrib.momo_adam"),
    *("contrib.sophia", "optimistic_adam", "rprop", "sm3"),
}


@functools.cache
def optimizers() -> dict[str, Callable[..., optax.GradientTransformation]]:
    """Every optimizer of optax that is made from a learning-rate schedule, by name.

    Those of ``optax.contrib`` are called ``contrib.NAME``.

    >>> {"adamw", "lion", "sgd", "contrib.muon"} <= set(optimizers())
    True
    """
    found = {}
    for prefix, module in (("", optax), ("contrib.", optax.contrib)):
        for name in dir(module):
            maker = getattr(module, name)
            if inspect.isfunction(maker) and not name.startswith(("_", "scale_by")):
                first, *rest = [*inspect.signature(maker).parameters.values(), None]
                needs_more = any(p is not None and p.default is p.empty for p in rest)
                if first is not None and first.name == "learning_rate" and not needs_more:
                    found[prefix + name] = maker
    return {name: maker for name, maker in found.items() if name not in _UNFIT}


@dataclass(frozen=True)
class OptimConfig:
    """An optax optimizer and its learning-rate schedule.

    >>> OptimConfig(name="lyon")
    Traceback (most recent call last):
    ValueError: optim.name='lyon' is no optimizer of optax; did you mean 'lion'?
    """

    name: str = "adamw"
    """One of :func:`optimizers`."""
    lr: float = 1e-4
    """Peak learning rate."""
    weight_decay: float = 0.0
    """Decoupled where the optimizer has a decay of its own, else added to the gradient."""
    decay: Decay = "tau"
    """What decays toward 0: τ, or θ = θ0 + τ as in the papers' reference code."""
    schedule: Schedule = "cosine"
    """From the peak to 0 at the last step, or constant."""
    warmup: int = 0
    """Optimizer steps of linear warm-up; the first has learning rate lr / warmup."""
    clip: float | None = 1.0
    """Largest global norm of the gradient; None does not clip."""
    options: dict[str, float | bool | str] = field(default_factory=dict)
    """Further keyword arguments of the optimizer, such as ``{"b2": 0.99}``."""

    def __post_init__(self) -> None:
        if self.name not in optimizers():
            near = [repr(n) for n in difflib.get_close_matches(self.name, optimizers(), n=3)]
            hint = " or ".join([", ".join(near[:-1]), near[-1]] if near[1:] else near)
            raise ValueError(
                f"optim.name={self.name!r} is no optimizer of optax; "
                + (f"did you mean {hint}?" if near else "linearize.train.optimizers() lists them")
            )
        _choice("optim.decay", self.decay, ("tau", "theta"))
        _choice("optim.schedule", self.schedule, ("cosine", "linear", "constant"))
        for name in ("lr", "weight_decay", "warmup"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ValueError(f"optim.{name}={value}; expected a finite number, 0 or more")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"optim.clip={self.clip}; expected a positive norm, or None")
        accepted = set(inspect.signature(optimizers()[self.name]).parameters) - {
            "learning_rate",
            "weight_decay",
        }
        for option in self.options:
            if option not in accepted:
                raise ValueError(
                    f"optim.options[{option!r}] is no option of {self.name}, which takes "
                    f"{', '.join(sorted(accepted)) or 'none'}; the learning rate and the weight "
                    "decay have fields of their own"
                )

    def __hash__(self) -> int:
        return hash(json.dumps([self.name, self.lr, self.weight_decay, sorted(self.options)]))

    @classmethod
    def paper(cls) -> "OptimConfig":
        """AdamW as in the papers' public code, for 2,000 steps of batch 128.

        Learning rate 1e-5, decay 0.1 of θ, 500 steps of warm-up, cosine to 0, clip 1.0 (*Task
        Arithmetic in the Tangent Space*; the paper's text speaks of 200 steps of warm-up).
        """
        return cls(name="adamw", lr=1e-5, weight_decay=0.1, decay="theta", warmup=500, clip=1.0)


def _choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}={value!r}; expected one of {', '.join(choices)}")


def learning_rate(config: OptimConfig, total: int | Array) -> Callable[[Array], Array]:
    """``rate(count)``: the rate of the optimizer step that follows ``count`` others, of ``total``.

    ``lr (count + 1) / warmup`` first, then ``lr (1 + cos π t) / 2`` or ``lr (1 − t)`` with
    ``t = (count − warmup) / (total − warmup)``. A float32 scalar.

    >>> rate = learning_rate(OptimConfig(lr=1.0, warmup=2), total=4)
    >>> [round(float(rate(count)), 3) for count in range(5)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    after = {
        "constant": jnp.ones_like,
        "linear": lambda t: 1 - t,
        "cosine": lambda t: 0.5 * (1 + jnp.cos(jnp.pi * t)),
    }[config.schedule]

    def rate(count: Array) -> Array:
        count = jnp.asarray(count, jnp.float32)
        rest = jnp.asarray(total, jnp.float32) - config.warmup
        before = (count + 1) / max(config.warmup, 1)
        shape = jnp.where(count < config.warmup, before, after((count - config.warmup) / rest))
        return config.lr * shape

    return rate


def clip(config: OptimConfig, grads: PyTree) -> PyTree:
    """The gradient, of a global norm of ``config.clip`` at most."""
    if config.clip is None:
        return grads
    transform = optax.clip_by_global_norm(config.clip)
    return transform.update(grads, transform.init(grads))[0]


def optimizer(config: OptimConfig, total: int | Array) -> optax.GradientTransformation:
    """The named optimizer under its schedule, for gradients that :func:`clip` has seen.

    Its ``update`` wants ``params``: τ, or θ0 + τ where θ decays.
    """
    maker = optimizers()[config.name]
    options = dict(config.options)
    parts = []
    if "weight_decay" in inspect.signature(maker).parameters:
        options["weight_decay"] = config.weight_decay
    elif config.weight_decay:
        parts.append(optax.add_decayed_weights(config.weight_decay))
    return optax.chain(*parts, maker(learning_rate(config, total), **options))
