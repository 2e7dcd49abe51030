"""What a run of ``experiments.localization`` measures."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from linearize.report.node import Floats, Node
from linearize.report.run import Run
from linearize.report.schema import Axes, Number, key

Pair = tuple[str, str]
"""A target task and a control task."""


@dataclass(frozen=True)
class Spectrum:
    """Eigenfunctions of one target's kernel on its and a control's points, k of them."""

    values: Annotated[Floats, Axes("S", "k")]
    """Descending."""
    weights: Annotated[Floats, Axes("S", "k")]
    """Shares of the target's squared coefficients."""
    control: Annotated[Floats, Axes("S", "k")]
    """Local energy on the control's points; 2 minus that is the task's."""


@dataclass(frozen=True)
class Energy:
    """At one initialization, by target and control; K shares of the eigenfunctions."""

    control: Mapping[str, Mapping[str, Annotated[Floats, Axes("S", "K")]]]
    """Weighted local energy on the control's points."""
    captured: Mapping[str, Mapping[str, Annotated[Floats, Axes("S", "K")]]]
    """How much of the target these eigenfunctions represent."""
    spectra: Mapping[str, Mapping[str, Spectrum]]
    """Of the drawn pairs."""


@dataclass(frozen=True)
class Errors:
    """ξ in one regime: the share of the control's predictions that the target's vector changes.

    Axes: seed, target, control; 0 on the diagonal.
    """

    box: Annotated[Floats, Axes("S", "T", "T", upper=1.0)]
    """Mean in the search box."""
    one: Annotated[Floats, Axes("S", "T", "T", upper=1.0)]
    """At α = (1, 1)."""


@dataclass(frozen=True)
class Correlation:
    """Spearman's ρ of each seed, and of the means over seeds with its 95 % interval over tasks."""

    seeds: Annotated[Floats, Axes("S")]
    mean: Number
    low: Number
    high: Number


@dataclass(frozen=True)
class Relation:
    """The energy on the control, at a share of the eigenfunctions, with one regime's ξ."""

    share: float
    regime: str
    coefficients: str
    pairs: Correlation
    """Over unordered pairs: the energy's mean and ξ's sum over both orders."""
    ordered: Correlation
    """Over ordered pairs."""


@dataclass(frozen=True, kw_only=True)
class Results(Run):
    """All that the page shows."""

    pretrained: Annotated[tuple[str, ...], Axes("T")] = key("tasks/pretrained")
    random: Annotated[tuple[str, ...], Axes("?")] = key("tasks/random")
    """The tasks whose kernels are taken at random weights too; it may be none."""
    pairs: tuple[Pair, ...]
    """Those whose spectra are drawn."""
    points: int
    output: str
    shares: Annotated[tuple[float, ...], Axes("K")]
    vectors: str | None = None
    energy: Mapping[str, Energy]
    """By initialization."""
    xi: Mapping[str, Errors]
    """By regime."""
    relation: tuple[Relation, ...] = ()

    @property
    def tasks(self) -> dict[str, tuple[str, ...]]:
        """By initialization, where a kernel is taken."""
        every = {"pretrained": self.pretrained, "random": self.random}
        return {initialization: names for initialization, names in every.items() if names}

    def of(self, part: str, initialization: str, pair: Pair) -> Any:
        """A pair's entry of a part of :class:`Energy`.

        Raises:
            ResultsError: there is none.
        """
        rows = Node(getattr(self.energy[initialization], part), f"energy/{initialization}/{part}")
        return rows.child(pair[0]).get(pair[1])

    def matrix(self, part: str, initialization: str, names: Sequence[str] = ()) -> Floats:
        """``control`` or ``captured`` of every pair of these tasks, or of all, (S, K, T, T).

        Axes: seed, share, target, control; NaN on the diagonal.
        """
        names = names or self.tasks[initialization]
        shape = (len(self.seeds), len(self.shares), len(names), len(names))
        found = np.full(shape, np.nan)
        for i, j in itertools.permutations(range(len(names)), 2):
            found[:, :, i, j] = self.of(part, initialization, (names[i], names[j]))
        return found

    def drawn(self, pair: Pair) -> list[tuple[str, Pair, Spectrum]]:
        """Spectra of both directions of a pair, each at every initialization that has both."""
        return [
            (initialization, direction, self.of("spectra", initialization, direction))
            for direction in (pair, pair[::-1])
            for initialization, names in self.tasks.items()
            if set(pair) <= set(names)
        ]
