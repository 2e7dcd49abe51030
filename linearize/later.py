"""What a package offers, imported when it is asked for: a page of results wants no framework."""

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any


def offered(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package.

    Args:
        package: its name.
        modules: by name, the module of the package that it is in; the name of a module of the
            package is that module.

    >>> offered("linearize", {"count_flops": "cost"})("count_flops").__module__
    'linearize.cost'
    """

    def get(name: str) -> Any:
        module = f"{package}.{modules.get(name, name)}"
        if name.startswith("_") or (name not in modules and not importlib.util.find_spec(module)):
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = importlib.import_module(module)
        return found if modules.get(name, name) == name else getattr(found, name)

    return get
