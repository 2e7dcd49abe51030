"""Where NaN and infinity come from: the data, θ0's own outputs, a penalty, or the steps taken."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from linearize import tree
from linearize.train.step import Recipe
from linearize.types import Array, Params, PyTree


def blame(
    recipe: Recipe,
    arrays: list[Array],
    params0: Params,
    batch: dict[str, PyTree],
    key: Array,
    rows: Sequence[int] | None,
) -> str:
    """What is not finite before any step is taken; empty where all of it is finite.

    Args:
        recipe: of the run.
        arrays: of its functions.
        params0: θ0.
        batch: of the step that failed, as the data give it.
        key: of that step's ``augment``.
        rows: numbers of its examples in the data; None for their places in the batch.
    """
    functions: dict[str, Any] = recipe.functions.join(arrays)

    def before_any_step() -> str:
        if said := _found(batch, "data: entry", "mend or leave out these examples", rows):
            return said
        seen = batch
        if functions["augment"] is not None:
            seen = functions["augment"](key, batch)
            if said := _found(seen, "augment: entry", "augment makes them so", rows):
                return said
        outputs = functions["f"](params0, *(seen[name] for name in recipe.inputs))
        if said := _found(
            outputs, "f: outputs at θ0 are", "no step made them so; check f there", rows
        ):
            return said
        measures = recipe.examples(functions, outputs, seen)
        advice = "no step made them so; check the loss"
        return _found({"": measures["loss"]}, "loss: values at θ0 are", advice, rows)

    with jax.debug_nans(False):
        return before_any_step()


def _found(values: PyTree, what: str, advice: str, rows: Sequence[int] | None) -> str:
    """The first entry with examples that are not finite; empty where there is none."""
    for name, leaf in tree.flatten(values).items():
        if not tree.is_trainable(leaf):
            continue
        finite = np.atleast_1d(np.isfinite(np.asarray(leaf)))
        bad = np.flatnonzero(~finite.reshape(len(finite), -1).all(axis=1))
        if len(bad):
            numbers = bad if rows is None else np.sort(np.asarray(rows)[bad])
            shown = ", ".join(map(str, numbers[:5].tolist())) + ", ..." * (len(bad) > 5)
            of = "the batch" if rows is None else "the data"
            entry = f"{what} {name!r}" if name else what
            return (
                f"{entry} not finite in {len(bad)} of {len(finite)} examples, numbers {shown} "
                f"of {of}; {advice}"
            )
    return ""


def blame_penalties(
    recipe: Recipe,
    fixed: Mapping[str, Any],
    tau: Mapping[str, Array],
    drawn: Mapping[str, PyTree],
    step: int,
) -> str:
    """The penalty that is not finite, or whose gradient is not; empty where all of them are.

    Args:
        recipe: of the run.
        fixed: as steps are given them.
        tau: before the step that failed.
        drawn: batches of that step's streams, by their places.
        step: how many were taken before it.
    """
    functions = recipe.functions.join(fixed["arrays"])
    with jax.debug_nans(False):
        for where, batch in drawn.items():
            if said := _found(batch, f"{where}: entry", "mend or leave out these examples", None):
                return said
        for place, name in enumerate(recipe.penalties):

            def value(tau: Mapping[str, Array], place: int = place) -> Array:
                return recipe.penalties_at(functions, fixed, tau, [*drawn.values()], step)[place]

            found, slope = jax.value_and_grad(value)(tau)
            if not jnp.isfinite(found):
                return f"{name} is {float(found)} before that step; check its value and state"
            bad = [n for n, leaf in slope.items() if not jnp.isfinite(leaf).all()]
            if bad:
                why = "; a norm has no gradient at τ = 0: take its square, or guard it there"
                return f"{name} has no finite gradient in {bad[0]!r}{why if not step else ''}"
    return ""
