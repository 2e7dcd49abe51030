"""Several devices: a mesh of named axes, and ordered rules from a leaf's name to its split."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import (
    AxisType,
    Mesh,
    NamedSharding,
    PartitionSpec,
    Sharding,
    SingleDeviceSharding,
)

from linearize import activations, hosts, row_sums, tree
from linearize.fields import check
from linearize.models.layers import is_stacked
from linearize.types import Apply, Array, Params, PyTree


@dataclass(frozen=True)
class MeshConfig:
    """Axes of the mesh and how leaves of θ0, τ and the optimizer are split over them.

    A rule is ``(regular expression, split)``; the first that is found in a leaf's name decides. A
    split is

    - ``"replicated"``: every device holds the whole leaf;
    - ``"fsdp"``: the largest dimension that the number of ``batch_axes`` devices divides is split
      over them; a leaf without such a dimension is replicated;
    - axes by dimension, such as ``"-,model"``: ``-`` leaves a dimension whole, and ``...`` in
      front all that come before. A leaf with fewer dimensions, or one that the axis does not
      divide, is an error.

    Leaves that no rule finds are replicated.

    >>> MeshConfig.fsdp()
    MeshConfig(axes=(('data', -1),), batch_axes=('data',), rules=(('.*', 'fsdp'),))
    """

    axes: tuple[tuple[str, int], ...] = (("data", -1),)
    """Names and sizes; one size may be -1 for all devices that remain."""
    batch_axes: tuple[str, ...] = ("data",)
    """The axes that batches are split over."""
    rules: tuple[tuple[str, str], ...] = ()
    """Ordered rules, regular expression and split."""

    def __post_init__(self) -> None:
        check(self, "mesh.")
        known = [name for name, _ in self.axes]
        if not known or len(set(known)) != len(known):
            raise ValueError(f"mesh.axes={self.axes}; expected one axis or more, each named once")
        if sum(size == -1 for _, size in self.axes) > 1 or any(
            size < 1 and size != -1 for _, size in self.axes
        ):
            raise ValueError(f"mesh.axes={self.axes}; sizes are positive, and one may be -1")
        unknown = [a for a in self.batch_axes if a not in known]
        for i, (pattern, split) in enumerate(self.rules):
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(
                    f"mesh.rules[{i}]={pattern!r} is no regular expression: {error}"
                ) from error
            if split not in ("replicated", "fsdp"):
                named = [a for a in split.removeprefix("...,").split(",") if a != "-"]
                unknown += [a for a in named if a not in known]
                if len(set(named)) < len(named):
                    raise ValueError(
                        f"mesh.rules[{i}]={split!r} splits two dimensions over one axis; name each "
                        "axis once"
                    )
        if len(set(self.batch_axes)) < len(self.batch_axes):
            raise ValueError(f"mesh.batch_axes={self.batch_axes}; name each axis once")
        if unknown:
            raise ValueError(
                f"mesh: {', '.join(map(repr, unknown))} is no axis; mesh.axes has "
                f"{', '.join(known)} (a split is 'replicated', 'fsdp', or axes by dimension "
                "such as '-,model')"
            )

    @classmethod
    def data_parallel(cls) -> "MeshConfig":
        """Every device holds the whole model and a share of each batch."""
        return cls()

    @classmethod
    def fsdp(cls) -> "MeshConfig":
        """Every device holds a share of each leaf and of each batch."""
        return cls(rules=((".*", "fsdp"),))


@dataclass(frozen=True)
class Placement:
    """Where arrays live: on one device (``mesh`` is None), or split over a mesh."""

    config: MeshConfig
    mesh: Mesh | None

    @classmethod
    def make(cls, config: MeshConfig | None) -> "Placement":
        """Lay the devices out; None is one device, or, of several processes, data-parallel.

        Raises:
            ValueError: the axes want more devices than there are, or do not divide them.
        """
        if config is None and not hosts.several():
            return cls(MeshConfig(), None)
        config = config or MeshConfig.data_parallel()
        devices = jax.devices()
        sizes = [size for _, size in config.axes]
        fixed = prod(size for size in sizes if size != -1)
        if fixed > len(devices) or (-1 in sizes and len(devices) % fixed):
            raise ValueError(
                f"mesh.axes={config.axes} does not fit {len(devices)} device(s); give sizes whose "
                "product is at most that, or divides it where one size is -1"
            )
        sizes = [len(devices) // fixed if size == -1 else size for size in sizes]
        names = tuple(name for name, _ in config.axes)
        # make_mesh would otherwise choose Explicit axes, which matrix products of sharded
        # kernels refuse
        mesh = jax.make_mesh(
            tuple(sizes),
            names,
            axis_types=(AxisType.Auto,) * len(names),
            devices=devices[: prod(sizes)],
        )
        return cls(config, mesh)

    @property
    def ways(self) -> int:
        """Into how many parts a batch is split."""
        return 1 if self.mesh is None else prod(self.mesh.shape[a] for a in self.config.batch_axes)

    def check_batch(self, what: str, size: int) -> None:
        """See that a batch can be split.

        Raises:
            ValueError: it cannot; of several processes, whose devices nobody named, HostError.
        """
        if size % self.ways:
            raise (hosts.HostError if hosts.several() else ValueError)(
                f"mesh splits batches over {self.ways} devices, which do not divide {what} = "
                f"{size}; choose a multiple, or fewer devices"
            )

    @property
    def on_cpu(self) -> bool:
        """Whether the host itself is the device."""
        device = _default_device() if self.mesh is None else self.mesh.devices.flat[0]
        return device.platform == "cpu"

    def summed(self, function: Callable[..., PyTree]) -> Callable[..., PyTree]:
        """The same function, with sums as one CPU device computes them fastest."""
        alone = self.mesh is None and jax.default_backend() == "cpu"
        return row_sums.as_products(function) if alone else function

    @property
    def replicated(self) -> Sharding:
        """Whole on every device."""
        return self._sharding(PartitionSpec())

    @property
    def batch(self) -> Sharding:
        """Axis 0 split over the batch axes."""
        axes = self.config.batch_axes
        return self._sharding(PartitionSpec(axes) if axes else PartitionSpec())

    def split_batch(self, arrays: PyTree) -> PyTree:
        """Inside ``jit``: keep axis 0 split over the batch axes."""
        if self.mesh is None:
            return arrays
        return jax.lax.with_sharding_constraint(arrays, self.batch)

    def laid(self, f: Apply) -> Apply:
        """Inside ``jit``: the same function, of which each device computes its share of the batch.

        What the rules split over the batch axes is gathered where it is used, and activations stay
        where the batch lies. Scanned blocks are gathered one after the other, if the model holds
        its activations (:func:`linearize.activations.keep`), and else all together before it.
        """
        if self.mesh is None or self.ways == 1:
            return f
        lies = self.batch
        assert isinstance(lies, NamedSharding)

        def spread(params: Params, *inputs: Any) -> PyTree:
            whole = self._gathered(params)
            stacks = {name: leaf for name, leaf in whole.items() if is_stacked([name])}
            with activations.lying(lies, self.ways) as batch:
                rest = {name: leaf for name, leaf in whole.items() if name not in stacks}
                outputs = f(tree.update(params, rest), *inputs)
            return outputs if batch.kept or not stacks else f(tree.update(params, whole), *inputs)

        return spread

    def _gathered(self, params: Params) -> dict[str, Array]:
        """Those leaves that are split over batch axes, split no more."""
        found = {}
        for name, leaf in tree.flatten(params).items():
            spec, _ = self._spec(name, tuple(leaf.shape))
            whole = PartitionSpec(*map(self._but_batch_axes, spec))
            if whole != spec:
                found[name] = jax.lax.with_sharding_constraint(leaf, self._sharding(whole))
        return found

    def _but_batch_axes(self, axes: Any) -> Any:
        named = () if axes is None else (axes,) if isinstance(axes, str) else tuple(axes)
        return tuple(axis for axis in named if axis not in self.config.batch_axes) or None

    def of(self, params: PyTree) -> dict[str, Sharding]:
        """The sharding of each leaf, by name, as the rules say.

        Raises:
            ValueError: with every leaf that its rule does not fit.
        """
        specs, problems = {}, []
        for name, leaf in tree.flatten(params).items():
            spec, problem = self._spec(name, tuple(leaf.shape))
            specs[name] = self._sharding(spec)
            problems += [problem] if problem else []
        if problems:
            raise ValueError(
                f"mesh.rules do not fit {len(problems)} leaf or leaves; change the rule, or put "
                "one for these names before it:\n  " + "\n  ".join(problems)
            )
        return specs

    def of_state(self, state: PyTree, leaves: dict[str, Sharding]) -> PyTree:
        """Shardings of a training state: what has a leaf's name and shape lies as the leaf does."""
        return self.beside(state, leaves, state["tau"])

    def beside(self, arrays: PyTree, leaves: dict[str, Sharding], like: PyTree) -> PyTree:
        """Shardings of a tree: of what has the name and the shape of a leaf of ``like``, its own.

        Args:
            arrays: any tree.
            leaves: the sharding of each leaf of ``like``.
            like: arrays by name.
        """

        def sharding(path: tuple, leaf: Any) -> Sharding:
            key = str(getattr(path[-1], "key", "")) if path else ""
            same = key in like and np.shape(like[key]) == np.shape(leaf)
            return leaves[key] if same else self.replicated

        return jax.tree_util.tree_map_with_path(sharding, arrays)

    def _sharding(self, spec: PartitionSpec) -> Sharding:
        if self.mesh is None:
            return SingleDeviceSharding(_default_device())
        return NamedSharding(self.mesh, spec)

    def _spec(self, name: str, shape: tuple[int, ...]) -> tuple[PartitionSpec, str]:
        rule = next((r for r in self.config.rules if re.search(r[0], name)), ("", "replicated"))
        split = rule[1]
        if self.mesh is None or split == "replicated":
            return PartitionSpec(), ""
        if split == "fsdp":
            fitting = [d for d, size in enumerate(shape) if size and size % self.ways == 0]
            if not fitting or self.ways == 1:
                return PartitionSpec(), ""
            widest = max(fitting, key=lambda d: shape[d])
            spec: list = [None] * len(shape)
            spec[widest] = self.config.batch_axes
            return PartitionSpec(*spec), ""
        last = split.removeprefix("...,")
        axes = [None if a == "-" else a for a in last.split(",")]
        if last != split:
            axes = [*(None for _ in shape[len(axes) :]), *axes]
        if len(axes) > len(shape):
            return PartitionSpec(), f"{name} {shape}: rule {rule} has more dimensions"
        for size, axis in zip(shape, axes, strict=False):
            if axis is not None and size % self.mesh.shape[axis]:
                return PartitionSpec(), (
                    f"{name} {shape}: rule {rule} splits {size} over axis {axis!r} of "
                    f"{self.mesh.shape[axis]}"
                )
        return PartitionSpec(*axes), ""


def _default_device() -> jax.Device:
    return next(iter(jnp.zeros(()).devices()))
