"""From a Flax model to ``(f, params)`` and back: the only core module that knows Flax.

Both ways give **evaluation mode at θ0**, as in *Task Arithmetic in the Tangent Space*: batch norm
uses its stored statistics and dropout is off, so ``f`` is a fixed function of its parameters and
``f_lin`` its tangent plane. In training mode the plane would belong to another function: one that
normalises by the batch at hand, so that each example's output and Jacobian depend on its
neighbours, and that carries one fixed dropout mask. It is there for those who want it.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import linen, nnx
from flax.errors import InvalidRngError, ModifyScopeVariableError
from jax.interpreters import partial_eval

from linearize import tree
from linearize.types import Apply, Params, PyTree

_EVALUATION = {
    **dict.fromkeys(
        ("train", "training", "is_training", "is_train", "in_training", "train_mode",
         "training_mode", "update_stats", "update_batch_stats", "enable_dropout"),
        False,
    ),
    **dict.fromkeys(
        ("deterministic", "use_running_average", "use_running_stats", "inference",
         "inference_mode", "is_inference", "eval", "evaluate", "evaluation", "is_eval",
         "is_evaluating", "eval_mode", "is_test", "test_mode"),
        True,
    ),
}  # fmt: skip
"""What a model's mode argument or attribute is called, and its value in evaluation mode."""


def from_linen(
    module: linen.Module,
    variables: Mapping[str, Any],
    *,
    method: str | Callable[..., Any] | None = None,
    **apply_kwargs: Any,
) -> tuple[Apply, Params]:
    """A linen module and its variables as ``(f, params)``.

    Other collections (batch statistics, caches) stay as they are in ``variables``. A mode argument
    of the method (``train``, ``is_training``, ``deterministic``, ``use_running_average``,
    ``update_stats``, ``inference``, ``eval`` and the like, keyword-only ones too) is set to
    evaluation unless it is given here, among the inputs, or as a field of the module. A module that
    yet changes its variables is refused. The way back is ``{**variables, "params": params}``.

    Args:
        module: any linen module; shared, scanned and remat'ed layers are welcome.
        variables: what ``module.init`` gave, with a ``"params"`` collection.
        method: the method to call instead of ``__call__``.
        **apply_kwargs: go to ``module.apply``: ``rngs={"dropout": key}``, ``train=True``, ... With
            ``mutable=["batch_stats"]``, ``f`` returns ``(outputs, new variables)``: pass
            ``has_aux=True`` to :func:`linearize.linearize`.

    Returns:
        ``f(params, *inputs)``, equal to ``module.apply``; and the parameters as nested plain
        dicts, without partitioning metadata.

    Raises:
        ValueError: ``variables`` has no ``"params"`` with a floating leaf; from ``f``, a module
            that changes its variables, where ``mutable`` was not given, or that draws random
            numbers, where ``rngs`` was not.
        TypeError: ``f`` was given parameters of other names or shapes (raised by Flax).

    >>> import jax.numpy as jnp
    >>> module = linen.Dense(2)
    >>> f, params = from_linen(module, module.init(jax.random.key(0), jnp.ones((1, 3))))
    >>> tree.names(params)
    ('bias', 'kernel')
    >>> f(params, jnp.ones((4, 3))).shape
    (4, 2)
    """
    if not isinstance(module, linen.Module):
        raise TypeError(_not_a(module, "linen", "from_nnx", nnx.Module))
    if "params" not in variables:
        raise ValueError(
            f"variables has collections {sorted(variables)} and no 'params'; pass what "
            "module.init(...) returned, or {'params': params}"
        )
    plain = jax.tree.map(lambda x: x, linen.meta.unbox(_plain(variables)))
    params, rest = plain["params"], {k: v for k, v in plain.items() if k != "params"}
    _check_trainable(params, "variables['params']")
    called = _unbound(type(module), "__call__" if method is None else method)
    flags = _mode_arguments(called, module)

    def f(params: Params, *inputs: PyTree) -> PyTree:
        modes, kwargs = _modes(flags, inputs, apply_kwargs)
        variables = {**rest, "params": params}
        try:
            return module.apply(variables, *inputs, *modes, method=called, **kwargs)
        except ModifyScopeVariableError as error:
            raise ValueError(
                "the module changes its variables (mode arguments set: "
                f"{sorted(flags) or 'none'}): {error}. {_WHAT_THEN}, or mutable=[...] to get the "
                "new variables beside the outputs (has_aux=True)"
            ) from error
        except InvalidRngError as error:
            raise ValueError(
                f"the module draws random numbers (mode arguments set: {sorted(flags) or 'none'}): "
                f"{error}. {_WHAT_THEN}, or rngs={{...}} for the function of those keys"
            ) from error

    return f, params


def from_nnx(
    model: nnx.Module,
    *,
    method: str | Callable[..., Any] = "__call__",
    train: bool = False,
    mutable: Any = None,
    wrt: Any = nnx.Param,
    **call_kwargs: Any,
) -> tuple[Apply, Params]:
    """An nnx model as ``(f, params)``; the model itself is never changed.

    Everything but ``wrt`` (batch statistics, dropout's keys and counts) is copied now and read
    afresh in each call, so ``f`` has no state. Mode attributes of all parts and mode arguments of
    the method are set to evaluation, by the names that :func:`from_linen` knows; a model that yet
    changes its state (batch statistics, dropout's keys and counts, variables of one's own) when it
    is called is refused, but for what it sows and for random numbers that are drawn and not used.
    What a spectral norm writes in evaluation mode is part of the function: the kernel divided by
    the norm that its stored statistics give, which are constants of the derivative. A tied
    parameter is one leaf, named by the first of its places in the order of attribute names.

    Args:
        model: any nnx module.
        method: name of the method to call, a bound method, or a function of ``(model, *inputs)``.
        train: take the model in training mode: batch statistics of the batch at hand, and the one
            dropout mask that the model's present keys and counts give.
        mutable: an nnx filter, such as ``nnx.BatchStat``: ``f`` then returns ``(outputs, state)``
            with the new values as nested dicts: pass ``has_aux=True`` to
            :func:`linearize.linearize`.
        wrt: an nnx filter of the variables that are parameters, as for ``nnx.grad``'s
            ``DiffState``: ``nnx.Param``, ``nnx.LoRAParam``, a variable class of one's own, or
            ``nnx.Any(...)`` of several.
        **call_kwargs: go to the method.

    Returns:
        ``f(params, *inputs)``, equal to the model in that mode; and its parameters as nested plain
        dicts, named like ``layers/0/kernel``. The way back is :func:`update_nnx`.

    Raises:
        ValueError: ``wrt`` finds no floating leaf; from ``f``, a model that changes its state in
            evaluation mode, unless ``mutable`` or a mode argument asks for that.
        StructureMismatch: ``f`` was given parameters of other names or shapes.

    >>> import jax.numpy as jnp
    >>> f, params = from_nnx(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
    >>> f(params, jnp.ones((4, 3))).shape
    (4, 2)
    """
    if not isinstance(model, nnx.Module):
        raise TypeError(_not_a(model, "nnx", "from_linen", linen.Module))
    copy = nnx.clone(model)
    for _, part in nnx.iter_modules(copy):
        for name in _EVALUATION.keys() & vars(part).keys():
            if isinstance(getattr(part, name), bool | None):  # None: left to the call
                setattr(part, name, _EVALUATION[name] != train)
    graphdef, *states = nnx.split(copy, wrt, ...)
    state, rest = states
    params = nnx.to_pure_dict(state)
    random = {path for path, _ in nnx.to_flat_state(nnx.state(copy, nnx.RngState))}
    kinds = sorted({type(v).__name__ for _, v in nnx.to_flat_state(rest)})
    _check_trainable(params, f"wrt={getattr(wrt, '__name__', wrt)} of this model", kinds)
    called = _unbound(type(model), method)
    flags = _mode_arguments(called, model, train)
    asked = train or mutable is not None or not _EVALUATION.keys().isdisjoint(call_kwargs)

    def f(params: Params, *inputs: PyTree) -> PyTree:
        # copy=True: otherwise the call would write into the variables of `rest`
        fresh = nnx.merge(graphdef, _replace(state, params), rest, copy=True)
        before, keys = _watched(fresh, wrt), nnx.to_pure_dict(nnx.state(fresh, nnx.RngKey))
        modes, kwargs = _modes(flags, inputs, call_kwargs)
        out = called(fresh, *inputs, *modes, **kwargs)

        def again(keys: PyTree) -> PyTree:
            fresh = nnx.merge(graphdef, _replace(state, params), rest, copy=True)
            nnx.replace_by_pure_dict(found := nnx.state(fresh, nnx.RngKey), keys)
            nnx.update(fresh, found)
            return called(fresh, *inputs, *modes, **kwargs)

        if not asked and all(place >= len(inputs) for place, _ in flags.values()):
            changed = _changed(before, _watched(fresh, wrt))
            if changed and (set(changed) - random or _depends_on_keys(again, keys)):
                raise ValueError(_what_changes(changed, flags))
        return out if mutable is None else (out, nnx.to_pure_dict(nnx.state(fresh, mutable)))

    return f, params


def update_nnx(model: nnx.Module, params: Params, *, wrt: Any = nnx.Param) -> None:
    """Write parameters, as :func:`from_nnx` names them, into a model in place.

    Args:
        model: the model.
        params: parameters.
        wrt: the filter that :func:`from_nnx` was given.

    Raises:
        StructureMismatch: other names or shapes than the model's; nothing is written.

    >>> import jax.numpy as jnp
    >>> model = nnx.Linear(1, 1, rngs=nnx.Rngs(0))
    >>> update_nnx(model, {"kernel": jnp.full((1, 1), 2.0), "bias": jnp.ones(1)})
    >>> model(jnp.ones(1))
    Array([3.], dtype=float32)
    """
    nnx.update(model, _replace(nnx.state(model, wrt), params))


def _replace(state: nnx.State, params: Params) -> nnx.State:
    tree.check_match(nnx.to_pure_dict(state), params, what="params")
    fresh = jax.tree.map(lambda x: x, state)
    nnx.replace_by_pure_dict(fresh, params)
    return fresh


def _check_trainable(params: Params, what: str, kinds: Sequence[str] = ()) -> None:
    if not any(map(tree.is_trainable, jax.tree.leaves(params))):
        remedy = f"; it has {', '.join(kinds)}: name what is trainable by wrt" if kinds else ""
        raise ValueError(f"{what} holds no floating leaf, so nothing can be trained{remedy}")


_WHAT_THEN = (
    "What would be differentiated is one call's function, which depends on the batch at hand or on "
    "a state that moves on; set the argument or attribute that says evaluation"
)


_Watched = Mapping[tuple[Any, ...], tuple[bool, Any]]
"""``{path: (whether it is a parameter, value)}``."""


def _watched(model: nnx.Module, wrt: Any) -> _Watched:
    """Parameters, and all else but what is sown."""
    parameters, _, others = nnx.state(model, nnx.Any(wrt, nnx.Param), nnx.Intermediate, ...)
    return {
        path: (is_parameter, v.get_value() if isinstance(v, nnx.Variable) else v)
        for is_parameter, state in ((True, parameters), (False, others))
        for path, v in nnx.to_flat_state(state)
    }


def _changed(before: _Watched, after: _Watched) -> list[tuple[Any, ...]]:
    """What a call did not leave as it was, parameters aside, as far as can be known.

    Traced values are compared by identity, which nnx's transforms (scan, remat) lose for whole
    modules: a new value is believed where parameters beside it kept theirs. Parameters may be
    written to: a spectral norm divides its kernel in place, each call from the given one.
    """
    after = {**before, **after}  # where the call took one away
    new = {path for path, (_, value) in before.items() if after[path][1] is not value}
    changed = []
    for path in sorted(new, key=str):
        (is_parameter, old), (_, now) = before[path], after[path]
        if not is_parameter and _differs(old, now, _beside_kept(path, new, before)):
            changed.append(path)
    return changed


def _what_changes(changed: Sequence[tuple[Any, ...]], flags: Mapping[str, Any]) -> str:
    named = ", ".join("/".join(map(str, path)) for path in changed[:4])
    more = ", ..." if len(changed) > 4 else ""
    return (
        f"the call changes the model's {named}{more} in evaluation mode "
        f"(mode arguments set: {sorted(flags) or 'none'}). {_WHAT_THEN}, or give train=True "
        "to linearize the function of the present batch, state and keys, or mutable=... to "
        "get the new state beside the outputs (has_aux=True)"
    )


def _depends_on_keys(f: Callable[[PyTree], PyTree], keys: PyTree) -> bool:
    """Whether a random number that is drawn is used; those of a zero carry, say, are not."""
    jaxpr = jax.make_jaxpr(f)(keys).jaxpr
    used = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[1]
    return any(used)


def _differs(old: Any, now: Any, where_traced: bool) -> bool:
    left, right = jax.tree.leaves(old), jax.tree.leaves(now)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in (*left, *right)):
        return where_traced
    return len(left) != len(right) or not all(
        np.array_equal(tree.to_numpy(a), tree.to_numpy(b), equal_nan=True)
        for a, b in zip(left, right, strict=True)
    )


def _beside_kept(path: tuple[Any, ...], new: set[tuple[Any, ...]], before: _Watched) -> bool:
    """Whether the nearest module around that has parameters kept one of them."""
    parameters = [p for p, (is_parameter, _) in before.items() if is_parameter]
    for depth in reversed(range(len(path))):
        beside = [p for p in parameters if p[:depth] == path[:depth]]
        if beside:
            return any(p not in new for p in beside)
    return True


def _not_a(model: object, wanted: str, other: str, kind: type) -> str:
    remedy, got = f": use {other}" if isinstance(model, kind) else "", type(model).__name__
    if inspect.ismethod(model):
        remedy = ": give the model itself, and this as method"
    if isinstance(model, type) and issubclass(model, linen.Module | nnx.Module):
        remedy, got = ": make an instance of it", f"the class {model.__name__}"
    return f"expected a module of flax.{wanted}, not {got}{remedy}"


def _plain(variables: Any) -> Any:
    """Nested mappings as nested dicts, FrozenDict included."""
    if isinstance(variables, Mapping):
        return {k: _plain(v) for k, v in variables.items()}
    return variables


def _unbound(kind: type, method: str | Callable[..., Any]) -> Callable[..., Any]:
    """A method of a class as a function of ``(model, *inputs)``, however it was given."""
    called = getattr(kind, method) if isinstance(method, str) else method
    return called.__func__ if inspect.ismethod(called) else called


def _mode_arguments(
    called: Callable[..., Any], module: Any, train: bool = False
) -> dict[str, tuple[float, bool]]:
    """``{argument: (its place among the inputs, its value)}`` of the mode arguments of a method.

    The place of one that is given by keyword alone is ∞. One that a field of the module answers
    already is left alone: Flax wants one answer, not two.
    """
    try:
        arguments = list(inspect.signature(called).parameters.values())[1:]
    except (TypeError, ValueError):  # a callable that does not say what it takes
        return {}
    return {
        a.name: (
            float("inf") if a.kind is a.KEYWORD_ONLY else place,
            _EVALUATION[a.name] != train,
        )
        for place, a in enumerate(arguments)
        if a.name in _EVALUATION
        and a.kind in (a.KEYWORD_ONLY, a.POSITIONAL_OR_KEYWORD)
        and not isinstance(getattr(module, a.name, None), bool)
    }


def _modes(
    flags: Mapping[str, tuple[float, bool]], inputs: tuple[PyTree, ...], given: Mapping[str, Any]
) -> tuple[tuple[bool, ...], dict[str, Any]]:
    """Mode arguments that are neither among the inputs nor given, and what is: by place, by name.

    Those that follow the inputs at once go by place, which transforms with static arguments want.
    """
    left = {n: flag for n, flag in flags.items() if n not in given and flag[0] >= len(inputs)}
    by_place: list[bool] = []
    for name, (place, value) in sorted(left.items(), key=lambda item: item[1][0]):
        if place == len(inputs) + len(by_place):
            by_place.append(value)
            del left[name]
    return tuple(by_place), {n: value for n, (_, value) in left.items()} | dict(given)
