"""A configuration to JSON and back, checked field by field."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from linearize import choices, fields, files, models

C = TypeVar("C")


class ConfigError(ValueError):
    """A configuration that cannot be run; the message names the field, the value and a remedy."""


_MOST = 2**24
"""Bytes of a configuration."""


def require(holds: bool, field: str, value: object, remedy: str) -> None:
    """Refuse the field's value unless it holds.

    Raises:
        ConfigError: it does not.
    """
    if not holds:
        raise ConfigError(f"{field}={value!r}: {remedy}")


def require_distinct(field: str, given: Sequence[object], least: int = 1) -> None:
    """Refuse fewer than so many values, or one of them twice.

    Raises:
        ConfigError: too few, or one twice.
    """
    require(len(given) >= least, field, given, f"name {least} or more")
    require(len(set(given)) == len(given), field, given, "name each once")


def require_tasks(tasks: Sequence[str], control: str | None, least: int) -> None:
    """Refuse ``data.tasks`` of too few, or of one twice, or with the control among them.

    Raises:
        ConfigError: such tasks.
    """
    require_distinct("data.tasks", tasks, least)
    remedy = "the control task must not be one of data.tasks"
    require(control not in tasks, "data.control", control, remedy)


def _of_images() -> Collection[str]:
    from linearize.data import TASKS, VISION  # readers of data are not needed but here

    return {*TASKS, *VISION}


def require_task(
    field: str,
    task: str,
    tasks: Sequence[str],
    whole: str = "data.tasks",
    known: Callable[[], Collection[str]] = _of_images,
) -> None:
    """Refuse a field that names a task which is none of ``data.tasks``.

    Where ``data.tasks`` itself holds a name that no task has, it is the one to mend, and is named.

    Args:
        field: what names it.
        task: the name.
        tasks: what may be named.
        whole: the field that says these.
        known: the names that tasks may have, asked for where the task is none of these.

    Raises:
        ConfigError: with the nearest name.
    """
    if task in tasks:
        return
    every = known()
    for name in tasks:
        remedy = f"no task of this name{choices.hint(name, every)} ({field} has {task!r})"
        require(name in every, whole, name, remedy)
    require(False, field, task, f"not one of {whole}{choices.hint(task, tasks)}")


@contextlib.contextmanager
def said_as_configuration(part: str) -> Iterator[None]:
    """What a loader refuses was written in the configuration: say so, without a traceback.

    Raises:
        ConfigError: the part, and what was refused.
    """
    try:
        yield
    except models.WeightsError:
        raise
    except (FileNotFoundError, ModuleNotFoundError, ValueError) as error:
        raise ConfigError(f"{part}: {error}") from error


def taken(kind: type, config: Any) -> dict[str, Any]:
    """The fields of ``kind`` that a configuration of another kind has too, by name."""
    names = [field.name for field in dataclasses.fields(kind)]
    return {name: getattr(config, name) for name in names if hasattr(config, name)}


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as JSON's types."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(kind: type[C], values: Mapping[str, Any]) -> C:
    """The configuration that :func:`to_dict` wrote; what ``kind.FORMER`` names is passed over.

    Raises:
        ConfigError: a field that ``kind`` does not have, or a value of the wrong kind.
    """
    return fields.read(kind, values, ConfigError)


def completed(kind: type[C], values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration's JSON where an option that did not exist at its time has its default.

    A file that does not fit ``kind`` is returned as it is.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Config:
    ...     steps: int = 1
    ...     new: float | None = None
    >>> completed(Config, {"steps": 3})
    {'steps': 3, 'new': None}
    """
    try:
        return to_dict(from_dict(kind, values))
    except (AttributeError, TypeError, ValueError):
        return dict(values)


def differences(a: Any, b: Any) -> list[str]:
    """Lines ``field: a -> b`` for each leaf in which two JSON trees differ."""
    return [f"{field}: {left!r} -> {right!r}" for field, left, right in _differing(a, b)]


def hindrances(begun: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Why a run that was begun may not go on as another configuration; nothing where it may.

    ``seeds`` may be added, in any order: each is measured on its own. All else must agree.

    >>> hindrances({"seeds": [0], "lr": 1}, {"seeds": [1, 0], "lr": 1})
    []
    >>> hindrances({"seeds": [0, 1], "lr": 1}, {"seeds": [0], "lr": 2})
    ['lr: 1 -> 2', 'seeds: [0, 1] -> [0] (seeds may be added, not left out)']
    """
    lines = []
    for field, left, right in _differing(begun, wanted):
        line = f"{field}: {left!r} -> {right!r}"
        if field.rpartition(".")[2] != "seeds":
            lines.append(line)
        elif not set(left or ()) <= set(right or ()):
            lines.append(f"{line} (seeds may be added, not left out)")
    return lines


def _differing(a: Any, b: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in sorted(set(a) | set(b)):
            yield from _differing(a.get(key), b.get(key), f"{where}.{key}" if where else key)
    elif a != b:
        yield where, a, b


def load_config(kind: type[C], path: str | Path) -> C:
    """A configuration from the ``config.json`` of an earlier run.

    Raises:
        ConfigError: the file cannot be read, or does not fit ``kind``.
    """
    try:
        return from_dict(kind, files.read_json(path, most=_MOST))
    except (OSError, files.CorruptFileError) as error:
        raise ConfigError(f"{path}: not a readable configuration ({error})") from error
    except (TypeError, ValueError) as error:  # of the configuration's own checks
        raise ConfigError(f"{path}: {error}") from error
