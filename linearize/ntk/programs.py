"""Compiled programs, kept between calls: the same kernel at another θ does not compile again."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar

import jax

T = TypeVar("T")

_KEPT = 32

_CONTEXT = ("jax_enable_x64", "jax_default_matmul_precision")
"""Settings of JAX that a traced model depends on."""

_programs: OrderedDict[Hashable, object] = OrderedDict()


def remembered(key: Hashable, make: Callable[[], T]) -> T:
    """What ``make()`` gave for this key, or gives now; the last 32 keys are remembered.

    A key without a hash (a model that is an unhashable object) is not remembered.

    >>> remembered("the key", list) is remembered("the key", list)
    True
    """
    key = (key, *(jax.config.values[name] for name in _CONTEXT))
    try:
        hash(key)
    except TypeError:
        return make()
    if key not in _programs:
        _programs[key] = make()
        while len(_programs) > _KEPT:
            _programs.popitem(last=False)
    _programs.move_to_end(key)
    return _programs[key]  # type: ignore[return-value]
