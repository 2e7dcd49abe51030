"""Optimizers of τ by name, and the learning rate as a function of the optimizer step.

Every optimizer does to θ = θ0 + τ what optax's does, but for weight decay, which is of τ or of θ as
configured. Most read the parameters for nothing else, or only differences of them, and are given
what decays. The others (trust ratios, steps relative to ‖θ‖) are given θ.
"""

import functools
import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from jax.extend import core

from linearize import choices
from linearize.fields import Natural, NonNegative, Positive, check
from linearize.types import Array, PyTree

Decay = Literal["tau", "theta"]
Schedule = Literal["cosine", "linear", "constant"]

# These need more than gradients and parameters (a value, a function, per-example gradients), or a
# rate that does not change.
_UNFIT = {
    *("lbfgs", "noisy_sgd", "contrib.dpsgd", "contrib.momo", "contrib.momo_adam"),
    *("contrib.sophia", "optimistic_adam", "rprop", "sm3"),
}


_DIFFERENCES = {
    *("contrib.cocob", "contrib.dadapt_adamw", "contrib.madgrad", "contrib.prodigy", "novograd"),
    *("contrib.schedule_free_adamw", "contrib.schedule_free_sgd"),
}
"""These read the parameters, but a translation of them changes nothing: τ serves as well as θ, with
less rounding."""


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
    lr: NonNegative = 1e-4
    """Peak learning rate."""
    weight_decay: NonNegative = 0.0
    """Decoupled where the optimizer has a decay of its own, else added to the gradient."""
    decay: Decay = "tau"
    """What decays toward 0: τ, or θ = θ0 + τ as in the papers' reference code. All else that an
    optimizer does with the parameters it does with θ."""
    schedule: Schedule = "cosine"
    """Falls from the peak and would be 0 one step after the last, or is constant."""
    warmup: Natural = 0
    """Optimizer steps of linear warm-up; the first has learning rate lr / warmup."""
    clip: Positive | None = 1.0
    """Largest global norm of the gradient; None does not clip."""
    options: dict[str, float | bool | str] = field(default_factory=dict)
    """Further keyword arguments of the optimizer, such as ``{"b2": 0.99}``."""

    def __post_init__(self) -> None:
        check(self, "optim.")
        if self.name not in optimizers():
            said = "linearize.train.optimizers() lists them"
            hint = choices.hint(self.name, optimizers(), said, most=3)
            raise ValueError(f"optim.name={self.name!r} is no optimizer of optax{hint}")
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
        if self.decays and self.decay == "tau" and self.reads and self.decays_itself:
            raise ValueError(
                f"optim.{'weight_decay' if self.weight_decay else 'options'}: the steps of "
                f"{self.name} depend on the size of the parameters and of their decay together, so "
                "that τ alone cannot decay; set optim.decay='theta', or decay nothing"
            )

    @property
    def decays(self) -> bool:
        """Whether anything decays: by ``weight_decay``, or by an option of that kind."""
        return bool(self.weight_decay) or any(self.options.get(n) for n in self._own_decays())

    @property
    def decays_itself(self) -> bool:
        """Whether the optimizer has a decay of its own that is in use."""
        own = self._own_decays()
        return "weight_decay" in own or any(self.options.get(name) for name in own)

    def _own_decays(self) -> list[str]:
        names = inspect.signature(optimizers()[self.name]).parameters
        return [n for n in names if "weight_decay" in n and not n.endswith("mask")]

    @property
    def reads(self) -> bool:
        """Whether the size of the parameters counts, otherwise than for decay."""
        off = {n: 0.0 for n in self._own_decays() if n != "weight_decay"}
        options = {**self.options, **{n: v for n, v in off.items() if n in self.options}}
        return self.name not in _DIFFERENCES and _reads(
            self.name, json.dumps(sorted(options.items()))
        )

    @property
    def sees_theta(self) -> bool:
        """Whether the optimizer is given θ for the parameters, and not τ."""
        return self.decay == "theta" or self.reads

    @property
    def revision(self) -> str:
        """What changed since the first version, for runs that it did not know to be another."""
        parts = ["steps of θ"] if self.decay == "tau" and self.reads else []
        parts += ["averaged iterate"] if "schedule_free" in self.name else []
        return ", ".join(parts)

    def __hash__(self) -> int:
        return hash(json.dumps([self.name, self.lr, self.weight_decay, sorted(self.options)]))

    @classmethod
    def paper(cls) -> "OptimConfig":
        """AdamW as in the papers' public code, for 2,000 steps of batch 128.

        Learning rate 1e-5, decay 0.1 of θ, 500 steps of warm-up, cosine to 0, clip 1.0 (*Task
        Arithmetic in the Tangent Space*; the paper's text speaks of 200 steps of warm-up).
        """
        return cls(name="adamw", lr=1e-5, weight_decay=0.1, decay="theta", warmup=500, clip=1.0)


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


def clip(config: OptimConfig, grads: PyTree, norm: Array) -> PyTree:
    """The gradient of this global norm, shortened to one of ``config.clip`` at most."""
    if config.clip is None:
        return grads
    share = config.clip / jnp.maximum(norm, config.clip)
    return jax.tree.map(lambda g: g * share.astype(g.dtype), grads)


def decayed(config: OptimConfig, grads: PyTree, tau: PyTree) -> PyTree:
    """The gradient, with the decay of τ where the optimizer sees θ and has no decay of its own."""
    if not config.weight_decay or config.decay == "theta" or not config.reads:
        return grads
    return jax.tree.map(lambda g, t: g + config.weight_decay * t, grads, tau)


def optimizer(config: OptimConfig, total: int | Array) -> optax.GradientTransformation:
    """The named optimizer under its schedule, for gradients that :func:`decayed` has seen.

    Its ``update`` wants ``params``: θ0 + τ where :attr:`OptimConfig.sees_theta`, else τ.
    """
    maker = optimizers()[config.name]
    options = dict(config.options)
    parts = []
    if "weight_decay" in inspect.signature(maker).parameters:
        options["weight_decay"] = config.weight_decay
    elif config.weight_decay and (config.decay == "theta" or not config.reads):
        parts.append(optax.add_decayed_weights(config.weight_decay))
    return optax.chain(*parts, maker(learning_rate(config, total), **options))


def averaged(state: PyTree, seen: PyTree) -> PyTree | None:
    """The parameters to evaluate, of an optimizer that trains others; None of those that do not.

    Args:
        state: of :func:`optimizer`.
        seen: the parameters that its ``update`` was given.
    """

    def is_free(node: object) -> bool:
        return isinstance(node, optax.contrib.ScheduleFreeState)

    found = [node for node in jax.tree.leaves(state, is_leaf=is_free) if is_free(node)]
    if not found:
        return None

    def whole(y: Array, z: Any) -> Array:
        """Of a complex leaf optax keeps the real and the imaginary part."""
        return z.real + 1j * z.imaginary if jnp.iscomplexobj(y) else z

    z = jax.tree.map(whole, seen, found[0].z)
    return optax.contrib.schedule_free_eval_params(found[0]._replace(z=z), seen)


@functools.cache
def _reads(name: str, options: str) -> bool:
    """Whether an optimizer's updates or state depend on the parameters' values, without decay."""
    config = {n: v for n, v in json.loads(options) if n != "weight_decay"}
    maker = optimizers()[name]
    if "weight_decay" in inspect.signature(maker).parameters:
        config["weight_decay"] = 0.0
    transform = maker(jnp.ones_like, **config)
    like = {n: jax.ShapeDtypeStruct(s, jnp.float32) for n, s in (("w", (4, 3)), ("b", (3,)))}

    def both(params: PyTree, grads: PyTree, state: PyTree) -> PyTree:
        return transform.init(params), transform.update(grads, state, params)

    jaxpr = jax.make_jaxpr(both)(like, like, jax.eval_shape(transform.init, like)).jaxpr
    count = len(like)
    return any(_depends(jaxpr, [i < count for i in range(len(jaxpr.invars))]))


def _depends(jaxpr: core.Jaxpr, marked: Sequence[bool]) -> list[bool]:
    """Which outputs depend on the marked inputs; what is multiplied by 0 does not."""
    known = {v for v, is_marked in zip(jaxpr.invars, marked, strict=True) if is_marked}
    for equation in jaxpr.eqns:
        literals = [v for v in equation.invars if isinstance(v, core.Literal)]
        given = [not isinstance(v, core.Literal) and v in known for v in equation.invars]
        if equation.primitive.name == "jit":
            outs = _depends(equation.params["jaxpr"].jaxpr, given)
        elif equation.primitive.name == "mul" and any(not np.any(v.val) for v in literals):
            outs = []
        else:
            outs = [any(given)] * len(equation.outvars)
        known |= {v for v, marks in zip(equation.outvars, outs, strict=False) if marks}
    return [not isinstance(v, core.Literal) and v in known for v in jaxpr.outvars]
