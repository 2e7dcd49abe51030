"""Compiled programs, kept between calls: the same kernel at another θ does not compile again."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar

from linearize.agreement import settings

T = TypeVar("T")

_KEPT = 32

_programs: OrderedDict[Hashable, object] = OrderedDict()


def remembered(key: Hashable, make: Callable[[], T]) -> T:
    """What ``make()`` gave for this key, or gives now; the last 32 keys are remembered.

    A key without a hash (a model that is an unhashable object) is not remembered.

    >>> remembered("the key", list) is remembered("the key", list)
    True
    """
    key = (key, *settings())
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
