"""Low-rank adapters of kernels: ΔW = s A B with s = α / r (Hu et al. 2021, arXiv 2106.09685).

Kernels map from the left, ``x @ W``, so that A is (in, r) and B (r, out): the transposes of what
PEFT calls by these letters.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from linearize import io, tree
from linearize.fields import integer, number
from linearize.models import hf, layers
from linearize.models.backbone import Backbone, WeightsError
from linearize.models.hf import adapters
from linearize.models.hf.engine import listed
from linearize.models.hf.export import table_of
from linearize.models.hf.table import spell, unwrap
from linearize.task_vector import TaskVector
from linearize.types import Apply, Array, Flat, Params, PyTree

_STACKED = re.compile(r"^((?:\w+/)?)blocks/(?!\d+/)(.+)$")
"""A scanned stack; not the parts of a list, which have numbers."""

A, B = "lora_a", "lora_b"
"""What the factors of a leaf are called below it."""


@dataclass(frozen=True, eq=False)
class Adapter:
    """The factors of some leaves, by name.

    Attributes:
        a: (in, r) each; (k, in, r) of a scanned stack.
        b: (r, out); (k, r, out).
        alpha: α.
    """

    a: Mapping[str, Array]
    b: Mapping[str, Array]
    alpha: float

    @classmethod
    def start(
        cls,
        params0: Params,
        *,
        rank: int = 16,
        alpha: float = 32.0,
        pattern: tree.Pattern = "kernel$",
        seed: int = 0,
    ) -> "Adapter":
        """Factors whose product is 0: B = 0, A uniform in ±1/√in, as PEFT draws it.

        A scanned stack is drawn block by block, as the leaves of its unrolled twin.

        Args:
            params0: θ0.
            rank: r, 1 or more; those above a kernel's rank are welcome.
            alpha: α.
            pattern: the leaves to adapt (:func:`linearize.tree.select`): of those that it finds,
                the real matrices, and the stacks of such below ``blocks/``.
            seed: of A.

        Raises:
            ValueError: a rank below 1, an α that is 0 or no number, or no matrix that is found.
        """
        rank, alpha = integer("rank", rank, low=1), number("alpha", alpha)
        if not alpha:
            raise ValueError("alpha=0.0 makes every ΔW zero; give another number, such as the rank")
        flat = tree.flatten(params0)
        found = {name: flat[name] for name in tree.select(params0, pattern)}
        blocks = {n: each for n, x in found.items() if (each := _matrices(n, x))}
        if not blocks:
            raise ValueError(
                f"pattern={pattern!r} finds no real matrix to adapt; it finds "
                + ", ".join(f"{n} {np.shape(leaf)}" for n, leaf in list(found.items())[:8])
            )
        a, b = {}, {}
        for name, each in blocks.items():
            *stacked, into, out = np.shape(flat[name])
            dtype = jnp.promote_types(jnp.result_type(flat[name]), jnp.float32)
            drawn = np.stack([_uniform([seed, *n.encode()], (into, rank)) for n in each])
            a[name] = jnp.asarray(drawn.reshape(*stacked, into, rank), dtype)
            b[name] = jnp.zeros((*stacked, rank, out), dtype)
        return cls(a, b, alpha)

    @property
    def rank(self) -> int:
        """Of every leaf."""
        return int(next(iter(self.a.values())).shape[-1])

    @property
    def scale(self) -> float:
        """``α / r``."""
        return self.alpha / self.rank

    def joined(self, params0: Params) -> dict[str, Array]:
        """θ0's leaves and the factors, by name: parameters of :func:`adapted`."""
        a = {f"{name}/{A}": x for name, x in self.a.items()}
        return tree.flatten(params0) | a | {f"{name}/{B}": x for name, x in self.b.items()}

    def moved(self, delta: Mapping[str, Array]) -> "Adapter":
        """The factors after a displacement of some of them, under the names of :meth:`joined`."""

        def at(factors: Mapping[str, Array], part: str) -> dict[str, Array]:
            return {n: x + delta.get(f"{n}/{part}", 0) for n, x in factors.items()}

        return Adapter(at(self.a, A), at(self.b, B), self.alpha)

    def delta(self) -> dict[str, np.ndarray]:
        """ΔW by leaf, of its shape, float32 or wider: to the bit what PEFT's files are read as."""

        def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            if a.ndim > 2:
                return np.stack([product(*each) for each in zip(a, b, strict=True)])
            return adapters.product(a.T, b.T, self.scale).T.astype(a.dtype)

        return {n: product(tree.to_numpy(x), tree.to_numpy(self.b[n])) for n, x in self.a.items()}

    def task_vector(self, params0: Params, meta: Mapping[str, Any] | None = None) -> TaskVector:
        """ΔW as a displacement of θ0."""
        delta = {name: jnp.asarray(x) for name, x in self.delta().items()}
        about = {"rank": self.rank, "alpha": self.alpha}
        return TaskVector(delta, tree.fingerprint(params0), {"lora": about, **(meta or {})})


def _matrices(name: str, leaf: Array) -> list[str]:
    """The matrices in a leaf, as the unrolled model calls them; none where it is something else."""
    rest = _STACKED.match(name)
    shape = np.shape(leaf)
    if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating) or len(shape) != 2 + bool(rest):
        return []
    return [f"{rest[1]}block_{i}/{rest[2]}" for i in range(shape[0])] if rest else [name]


def _uniform(seed: list[int], shape: tuple[int, int]) -> np.ndarray:
    bound = shape[0] ** -0.5
    return np.random.default_rng(seed).uniform(-bound, bound, shape)


def adapted(f: Apply, params0: Params, scale: float) -> jax.tree_util.Partial:
    """``f`` of :meth:`Adapter.joined` parameters: equal for equal ``f``, scale and tree of θ0."""
    return jax.tree_util.Partial(_Adapted(jax.tree.structure(params0), scale), f)


@dataclass(frozen=True)
class _Adapted:
    treedef: jax.tree_util.PyTreeDef
    scale: float

    def __call__(self, f: Apply, params: Mapping[str, Array], *inputs: PyTree) -> PyTree:
        params0, delta = self.apart(params)
        return f(tree.add(params0, delta), *inputs)

    def apart(self, params: Mapping[str, Array]) -> tuple[Params, dict[str, Array]]:
        """θ0, and ΔW by leaf."""
        names = tree.names(jax.tree.unflatten(self.treedef, range(self.treedef.num_leaves)))
        delta = {}
        for name in names:
            if f"{name}/{A}" in params:
                a, b = params[f"{name}/{A}"], params[f"{name}/{B}"]
                delta[name] = self.scale * jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
        return jax.tree.unflatten(self.treedef, [params[name] for name in names]), delta


@dataclass(frozen=True)
class OfDelta:
    """A penalty on τ as one of what :func:`adapted` trains: of f without adapters, θ0 and ΔW."""

    value: Callable[..., Array]
    """``value(f, params0, tau, state, key) -> ()``."""
    adapted: Any
    """The function that :func:`adapted` makes a ``Partial`` of."""

    def __call__(
        self, f: Apply, params: Mapping[str, Array], tau: Flat, state: PyTree, key: Array
    ) -> Array:
        """The same of ΔW, whose factors ``params`` and ``tau`` add up to."""
        params0, _ = self.adapted.apart(params)
        _, delta = self.adapted.apart({n: x + tau[n] if n in tau else x for n, x in params.items()})
        still = {n: x for n, x in params.items() if n.endswith((f"/{A}", f"/{B}"))}

        def alone(params0: Params, *inputs: PyTree) -> PyTree:
            return f({**tree.flatten(params0), **still}, *inputs)

        return self.value(alone, params0, delta, state, key)


def export_adapter(
    folder: str | Path, backbone: Backbone, adapter: Adapter, *, inside: str | None = None
) -> Path:
    """Write ``adapter_model.safetensors`` and ``adapter_config.json``, as PEFT does.

    Modules are called as in transformers 5, in the class of model that wrote the base's file; PEFT
    passes over modules of other names with a warning at most. A leaf that holds several of their
    matrices, such as query, key and value, gives each the same A and its own columns of B.
    :func:`linearize.models.task_vector` reads the folder back.

    Args:
        folder: made where absent; files of these names in it are replaced.
        backbone: a CLIP, ViT or DINOv2 of :func:`linearize.models.load`; scanned ones are welcome.
        adapter: of its leaves.
        inside: what stands before the encoder's names in the model that the adapter is to be opened
            in: ``"vit."`` of a ``ViTForImageClassification``, ``""`` of a ``ViTModel``; what stands
            there in the base's file by default.

    Returns:
        The folder.

    Raises:
        ValueError: the backbone is of another kind.
        WeightsError: leaves that the backbone lacks, or that transformers has no linear map or
            convolution for, or factors of other shapes; all are named, and nothing is written.
        NonFiniteError: a factor holds NaN or infinity.
        OSError: a file cannot be written.
    """
    if not isinstance(backbone, Backbone) or not backbone.kind or backbone.architecture is None:
        raise ValueError(
            f"{backbone.name} is no CLIP, ViT or DINOv2, the models that PEFT's names are known "
            "of; Adapter.task_vector(params).save(path) keeps any model's ΔW"
        )
    table = table_of(backbone.kind, backbone.architecture)
    if inside is None:
        there = backbone.weights is not None and backbone.weights.exists()
        inside = table.before(
            unwrap(hf.read(str(backbone.weights)).tensors).values() if there else ()
        )
    leaves = layers.unstack(tree.flatten(backbone.params))
    tensors: dict[str, np.ndarray] = {}
    modules, problems = [], []
    a, b = (layers.unstack(dict(factors)) for factors in (adapter.a, adapter.b))
    tree.check_finite({A: a, B: b}, what="the adapter")
    for name in a:
        found = table.find_ours(name) if name.endswith("/kernel") else None
        weights = spell(table.rows[found[0]][0], found[1]) if found else []
        whole = [inside + module for weight in weights if (module := table.module(weight))]
        if name not in leaves or found is None or not whole:
            problems.append(f"{name}: no linear map or convolution of {table.name} here")
            continue
        if (*a[name].shape[:-1], b[name].shape[-1]) != leaves[name].shape:
            shapes = f"{a[name].shape} and {b[name].shape}"
            problems.append(f"{name}: factors {shapes} of a leaf {leaves[name].shape}")
            continue
        wide = np.tile(np.asarray(a[name], np.float32), (1, len(whole)))
        high = np.split(np.asarray(b[name], np.float32), len(whole), axis=1)
        for module, down, up in zip(whole, table.rows[found[0]][2].dump([wide]), high, strict=True):
            ones = (1,) * (down.ndim - 2)  # a convolution's B is one of side 1
            tensors |= dict(_halves(module, down, up.T.reshape(*up.T.shape, *ones)))
        modules += whole
    if problems:
        raise WeightsError(
            f"the adapter is none of {backbone.name} for PEFT; {len(problems)} problem(s), nothing "
            "was written:\n  " + listed(problems)
        )
    told = adapters.config(adapter.rank, adapter.alpha, modules)
    io.write_json(Path(folder) / adapters.CONFIG, told)
    data = safetensors.numpy.save(tensors, {"format": "pt"})
    io.atomic_write(Path(folder) / adapters.WEIGHTS[0], data)
    return Path(folder)


def _halves(module: str, a: np.ndarray, b: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    for part, x in zip(adapters.PAIRS[0], (a, b), strict=True):
        yield f"{adapters.PREFIX}{module}.{part}", np.ascontiguousarray(x)
