"""One optimizer step on τ, and the compiled programs made of it.

θ0, the data and every array inside the callables are arguments of the compiled functions. A program
is compiled once and serves every run of the same model, regime, optimizer and shapes: another
task's head or data set is only another argument. The state is overwritten in place, but for a small
one on CPU.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import optax

from linearize import taylor, tree
from linearize.compiled import jit
from linearize.losses import cross_entropy
from linearize.objectives.objective import Loss
from linearize.objectives.predictions import correct
from linearize.train import feed
from linearize.train.mask import masked
from linearize.train.mesh import Placement
from linearize.train.optim import (
    OptimConfig,
    averaged,
    clip,
    decayed,
    learning_rate,
    optimizer,
)
from linearize.types import Apply, Array, Params, PyTree

REGIMES: dict[str, Callable[[Apply], Apply]] = {
    "nonlinear": taylor.displaced,
    "linear": taylor.tangent,
}
"""How τ enters the model: ``regime(f)(params0, tau, *inputs)``."""

_LARGE = 512 << 20

State = dict[str, Any]
"""``tau``, ``opt`` and ``step`` (steps taken, int32), which checkpoints keep; ``bad``, the step
(from 1, 0 for none) that was not finite; ``bad_metrics``, its metrics."""

Metrics = dict[str, Array]
"""``step`` (n,) int32, ``bad`` () int32, ``values`` (n, M) float32 in the order of
:attr:`Recipe.metrics`, and ``slope`` (n,) float32: clipped gradient times the new τ, which in the
first step is the update. With penalties also ``pull`` (n, 2) float32: of their weighted sum, the
gradient times the τ that it was taken at, and the gradient's norm."""


@dataclass(frozen=True)
class Callables:
    """A callable's arrays apart from the rest, so that they can be arguments of a program."""

    treedef: Any
    static: tuple[Hashable, ...]

    @classmethod
    def of(cls, functions: Mapping[str, Callable | None]) -> tuple["Callables", list[Array]]:
        """Take apart ``jax.tree_util.Partial`` and other pytrees that can be called."""
        leaves, treedef = jax.tree.flatten(dict(functions))
        is_array = [hasattr(leaf, "dtype") and hasattr(leaf, "shape") for leaf in leaves]
        static = tuple(None if a else leaf for a, leaf in zip(is_array, leaves, strict=True))
        return cls(treedef, static), [x for a, x in zip(is_array, leaves, strict=True) if a]

    def join(self, arrays: list[Array]) -> dict[str, Callable | None]:
        """The inverse of :meth:`of`."""
        rest = iter(arrays)
        leaves = [next(rest) if leaf is None else leaf for leaf in self.static]
        return jax.tree.unflatten(self.treedef, leaves)


@dataclass(frozen=True)
class Recipe:
    """All that a step is compiled from, but for arrays; equal recipes share one program."""

    functions: Callables
    regime: str
    inputs: tuple[str, ...]
    optim: OptimConfig
    accumulate: int
    label_smoothing: float
    ascend: bool
    own_loss: bool
    penalties: tuple[str, ...] = ()
    """Columns, and names among the functions, of what is added to the loss."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of what a step measures."""
        measured = ("loss", *(() if self.own_loss else ("accuracy",)), *self.penalties)
        return (*measured, "lr", "grad_norm", "tau_norm")

    def examples(self, functions: Mapping[str, Any], outputs: PyTree, batch: PyTree) -> PyTree:
        """Per-example measures, each (B,); ``loss`` is what is optimised."""
        if self.own_loss:
            loss: Loss = functions["loss"]
            return {"loss": loss(outputs, batch)}
        readout = functions["readout"]
        logits = outputs if readout is None else readout(outputs)
        return {
            "loss": cross_entropy(logits, batch["labels"], self.label_smoothing),
            "accuracy": correct(logits, batch["labels"]),
        }

    def init(self, params0: Params, total: int | Array, trainable: tuple[str, ...]) -> State:
        """The state before the first step: τ = 0."""
        base = tree.flatten(params0)
        tau = tree.zeros({n: base[n] for n in trainable})
        return {
            "tau": tau,
            "opt": optimizer(self.optim, total).init(_as_pairs(self._seen(params0, tau))),
            "step": jnp.zeros((), jnp.int32),
            "bad": jnp.zeros((), jnp.int32),
            "bad_metrics": jnp.zeros((len(self.metrics),), jnp.float32),
        }

    def step(
        self,
        state: State,
        fixed: Mapping[str, Any],
        batch: PyTree,
        place: Placement,
        in_place: bool = True,
        drawn: Sequence[PyTree] = (),
    ) -> tuple[State, Metrics]:
        """One optimizer step. After a step that is not finite, nothing changes any more.

        Args:
            state: as :meth:`init` makes it.
            fixed: ``params0``; ``arrays`` of the callables; ``total`` steps (int32); ``key``, the
                run's PRNG key; ``weights`` (P,) and ``keys`` (P,) of penalties, where there are
                any, and the ``mask`` by name.
            batch: arrays that share axis 0, (B, ...).
            place: where batches are split to.
            in_place: in the form that overwrites a donated state with two more of τ's size at
                most, or in the one that is best where the state is not donated.
            drawn: batches of the penalties' streams.
        """
        functions = self._functions(fixed, place)
        key = jax.random.fold_in(fixed["key"], state["step"])
        grads, means = self._gradient(functions, fixed["params0"], state["tau"], batch, key, place)
        pull: dict[str, Array] = {}
        if self.penalties:
            added, apart = self._added(functions, fixed, state, drawn)
            grads, means = jax.tree.map(jnp.add, grads, added), means | apart
            along = jnp.stack([_inner(added[n], t) for n, t in state["tau"].items()]).sum()
            pull = {"pull": jnp.stack([along, optax.tree.norm(added)]).astype(jnp.float32)}
        mask = fixed.get("mask")
        grads = masked(grads, mask)
        inner = place.summed(_inner)
        means["grad_norm"] = _norm(inner, grads)
        clipped = clip(self.optim, grads, means["grad_norm"])
        clipped = decayed(self.optim, clipped, state["tau"])
        transform = optimizer(self.optim, fixed["total"])

        def update(state: State) -> tuple[PyTree, PyTree]:
            seen = self._seen(fixed["params0"], state["tau"])
            updates, opt = transform.update(_as_pairs(clipped), state["opt"], _as_pairs(seen))
            return masked(_from_pairs(updates, seen), mask), opt

        updates, _ = update(state)
        tau = optax.apply_updates(state["tau"], updates)
        means["lr"] = learning_rate(self.optim, fixed["total"])(state["step"])
        # in pieces of the new τ, it would be kept beside the old one
        means["tau_norm"] = _norm(_inner if in_place else inner, tau)
        values = jnp.stack([means[name].astype(jnp.float32) for name in self.metrics])
        here = state["step"] + 1
        finite = jnp.isfinite(values).all()
        good = finite & (state["bad"] == 0)
        first_bad = ~finite & (state["bad"] == 0)
        bad = jnp.where(first_bad, here, state["bad"])
        bad_metrics = jnp.where(first_bad, values, state["bad_metrics"])

        def move(state: State) -> State:
            tau = optax.apply_updates(state["tau"], updates)
            slope = jnp.stack([inner(clipped[n], tau[n]) for n in tau]).sum()
            slope = slope.astype(jnp.float32)
            return {"tau": tau, "opt": update(state)[1], "step": here, "slope": slope}

        kept = {name: state[name] for name in ("tau", "opt", "step")}
        kept["slope"] = jnp.zeros((), jnp.float32)
        if in_place:
            # a branch's new moments are not those that `updates` came from, which XLA would keep
            state = jax.lax.cond(good, move, lambda kept: kept, kept)
        else:
            state = jax.tree.map(lambda new, old: jnp.where(good, new, old), move(kept), kept)
        slope = state.pop("slope")
        state |= {"bad": bad, "bad_metrics": bad_metrics}
        rows = {"step": here, "values": values, "slope": slope, **pull}
        return state, {"bad": bad, **{name: row[None] for name, row in rows.items()}}

    def _functions(self, fixed: Mapping[str, Any], place: Placement) -> dict[str, Any]:
        """All callables, whole; the model as the devices share it."""
        functions: dict[str, Any] = self.functions.join(fixed["arrays"])
        return functions | {"f": place.laid(functions["f"])}

    def _added(
        self,
        functions: Mapping[str, Any],
        fixed: Mapping[str, Any],
        state: State,
        drawn: Sequence[PyTree],
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """The gradient of the weighted penalties, and each one's value."""

        def total(tau: Mapping[str, Array]) -> tuple[Array, Array]:
            values = self.penalties_at(functions, fixed, tau, drawn, state["step"])
            return jnp.dot(fixed["weights"], values, precision=jax.lax.Precision.HIGHEST), values

        found, values = jax.grad(total, has_aux=True)(state["tau"])
        return jax.tree.map(jnp.conj, found), dict(zip(self.penalties, values, strict=True))

    def penalties_at(
        self,
        functions: Mapping[str, Any],
        fixed: Mapping[str, Any],
        tau: Mapping[str, Array],
        drawn: Sequence[PyTree],
        step: Array | int,
    ) -> Array:
        """The penalties' values, (P,) float32."""
        values = [
            functions[name](
                tau, fixed["params0"], drawn, jax.random.fold_in(key, step), f=functions["f"]
            )
            for name, key in zip(self.penalties, fixed["keys"], strict=True)
        ]
        return jnp.stack([jnp.asarray(value, jnp.float32) for value in values])

    def push(
        self,
        tau: Mapping[str, Array],
        along: Mapping[str, Array],
        fixed: Mapping[str, Any],
        drawn: Sequence[PyTree],
        step: Array | int,
    ) -> Array:
        """Penalties at τ, and their derivatives along a direction, by forward mode: (2, P)."""
        functions = self.functions.join(fixed["arrays"])

        def values(tau: Mapping[str, Array]) -> Array:
            return self.penalties_at(functions, fixed, tau, drawn, step)

        return jnp.stack(jax.jvp(values, (tau,), (along,)))

    def slope(
        self,
        tau: Mapping[str, Array],
        fixed: Mapping[str, Any],
        batch: PyTree,
        place: Placement,
        drawn: Sequence[PyTree] = (),
    ) -> Array:
        """Derivative of the first step's objective along τ at τ = 0, by forward mode.

        There both regimes have the same; τ, which is the first step's update, makes it the
        ``slope`` of that step, which took its gradient by reverse mode, where none was clipped.

        Returns:
            (2,): the derivative, and how much logits (or outputs, of an own loss) change, Σ |dz| an
            example: where a loss is near 0, p − y is rounding of 1, and so is the derivative.
        """
        functions = self._functions(fixed, place)
        key = jax.random.fold_in(fixed["key"], 0)
        sign = -1.0 if self.ascend else 1.0

        def along(tau: Mapping[str, Array], micro: PyTree, key: Array) -> Array:
            if functions["augment"] is not None:
                micro = functions["augment"](key, micro)
            inputs = [micro[name] for name in self.inputs]
            out, moved = taylor.affine_terms(functions["f"], fixed["params0"], [tau], *inputs)

            def loss(length: Array) -> tuple[Array, PyTree]:
                at = jax.tree.map(
                    lambda y, dy: y + length * dy[0] if tree.is_trainable(y) else y, out, moved
                )
                read = functions["readout"] or (lambda y: y)
                each = self.examples(functions, at, micro)["loss"]
                return jnp.mean(each.astype(jnp.float32)), read(at)

            _, (slope, change) = jax.jvp(loss, (jnp.zeros(()),), (jnp.ones(()),))
            moving = [jnp.abs(dz).sum() for dz in jax.tree.leaves(change) if tree.is_trainable(dz)]
            level = jnp.stack(moving).sum() / len(jax.tree.leaves(out)[0])
            return jnp.stack([sign * slope, level.astype(slope.dtype)])

        found = self._over_micro_batches(along, tau, batch, key, place)
        if self.penalties:
            zero = jax.tree.map(jnp.zeros_like, tau)
            _, slopes = self.push(zero, tau, fixed, drawn, 0)
            found = found.at[0].add((fixed["weights"] * slopes).sum())
        return found

    def _seen(self, params0: Params, tau: Mapping[str, Array]) -> Mapping[str, Array]:
        """What the optimizer takes for the parameters: τ, or θ = θ0 + τ."""
        if not self.optim.sees_theta:
            return tau
        base = tree.flatten(params0)
        return {n: base[n].astype(d.dtype) + d for n, d in tau.items()}

    def answer(
        self, params0: Params, state: State, mask: Mapping[str, Array] | None = None
    ) -> Mapping[str, Array]:
        """The τ to evaluate and to keep: that of the average, where the optimizer has one."""
        tau = state["tau"]
        seen = self._seen(params0, tau)
        average = averaged(state["opt"], _as_pairs(seen))
        if average is None:
            return tau
        average = _from_pairs(average, seen)
        return masked({n: t + (average[n] - seen[n]) for n, t in tau.items()}, mask)

    def _gradient(
        self,
        functions: Mapping[str, Any],
        params0: Params,
        tau: Mapping[str, Array],
        batch: PyTree,
        key: Array,
        place: Placement,
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        model = REGIMES[self.regime](functions["f"])
        sign = -1.0 if self.ascend else 1.0

        def objective(tau: Mapping[str, Array], micro: PyTree, key: Array) -> tuple:
            if functions["augment"] is not None:
                micro = functions["augment"](key, micro)
            outputs = model(params0, tau, *(micro[name] for name in self.inputs))
            measures = self.examples(functions, outputs, micro)
            means = {name: jnp.mean(m.astype(jnp.float32)) for name, m in measures.items()}
            return sign * means["loss"], means

        def gradient(tau: Mapping[str, Array], micro: PyTree, key: Array) -> tuple:
            found, means = jax.grad(objective, has_aux=True)(tau, micro, key)
            # of a complex leaf JAX gives the conjugate of the direction of ascent
            return jax.tree.map(jnp.conj, found), means

        return self._over_micro_batches(place.summed(gradient), tau, batch, key, place)

    def _over_micro_batches(
        self,
        of: Callable[[Mapping[str, Array], PyTree, Array], PyTree],
        tau: Mapping[str, Array],
        batch: PyTree,
        key: Array,
        place: Placement,
    ) -> Any:
        """The mean of ``of(τ, micro-batch, key)``."""
        if self.accumulate == 1:
            return of(tau, batch, key)

        def micro_batches(leaf: Array) -> Array:
            # every micro-batch takes from all over the batch, so that each device keeps its share
            apart = leaf.reshape(leaf.shape[0] // self.accumulate, self.accumulate, *leaf.shape[1:])
            return jnp.moveaxis(apart, 1, 0)

        def add(sums: PyTree, x: tuple[PyTree, Array]) -> tuple[PyTree, None]:
            micro, index = x
            new = of(tau, place.split_batch(micro), jax.random.fold_in(key, index))
            return jax.tree.map(jnp.add, sums, new), None

        micro = jax.tree.map(micro_batches, batch)
        first = jax.tree.map(lambda leaf: leaf[0], micro)
        like = jax.eval_shape(of, tau, first, key)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
        sums, _ = jax.lax.scan(add, zeros, (micro, jnp.arange(self.accumulate)))
        return jax.tree.map(lambda total: total / self.accumulate, sums)


def _inner(a: Array, b: Array) -> Array:
    """Re ⟨a, b⟩, in float32 at least."""
    wide = jnp.promote_types(a.dtype, jnp.float32)
    found = jnp.tensordot(
        jnp.conj(a), b, a.ndim, precision=jax.lax.Precision.HIGHEST, preferred_element_type=wide
    )
    return found.real


def _norm(inner: Callable[[Array, Array], Array], flat: Mapping[str, Array]) -> Array:
    return jnp.sqrt(jnp.stack([inner(x, x) for x in flat.values()]).sum())


def _as_pairs(flat: Mapping[str, Array]) -> dict[str, Any]:
    """A complex leaf as its real and imaginary parts: what an optimizer is to know of it."""
    return {n: (x.real, x.imag) if jnp.iscomplexobj(x) else x for n, x in flat.items()}


def _from_pairs(flat: Mapping[str, Any], like: Mapping[str, Array]) -> dict[str, Array]:
    """The inverse, for leaves of these names."""
    return {n: jax.lax.complex(*x) if jnp.iscomplexobj(like[n]) else x for n, x in flat.items()}


@dataclass(frozen=True)
class Programs:
    """The compiled functions of a run.

    ``step(state, fixed, batch, drawn)`` takes one step, ``drawn`` being batches of streams;
    ``steps(state, fixed, data, order, first, count)`` takes ``count`` steps, at most
    ``steps_per_call``, and stops at one that is not finite; both donate the state where it is
    overwritten. ``gather(data, order, first, step)`` makes a batch. Of which arguments they are
    checked already, ``checked`` says.
    """

    init: Callable[..., State]
    step: Callable[..., tuple[State, Metrics]]
    steps: Callable[..., tuple[State, Metrics]]
    gather: Callable[..., PyTree]
    checked: set[Hashable] = field(default_factory=set)


def overwritten(place: Placement, state: PyTree) -> bool:
    """Whether steps overwrite the state: on accelerators, and on CPU from 512 MiB on.

    On CPU the temporaries of such a step are mapped anew, page by page, in every step, and the
    arrays of a smaller state are not: up to a quarter of a small model's time.

    Args:
        place: the devices.
        state: arrays, or shapes, with their dtypes.
    """
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    return not place.on_cpu or size >= _LARGE


@lru_cache(maxsize=16)
def programs(
    recipe: Recipe,
    place: Placement,
    sharding: tuple[Any, tuple],
    steps_per_call: int,
    in_place: bool,
) -> Programs:
    """Programs that are compiled on first use and shared by equal recipes.

    Args:
        recipe: what a step does.
        place: the devices.
        sharding: tree definition and leaves of the state's shardings.
        steps_per_call: rows of the metrics of ``steps``.
        in_place: whether steps overwrite the state.
    """
    layout = jax.tree.unflatten(*sharding)

    def step(
        state: State, fixed: Mapping[str, Any], batch: PyTree, drawn: Sequence[PyTree] = ()
    ) -> tuple[State, Metrics]:
        return recipe.step(state, fixed, batch, place, in_place, drawn)

    def take(data: PyTree, order: Array, first: Array, step: Array) -> PyTree:
        return feed.gather(data, order, first, step, place)

    def steps(
        state: State, fixed: Mapping[str, Any], data: PyTree, order: Array, first: Array, count: Any
    ) -> tuple[State, Metrics]:
        def going(carry: tuple) -> Array:
            done, state, _ = carry
            return (done < count) & (state["bad"] == 0)

        def body(carry: tuple) -> tuple:
            done, state, metrics = carry
            batch = take(data, order, first, state["step"])
            state, new = recipe.step(state, fixed, batch, place, in_place)
            rows = {n: metrics[n].at[done].set(new[n][0]) for n in new if n != "bad"}
            return done + 1, state, {"bad": new["bad"], **rows}

        empty = {
            "step": jnp.zeros((steps_per_call,), jnp.int32),
            "bad": jnp.zeros((), jnp.int32),
            "values": jnp.zeros((steps_per_call, len(recipe.metrics)), jnp.float32),
            "slope": jnp.zeros((steps_per_call,), jnp.float32),
            **({"pull": jnp.zeros((steps_per_call, 2), jnp.float32)} if recipe.penalties else {}),
        }
        _, state, metrics = jax.lax.while_loop(
            going, body, (jnp.zeros((), jnp.int32), state, empty)
        )
        return state, metrics

    donated = (0,) if in_place else ()
    return Programs(
        init=jit(recipe.init, static_argnums=2, out_shardings=layout),
        step=jit(step, donate_argnums=donated, out_shardings=(layout, None)),
        steps=jit(steps, donate_argnums=donated, out_shardings=(layout, None)),
        gather=jit(take),
    )
