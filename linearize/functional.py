"""From a Flax model to ``(f, params)`` and back: the only core module that knows Flax.

Both ways give **evaluation mode at θ0**, as in *Task Arithmetic in the Tangent Space*: batch norm
uses its stored statistics and dropout is off, so ``f`` is a fixed function of its parameters and
``f_lin`` its tangent plane. In training mode the plane would belong to another function: one that
normalises by the batch at hand, so that each example's output and Jacobian depend on its
neighbours, and that carries one fixed dropout mask. It is there for those who want it.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import linen, nnx

from linearize import tree
from linearize.types import Apply, Params, PyTree

_EVALUATION = {
    "train": False,
    "training": False,
    "is_training": False,
    "deterministic": True,
    "use_running_average": True,
}
"""What a model's mode argument is called, and its value in evaluation mode."""


def from_linen(
    module: linen.Module,
    variables: Mapping[str, Any],
    *,
    method: str | Callable[..., Any] | None = None,
    **apply_kwargs: Any,
) -> tuple[Apply, Params]:
    """A linen module and its variables as ``(f, params)``.

    Other collections (batch statistics, caches) stay as they are in ``variables``. A mode argument
    of the method (``train``, ``training``, ``is_training``, ``deterministic``,
    ``use_running_average``) is set to evaluation unless it is given here, among the inputs, or as
    a field of the module. The way back is ``{**variables, "params": params}``.

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
        ValueError: ``variables`` has no ``"params"``.
        TypeError: ``f`` was given parameters of other names or shapes (raised by Flax).

    >>> import jax.numpy as jnp
    >>> module = linen.Dense(2)
    >>> f, params = from_linen(module, module.init(jax.random.key(0), jnp.ones((1, 3))))
    >>> tree.names(params)
    ('bias', 'kernel')
    >>> f(params, jnp.ones((4, 3))).shape
    (4, 2)
    """
    if "params" not in variables:
        raise ValueError(
            f"variables has collections {sorted(variables)} and no 'params'; pass what "
            "module.init(...) returned, or {'params': params}"
        )
    plain = jax.tree.map(lambda x: x, linen.meta.unbox(_plain(variables)))
    params, rest = plain["params"], {k: v for k, v in plain.items() if k != "params"}
    called = getattr(type(module), method) if isinstance(method, str) else method
    flags = _mode_arguments(called or type(module).__call__, module)

    def f(params: Params, *inputs: PyTree) -> PyTree:
        mode = {k: v for k, (place, v) in flags.items() if place >= len(inputs)}
        kwargs = {**mode, **apply_kwargs}
        return module.apply({**rest, "params": params}, *inputs, method=method, **kwargs)

    return f, params


def from_nnx(
    model: nnx.Module,
    *,
    method: str | Callable[..., Any] = "__call__",
    train: bool = False,
    mutable: Any = None,
    **call_kwargs: Any,
) -> tuple[Apply, Params]:
    """An nnx model as ``(f, params)``; the model itself is never changed.

    Everything but :class:`flax.nnx.Param` (batch statistics, dropout's keys and counts) is copied
    now and read afresh in each call, so ``f`` has no state. A tied parameter is one leaf, named by
    the first of its places in the order of attribute names.

    Args:
        model: any nnx module.
        method: name of the method to call, or a function of ``(model, *inputs)``.
        train: take the model in training mode: batch statistics of the batch at hand, and the one
            dropout mask that the model's present keys and counts give.
        mutable: an nnx filter, such as ``nnx.BatchStat``: ``f`` then returns ``(outputs, state)``
            with the new values as nested dicts: pass ``has_aux=True`` to
            :func:`linearize.linearize`.
        **call_kwargs: go to the method.

    Returns:
        ``f(params, *inputs)``, equal to the model in that mode; and its parameters as nested plain
        dicts, named like ``layers/0/kernel``. The way back is :func:`update_nnx`.

    Raises:
        StructureMismatch: ``f`` was given parameters of other names or shapes.

    >>> import jax.numpy as jnp
    >>> f, params = from_nnx(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
    >>> f(params, jnp.ones((4, 3))).shape
    (4, 2)
    """
    copy = nnx.clone(model)
    if train:
        copy.train()
    else:
        copy.eval()
    graphdef, *states = nnx.split(copy, nnx.Param, ...)
    state, rest = states
    params = nnx.to_pure_dict(state)
    called = getattr(type(model), method) if isinstance(method, str) else method
    flags = _mode_arguments(called, model, train)

    def f(params: Params, *inputs: PyTree) -> PyTree:
        # copy=True: otherwise the call would write into the variables of `rest`
        fresh = nnx.merge(graphdef, _replace(state, params), rest, copy=True)
        mode = {k: v for k, (place, v) in flags.items() if place >= len(inputs)}
        out = called(fresh, *inputs, **{**mode, **call_kwargs})
        return out if mutable is None else (out, nnx.to_pure_dict(nnx.state(fresh, mutable)))

    return f, params


def update_nnx(model: nnx.Module, params: Params) -> None:
    """Write parameters, as :func:`from_nnx` names them, into a model in place.

    Raises:
        StructureMismatch: other names or shapes than the model's; nothing is written.

    >>> import jax.numpy as jnp
    >>> model = nnx.Linear(1, 1, rngs=nnx.Rngs(0))
    >>> update_nnx(model, {"kernel": jnp.full((1, 1), 2.0), "bias": jnp.ones(1)})
    >>> model(jnp.ones(1))
    Array([3.], dtype=float32)
    """
    nnx.update(model, _replace(nnx.state(model, nnx.Param), params))


def _replace(state: nnx.State, params: Params) -> nnx.State:
    tree.check_match(nnx.to_pure_dict(state), params, what="params")
    fresh = jax.tree.map(lambda x: x, state)
    nnx.replace_by_pure_dict(fresh, params)
    return fresh


def _plain(variables: Any) -> Any:
    """Nested mappings as nested dicts, FrozenDict included."""
    if isinstance(variables, Mapping):
        return {k: _plain(v) for k, v in variables.items()}
    return variables


def _mode_arguments(
    called: Callable[..., Any], module: Any, train: bool = False
) -> dict[str, tuple[int, bool]]:
    """``{argument: (its place among the inputs, its value)}`` of the mode arguments of a method.

    One that a field of the module answers already is left alone: Flax wants one answer, not two.
    """
    arguments = list(inspect.signature(called).parameters.values())[1:]
    return {
        a.name: (place, _EVALUATION[a.name] != train)
        for place, a in enumerate(arguments)
        if a.name in _EVALUATION and not isinstance(getattr(module, a.name, None), bool)
    }
