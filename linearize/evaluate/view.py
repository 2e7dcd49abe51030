"""How the model at θ0 + Σ α_t τ_t is evaluated: the model itself there, or its tangent at θ0.

Which view belongs to a task vector is its method's to say; any vectors can be seen in both.
"""

import abc
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from linearize.choices import one_of
from linearize.evaluate.affine import AffineOutputs, affine_outputs
from linearize.evaluate.batches import forward, outputs, window
from linearize.evaluate.displace import displaced_values
from linearize.evaluate.grid import check_points, grid_logits, grid_values
from linearize.evaluate.stream import streamed_values
from linearize.examples import Examples, as_arguments
from linearize.objectives import Objective
from linearize.task_vector import TaskVector
from linearize.taylor import check_function, displaced, tangent
from linearize.types import Apply, Params

Points = Mapping[str, ArrayLike]
"""Coefficients by vector, numbers or (A,); a vector that is left out has 0."""

KEPT_BYTES = 2 * 1024**3
"""Outputs of a data set, and their derivatives, that the tangent view keeps between points."""

WIDEST = 2**14
"""Outputs of one example that it keeps at most; over a vocabulary there are more, of a few data."""


class View(abc.ABC):
    """A model and some task vectors, evaluated at any coefficients of these.

    Args:
        f: ``f(params, *inputs) -> outputs (B, ...)``.
        params0: θ0.
        vectors: T ≥ 1 task vectors by name; a coefficient is given by the same name.
        batch_size: examples a pass.

    Raises:
        TypeError: ``f`` is no function (:func:`linearize.taylor.check_function`).
        ValueError: there is no vector.
    """

    name: ClassVar[str]
    passes: ClassVar[bool]
    """Whether each point takes passes through the model. Objectives then do well to be of one
    shape (:meth:`linearize.objectives.Objective.alike`), and grids to be coarse."""

    def __init__(
        self,
        f: Apply,
        params0: Params,
        vectors: Mapping[str, TaskVector],
        batch_size: int = 256,
    ) -> None:
        check_function(f)
        if not vectors:
            raise ValueError("vectors is empty; give at least one task vector")
        self.f, self.params0, self.vectors = f, params0, dict(vectors)
        self.batch_size = batch_size

    @staticmethod
    def moving(f: Apply) -> Apply:
        """Outputs at θ0 + τ, to differentiate: ``(params0, tau, *inputs) -> outputs``."""
        return displaced(f)

    def expanded_at(self, tau: TaskVector) -> Params:
        """The weights whose layers' inputs and derivatives belong to the model at θ0 + τ."""
        return tau.apply_to(self.params0)

    @abc.abstractmethod
    def values(
        self, points: np.ndarray, examples: Examples, objective: Objective
    ) -> dict[str, np.ndarray]:
        """Every metric at points (G, T), coefficients in the vectors' order; (G,) float64 each."""

    def measure(self, points: Points, examples: Examples, objective: Objective) -> np.ndarray:
        """The objective's primary metric, (A,) float64.

        Args:
            points: a number or (A,) for each vector that moves.
            examples: the data.
            objective: what is measured.

        Raises:
            ValueError: a name that no vector has, coefficients that are not finite or of different
                lengths, or targets that do not fit.
        """
        unknown = [name for name in points if name not in self.vectors]
        if unknown:
            raise ValueError(f"points name {unknown}; the vectors are {list(self.vectors)}")
        columns = np.broadcast_arrays(
            *(np.atleast_1d(np.asarray(points.get(name, 0.0), np.float64)) for name in self.vectors)
        )
        return self.values(np.stack(columns, -1), examples, objective)[objective.primary.name]

    @abc.abstractmethod
    def outputs(self, points: np.ndarray, examples: Examples) -> np.ndarray:
        """The outputs at points (G, T): (G, N, ...), on the host."""

    def at(self, point: Mapping[str, float], examples: Examples, objective: Objective) -> float:
        """The same at one point."""
        return float(self.measure(point, examples, objective)[0])


class Displaced(View):
    """``f(x; θ0 + Σ α_t τ_t)``: a pass for each point.

    >>> f, tau = lambda params, x: x @ params["w"], TaskVector({"w": np.diag([2.0, 0.0])})
    >>> data = Examples(np.array([[1.0, 2.0], [3.0, 1.0]]), {"labels": np.array([0, 0])})
    >>> from linearize.objectives import Classify
    >>> Displaced(f, {"w": np.eye(2)}, {"one": tau}).measure({"one": [0, 1]}, data, Classify())
    array([0.5, 1. ])
    """

    name = "displaced"
    passes = True

    @cached_property
    def _whole(self) -> Mapping[str, TaskVector]:
        return of_the_same_leaves(self.vectors)

    @cached_property
    def _sums(self) -> dict[tuple[str, ...], TaskVector]:
        return {}

    def values(
        self, points: np.ndarray, examples: Examples, objective: Objective
    ) -> dict[str, np.ndarray]:
        """Every metric at points (G, T)."""
        directions, points = self._directions(check_points(points, len(self.vectors)))
        return displaced_values(
            self.f,
            self.params0,
            directions,
            examples.inputs,
            points,
            objective,
            examples.targets,
            self.batch_size,
        )

    def outputs(self, points: np.ndarray, examples: Examples) -> np.ndarray:
        """The outputs at points (G, T): (G, N, ...)."""
        taus = list(self._whole.values())
        found = []
        for point in check_points(points, len(taus)):
            parts = [float(a) * tau for a, tau in zip(point, taus, strict=True) if a]
            at = sum(parts[1:], start=parts[0]).apply_to(self.params0) if parts else self.params0
            found.append(outputs(self.f, at, examples.inputs, self.batch_size))
        return jax.tree.map(lambda *each: np.stack(each), *found)

    def _directions(self, points: np.ndarray) -> tuple[list[TaskVector], np.ndarray]:
        """The same points with fewer vectors: those that move alike are summed once and kept."""
        alike: dict[bytes, list[str]] = {}
        for name, column in zip(self._whole, points.T, strict=True):
            if column.any():
                alike.setdefault(column.tobytes(), []).append(name)
        groups = [tuple(names) for names in alike.values()] or [(next(iter(self._whole)),)]
        for group in groups:
            if group not in self._sums:
                first, *rest = (self._whole[name] for name in group)
                self._sums[group] = sum(rest, start=first)
        columns = [list(self._whole).index(group[0]) for group in groups]
        return [self._sums[group] for group in groups], points[:, columns]


def of_the_same_leaves(vectors: Mapping[str, TaskVector]) -> dict[str, TaskVector]:
    """The vectors, which can then be summed: a leaf that one lacks is zero there."""
    leaves = {name: leaf for tau in vectors.values() for name, leaf in tau.delta.items()}
    return {
        task: tau
        if tau.delta.keys() == leaves.keys()
        else replace(tau, delta={n: tau.delta.get(n, jnp.zeros_like(d)) for n, d in leaves.items()})
        for task, tau in vectors.items()
    }


class Tangent(View):
    """``f(x; θ0) + Σ α_t J(x) τ_t``: one pass with T tangents for a data set, then algebra.

    Outputs too large to keep (:data:`KEPT_BYTES`, :data:`WIDEST`) are passed again for each set of
    points, all of which are then measured while a batch is there.

    >>> f, tau = lambda params, x: x @ params["w"], TaskVector({"w": np.diag([2.0, 0.0])})
    >>> data = Examples(np.array([[1.0, 2.0], [3.0, 1.0]]), {"labels": np.array([0, 0])})
    >>> from linearize.objectives import Classify
    >>> Tangent(f, {"w": np.eye(2)}, {"one": tau}).measure({"one": [0, 1]}, data, Classify())
    array([0.5, 1. ])
    """

    name = "tangent"
    passes = False

    @staticmethod
    def moving(f: Apply) -> Apply:
        """f0 + Jτ."""
        return tangent(f)

    def expanded_at(self, tau: TaskVector) -> Params:
        """θ0, wherever the model is."""
        return self.params0

    @cached_property
    def _terms(self) -> dict[Examples, AffineOutputs]:
        return {}

    def values(
        self, points: np.ndarray, examples: Examples, objective: Objective
    ) -> dict[str, np.ndarray]:
        """Every metric at points (G, T)."""
        if self.keeps(examples):
            return grid_values(self.terms(examples), points, objective, examples.targets)
        return streamed_values(
            self.f,
            self.params0,
            list(self.vectors.values()),
            examples.inputs,
            points,
            objective,
            examples.targets,
            self.batch_size,
        )

    def outputs(self, points: np.ndarray, examples: Examples) -> np.ndarray:
        """The outputs at points (G, T): (G, N, ...)."""
        return grid_logits(self.terms(examples), points)

    def terms(self, examples: Examples) -> AffineOutputs:
        """f0 and Jτ of every task vector, computed once for these examples."""
        if examples not in self._terms:
            self._terms[examples] = self._passed(examples)
        return self._terms[examples]

    def _passed(self, examples: Examples) -> AffineOutputs:
        return affine_outputs(
            self.f,
            self.params0,
            list(self.vectors.values()),
            examples.inputs,
            batch_size=self.batch_size,
        )

    def keeps(self, examples: Examples) -> bool:
        """Whether the terms of these examples are small enough to be kept."""
        first = window(as_arguments(examples.inputs), 0, 1)
        outputs = jax.tree.leaves(forward.eval_shape(self.f, self.params0, first))
        wide = sum(leaf.size for leaf in outputs)
        numbers = wide * len(examples) * (1 + len(self.vectors))
        return wide <= WIDEST and 4 * numbers <= KEPT_BYTES


VIEWS: Mapping[str, type[View]] = {view.name: view for view in (Displaced, Tangent)}
"""By name, the ways to evaluate a point."""

REGIMES = {"nonlinear": "displaced", "posthoc": "tangent", "linear": "tangent"}
"""The view that belongs to each of the papers' regimes, the last two of which differ only in how
their vectors were trained."""


def view_of(regime: str) -> type[View]:
    """A row of :data:`VIEWS`, by its own name or by that of a regime that is seen in it.

    Raises:
        ValueError: neither; the nearest is suggested.
    """
    one_of("regime", regime, (*REGIMES, *VIEWS))
    return VIEWS[REGIMES.get(regime, regime)]
