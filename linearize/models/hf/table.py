"""A table of names: whose tensor is which of ours, written once and read in both directions.

A row is ``(their name, our name, layout)``. In a name, ``{i}`` is the number of a block and
``{a|b|c}`` stands for several tensors that one leaf is made of, or that make several leaves.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

Arrays = Sequence[np.ndarray]


@dataclass(frozen=True)
class Layout:
    """How tensors of a row become leaves, and leaves tensors; each the inverse of the other."""

    load: Callable[[Arrays], Arrays]
    dump: Callable[[Arrays], Arrays]


def _each(
    load: Callable[[np.ndarray], np.ndarray], dump: Callable[[np.ndarray], np.ndarray]
) -> Layout:
    return Layout(lambda xs: [load(x) for x in xs], lambda xs: [dump(x) for x in xs])


def _patches(weight: np.ndarray) -> np.ndarray:
    """``(D, C, p, p)`` of a convolution to ``(p p C, D)`` of a matrix product."""
    return weight.transpose(2, 3, 1, 0).reshape(-1, weight.shape[0])


def _convolution(kernel: np.ndarray) -> np.ndarray:
    side = round((kernel.shape[0] / 3) ** 0.5)
    return kernel.reshape(side, side, 3, -1).transpose(3, 2, 0, 1)


def _split_positions(xs: Arrays) -> Arrays:
    """``(1 + g², D)``, the class token's first, to ``(D,)`` and ``(g, g, D)``."""
    (table,) = xs
    table = table.reshape(-1, table.shape[-1])
    side = round((table.shape[0] - 1) ** 0.5)
    return [table[0], table[1:].reshape(side, side, -1)]


def _join_positions(xs: Arrays) -> Arrays:
    first, table = xs
    return [np.concatenate([first[None], table.reshape(-1, table.shape[-1])])]


SAME = _each(lambda x: x, lambda x: x)
KERNEL = _each(np.transpose, np.transpose)
"""torch's ``(out, in)`` to ``(in, out)``."""
PATCHES = _each(_patches, _convolution)
TOKEN = _each(np.ravel, lambda x: x[None, None])
"""``(1, 1, D)`` to ``(D,)``."""
SCALAR = _each(lambda x: x.reshape(()), lambda x: x)
"""One number, whatever its shape."""
JOINED = Layout(lambda xs: [np.concatenate(xs)], lambda xs: np.split(xs[0], 3))
"""Biases of query, key and value to one."""
JOINED_KERNEL = Layout(
    lambda xs: [np.concatenate([x.T for x in xs], axis=1)],
    lambda xs: [x.T for x in np.split(xs[0], 3, axis=1)],
)
POSITIONS = Layout(_split_positions, _join_positions)
BATCHED_POSITIONS = Layout(_split_positions, lambda xs: [_join_positions(xs)[0][None]])

Row = tuple[str, str, Layout]


@dataclass(frozen=True)
class Table:
    """The names of one model in one dialect.

    Attributes:
        name: of the dialect, for messages.
        rows: their names, ours, and how one becomes the other.
        dropped: regular expressions of whole names that the model has no use for.
        aliases: ``(regular expression, replacement)`` applied to a name before all else, for
            prefixes that some writers put and others do not.
        running: likewise of a module's name, to what transformers 5 calls it while it runs, where
            files say otherwise.
    """

    name: str
    rows: tuple[Row, ...]
    dropped: tuple[str, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
    running: tuple[tuple[str, str], ...] = ()

    @cached_property
    def patterns(self) -> tuple[re.Pattern[str], ...]:
        """A regular expression of whole names for each row, with groups ``i`` and ``part``."""
        return tuple(_pattern(theirs) for theirs, _, _ in self.rows)

    @cached_property
    def our_patterns(self) -> tuple[re.Pattern[str], ...]:
        """Likewise of our names."""
        return tuple(_pattern(ours) for _, ours, _ in self.rows)

    def canonical(self, name: str) -> str:
        """A foreign name as this table writes it."""
        return _renamed(name, self.aliases)

    def module(self, name: str) -> str:
        """The module of a (canonical) weight, as transformers 5 calls it while it runs."""
        return _renamed(name.removesuffix(".weight"), self.running)

    def before(self, names: Iterable[str]) -> str:
        """What stands before those of a file's names that are of this table, such as ``vit.``."""
        for name in names:
            plain = self.canonical(name)
            if self.find(plain) and name.endswith(plain):
                return name.removesuffix(plain)
        return ""

    def drops(self, name: str) -> bool:
        """Whether the model has no use for a tensor of this (canonical) name."""
        return any(re.fullmatch(pattern, name) for pattern in self.dropped)

    def find(self, name: str) -> tuple[int, str] | None:
        """The row of a (canonical) name, and the number of its block or ``""``."""
        return _find(self.patterns, name)

    def find_ours(self, name: str) -> tuple[int, str] | None:
        """The row of one of our names, and the number of its block or ``""``."""
        return _find(self.our_patterns, name)


_WRAPPERS = (
    *("module", "model", "_orig_mod", "state_dict", "model_state_dict", "ema", "ema_model"),
    *("net", "network", "backbone", "image_encoder", "_forward_module"),
)
"""What trainers and compilers put before all names."""
_INNER = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What they put inside of names."""


def unwrap(names: Iterable[str]) -> dict[str, str]:
    """Each name without the words that wrappers put before all of them, nested or not.

    >>> unwrap(["module._orig_mod.norm.bias", "module._orig_mod.model.x"])
    {'module._orig_mod.norm.bias': 'norm.bias', 'module._orig_mod.model.x': 'model.x'}
    """
    inner = {name: _INNER.sub("", name) for name in names}
    while inner:
        words = {name.partition(".")[0] for name in inner.values()}
        if len(words) != 1 or not words <= set(_WRAPPERS):
            break
        bare = {name: rest.partition(".")[2] for name, rest in inner.items()}
        if not all(bare.values()):
            break
        inner = bare
    return inner


def spell(template: str, block: str) -> list[str]:
    """All names that a template stands for, in one block.

    >>> spell("layers.{i}.{q|k}_proj.weight", "3")
    ['layers.3.q_proj.weight', 'layers.3.k_proj.weight']
    """
    template = template.replace("{i}", block)
    match = re.search(r"\{([^}]*)\}", template)
    if match is None:
        return [template]
    return [template.replace(match[0], part) for part in match[1].split("|")]


def _renamed(name: str, by: Iterable[tuple[str, str]]) -> str:
    for pattern, replacement in by:
        name = re.sub(pattern, replacement, name)
    return name


def _pattern(template: str) -> re.Pattern[str]:
    pieces = re.split(r"(\{[^}]*\})", template)
    words = [
        r"(?P<i>\d+)" if p == "{i}" else f"(?:{p[1:-1]})" if p[:1] == "{" else re.escape(p)
        for p in pieces
    ]
    return re.compile("".join(words))


def _find(patterns: Sequence[re.Pattern[str]], name: str) -> tuple[int, str] | None:
    for row, pattern in enumerate(patterns):
        match = pattern.fullmatch(name)
        if match is not None:
            return row, match.groupdict().get("i") or ""
    return None
