"""Arguments, and things of a module, that had another name."""

import functools
import importlib
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def renamed(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """The function takes an argument by its former name too, and warns with the present one.

    Args:
        names: the present name by the former one.

    >>> @renamed(params_filter="trainable")
    ... def kernel(*, trainable):
    ...     return trainable
    >>> with warnings.catch_warnings(record=True, action="always") as caught:
    ...     kernel(params_filter="out"), str(caught[0].message)
    ('out', 'kernel: params_filter is now named trainable; the former name will go')
    """

    def decorated(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def taking(*args: P.args, **kwargs: P.kwargs) -> R:
            for old, new in names.items():
                if old in kwargs:
                    said = f"{function.__name__}: {old} is now named {new}; "
                    if new in kwargs:
                        raise TypeError(f"{said}give {new} alone")
                    warnings.warn(
                        f"{said}the former name will go", DeprecationWarning, stacklevel=2
                    )
                    kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return taking

    return decorated


def formerly(module: str, **names: str) -> Callable[[str], Any]:
    """A module's ``__getattr__``: it has things by their former names too, and warns.

    Args:
        module: its ``__name__``.
        names: the present name by the former one.

    >>> with warnings.catch_warnings(record=True, action="always") as caught:
    ...     formerly("linearize.choices", near="hint")("near").__name__, str(caught[0].message)
    ('hint', 'linearize.choices.near is now named hint; the former name will go')
    """

    def found(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        said = f"{module}.{name} is now named {names[name]}; the former name will go"
        warnings.warn(said, DeprecationWarning, stacklevel=2)
        return getattr(importlib.import_module(module), names[name])

    return found
