"""The first steps of a program beside forward mode: gradient, penalties, and what a mask holds."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from linearize import identity, tree
from linearize.agreement import agree, is_fixed, narrowest, settle
from linearize.compiled import jit
from linearize.train.mask import outside
from linearize.train.mesh import Placement
from linearize.train.optim import OptimConfig
from linearize.train.step import Metrics, Recipe, State
from linearize.types import Array, PyTree

log = logging.getLogger(__name__)


def check_first_step(
    recipe: Recipe,
    place: Placement,
    state: State,
    fixed: Mapping[str, Any],
    batch: PyTree,
    metrics: Metrics,
    drawn: Sequence[PyTree] = (),
) -> None:
    """Hold the first step's gradient, along its update, to forward mode's derivative there.

    A loss without forward mode, or an update that is not finite, is not checked; nor are functions
    that change from trace to trace. Nothing of τ's size is held beside the state. Penalties are
    part of the objective; but at τ = 0 most are flat, and :func:`check_penalties` looks again.

    Args:
        recipe: of the step.
        place: the devices.
        state: after the step, which began at τ = 0.
        fixed: as the step had them.
        batch: as the step had it.
        metrics: of the step.
        drawn: as the step had them.

    Raises:
        DisagreementError: the two differ by more than rounding, or τ moved outside its mask.
    """
    if int(metrics["bad"]):
        return
    if "mask" in fixed:
        agree(
            int(_outside(state["tau"], fixed["mask"])),
            0.0,
            scale=0.0,
            dtypes=(jnp.float32,),
            terms=0,
            what="how many numbers of τ are not 0 outside the mask",
            entry="after the first step",
        )
    # one program for both regimes and all optimizers
    shared = replace(recipe, regime="nonlinear", optim=OptimConfig())
    values = dict(zip(recipe.metrics, np.asarray(metrics["values"])[0].tolist(), strict=True))
    functions = recipe.functions.join(fixed["arrays"])
    f, augment = functions["f"], functions["augment"]
    assert f is not None
    seen = batch if augment is None else jax.eval_shape(augment, fixed["key"], batch)
    inputs = [seen[name] for name in recipe.inputs]
    norm, most = values["grad_norm"], recipe.optim.clip
    share = 1.0 if most is None or norm < most else most / norm
    terms = norm + (float(metrics["pull"][0, 1]) if recipe.penalties else 0.0)
    slope = partial(shared.slope, place=place, drawn=drawn)

    def check(expected: np.ndarray) -> None:
        agree(
            np.asarray(metrics["slope"])[0],
            float(expected[0]) * share,
            scale=share * (terms * values["tau_norm"] + float(expected[1])),
            dtypes=(jnp.float32, narrowest(f, fixed["params0"], *inputs)),
            terms=sum(leaf.size for leaf in state["tau"].values()),
            what=f"the gradient of the first {recipe.regime} step (clipped), along its update",
            entry="⟨∇L, Δτ⟩",
        )

    settle(
        check,
        # fails of custom rules
        lambda: np.asarray(_slope(shared, place, state["tau"], fixed, batch, drawn)),
        fixed=partial(is_fixed, slope, state["tau"], dict(fixed), batch),
    )


@partial(jit, static_argnums=(0, 1))
def _slope(
    recipe: Recipe,
    place: Placement,
    tau: PyTree,
    fixed: Mapping[str, Any],
    batch: PyTree,
    drawn: Sequence[PyTree] = (),
) -> Array:
    return recipe.slope(tau, fixed, batch, place, drawn)


def check_penalties(
    recipe: Recipe, state: State, fixed: Mapping[str, Any], drawn: Sequence[PyTree]
) -> Callable[[Metrics], None]:
    """What will hold a step's penalties, and their gradient along τ, to forward mode.

    Args:
        recipe: of the step.
        state: before the step, whose τ is not 0.
        fixed: as the step will have them.
        drawn: likewise.

    Returns:
        ``check(metrics)`` of the step, which raises a DisagreementError.
    """
    shared = replace(recipe, regime="nonlinear", optim=OptimConfig())
    tau, step = state["tau"], state["step"]
    try:
        values, slopes = np.asarray(_push(shared, tau, fixed, drawn, step), np.float64)
        size = float(tree.norm(tau))
        kind = narrowest(shared.push, tau, tau, fixed, drawn, step)
    except Exception as error:  # of the user's function: it need not have forward mode
        log.debug("penalties cannot be checked by forward mode: %r", error)
        return lambda metrics: None
    left, at = identity.shapes((tau, step))  # the state itself will be overwritten
    same = partial(is_fixed, shared.push, left, left, fixed, drawn, at)
    numbers = sum(leaf.size for leaf in tau.values())
    weights = np.asarray(fixed["weights"], np.float64)

    def check(metrics: Metrics) -> None:
        if int(metrics["bad"]):
            return
        found = np.asarray(metrics["values"])[0]
        pull, norm = np.asarray(metrics["pull"], np.float64)[0]

        def hold(expected: tuple[np.ndarray, np.ndarray]) -> None:
            rounding: dict[str, Any] = {"dtypes": (jnp.float32, kind), "terms": numbers}
            what = f"of the second {recipe.regime} step"
            for name, value, weight in zip(recipe.penalties, expected[0], weights, strict=True):
                here = found[recipe.metrics.index(name)]
                scale = abs(value) + norm * size / weight if weight else np.inf
                agree(here, value, scale=scale, what=f"{name} {what}", entry="P", **rounding)
            total = float(weights @ expected[1])
            scale = norm * size + float(weights @ abs(expected[1]))
            what = f"the gradient of the penalties {what}, along τ"
            agree(pull, total, scale=scale, what=what, entry="⟨∇P, τ⟩", **rounding)

        settle(hold, lambda: (values, slopes), fixed=same)

    return check


@partial(jit, static_argnums=0)
def _push(
    recipe: Recipe, tau: PyTree, fixed: Mapping[str, Any], drawn: Sequence[PyTree], step: Array
) -> Array:
    return recipe.push(tau, tau, fixed, drawn, step)


_outside = jit(outside)
