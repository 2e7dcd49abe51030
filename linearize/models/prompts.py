"""What a task's sentences say: templates, and what they call each class.

Both are TOML files beside this one, in :data:`FOLDER`; files of one's own go before them.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from linearize import files

_MOST = 2**24
"""Bytes of a file of names."""
FOLDER = Path(__file__).parent / "prompts"
TEMPLATES = FOLDER / "templates.toml"
CLASS_NAMES = FOLDER / "class_names.toml"
ClassName = str | tuple[str, ...]
"""What sentences call a class, or each of several words for it."""
_REST = ("*", "{}")
"""In a table of class names, the line that leaves those that it does not hold their own names."""
_WORDNET = re.compile(r"\bn\d{8}\b")


class PromptError(ValueError):
    """Templates or class names that make no sentences for a task."""


def templates(task: str, path: str | Path | None = None) -> tuple[str, ...]:
    """A task's templates, each with one ``{}`` for the class's name.

    Args:
        task: its name; one that the file does not name takes ``default``.
        path: a TOML file of one's own, ``task = ["a photo of a {}.", ...]`` a line, or
            ``task = "another task"`` for that one's.

    Raises:
        FileNotFoundError: there is no such file.
        PromptError: it is no TOML, has neither the task nor ``default``, or a template that does
            not hold ``{}`` once.

    >>> templates("sun397")
    ('a photo of a {}.', 'a photo of the {}.')
    """
    where = Path(path or TEMPLATES)
    table = _table(where)
    if task not in table and "default" not in table:
        raise PromptError(f"{where} has no templates for {task!r}; add {task} or default")
    found = _entry(where, task if task in table else "default")
    if not isinstance(found, list) or not found:
        raise PromptError(f"{where}: {task} is {found!r}; expected a list of templates")
    for template in found:
        if not isinstance(template, str) or template.count("{}") != 1:
            raise PromptError(f"{where}: template {template!r} of {task} must hold {{}} once")
    return tuple(found)


def class_names(
    task: str, classes: Sequence[str], path: str | Path | None = None
) -> tuple[ClassName, ...]:
    """What sentences call a task's classes, in the order of its labels.

    Taken from the task's table in the file of one's own, else in :data:`CLASS_NAMES`, else from
    the data set's names, with underscores as spaces and without SUN397's ``/a/`` in front. A table
    with ``"*" = "{}"`` holds but the classes that are called otherwise, and a list of words makes
    sentences with each.

    Args:
        task: its name.
        classes: the data set's own names, by label.
        path: a TOML file of one's own: a table for each task, from the data set's names; or
            ``task = "another task"`` for that one's.

    Raises:
        FileNotFoundError: there is no such file.
        PromptError: it is no TOML; the task's table has other classes than the data set, which are
            listed; or there is no table and a name of the data set is no word.

    >>> class_names("sun397", ["/a/apse/indoor", "/b/ball_pit"])
    ('apse indoor', 'ball pit')
    """
    for where in (CLASS_NAMES,) if path is None else (Path(path), CLASS_NAMES):
        table = _entry(where, task)
        if table is not None:
            return _of_table(where, table, task, classes)
    return _of_data(task, classes, path)


def _of_table(where: Path, table: Any, task: str, classes: Sequence[str]) -> tuple[ClassName, ...]:
    """The names that a file gives to exactly the data set's classes, or to some of them."""
    if not isinstance(table, Mapping):
        raise PromptError(f"{where}: {task} is {table!r}; expected a table of class names")
    keys = [_key(name) for name in classes]
    ours = {_key(name): said for name, said in table.items() if (name, said) != _REST}
    lost = [name for name, key in zip(classes, keys, strict=True) if key not in ours]
    if table.get(_REST[0]) == _REST[1]:
        ours |= zip(map(_key, lost), _of_data(task, lost, where), strict=True)
        lost = []
    extra = [name for name in table if _key(name) not in keys and _key(name) in ours]
    if lost or extra or len(set(keys)) < len(keys):
        raise PromptError(
            f"the class names of {task} in {where} do not match the data set's {len(classes)} "
            f"classes: without a name {_some(lost)}; in the file alone {_some(extra)}. Name each "
            "class of the data set once"
        )
    said = [tuple(ours[key]) if isinstance(ours[key], list) else ours[key] for key in keys]
    for name in said:
        if not words(name) or not all(isinstance(w, str) and w.strip() for w in words(name)):
            raise PromptError(f"{where}: {task} calls a class {name!r}; expected a word or more")
    return tuple(said)


def words(name: ClassName) -> tuple[str, ...]:
    """The words for a class, one or more.

    >>> words("happy"), words(("happy", "smiling"))
    (('happy',), ('happy', 'smiling'))
    """
    return name if isinstance(name, tuple) else (name,)


def _of_data(task: str, classes: Sequence[str], path: str | Path | None) -> tuple[str, ...]:
    """The data set's own names, where all of them are words: no number, no WordNet id."""
    said = tuple(_plain(name) for name in classes)
    for name, plain in zip(classes, said, strict=True):
        if _WORDNET.search(plain) or not any(character.isalpha() for character in plain):
            own = path or "a TOML file of your own (--head.class-names FILE)"
            raise PromptError(
                f"{task} calls a class {name!r}, which is no word, and no file names its classes; "
                f'add a table [{task}] to {own}, with a line such as "{name}" = "..." for each '
                f"of its {len(classes)} classes"
            )
    return said


def _entry(where: Path, task: str) -> Any:
    """What a file holds of a task; where that is another task's name, that one's. None for none."""
    table = _table(where)
    found = table.get(task)
    if isinstance(found, str) and found not in table:
        raise PromptError(
            f"{where}: {task} is {found!r}, which is no task there; expected a list of templates "
            "or a table of class names, or the name of a task that has one"
        )
    return table[found] if isinstance(found, str) else found


def _key(name: str) -> str:
    """Class numbers without their leading zeros: GTSRB's folders are 00000 to 00042."""
    return str(int(name)) if name.isdecimal() else name


def _plain(name: str) -> str:
    bare = re.sub(r"^/\w/", "", name)
    return (bare if bare == name else bare.replace("/", " ")).replace("_", " ")


def _some(names: Sequence[str]) -> str:
    return (", ".join(names[:5]) + (f", ... ({len(names)})" if len(names) > 5 else "")) or "none"


def _table(path: Path) -> Mapping[str, Any]:
    return _read(path, path.stat().st_mtime_ns)


@cache
def _read(path: Path, stamp: int) -> Mapping[str, Any]:
    try:
        return tomllib.loads(files.read_text(path, most=_MOST))
    except (ValueError, RecursionError) as error:
        raise PromptError(f"{path} is no readable TOML: {error}") from error
