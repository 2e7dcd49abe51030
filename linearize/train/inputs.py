"""A run's inputs, checked and placed, and which question they make."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from linearize import hosts, identity, io, tree
from linearize.choices import one_of
from linearize.objectives.objective import Loss
from linearize.taylor import check_function
from linearize.train import feed
from linearize.train.config import TrainConfig
from linearize.train.identity import current_functions, data_fingerprint, functions
from linearize.train.mask import checked
from linearize.train.mesh import Placement
from linearize.train.penalty import Penalty, Stream, column, seed_of, take_apart
from linearize.train.step import REGIMES, Callables, Recipe
from linearize.types import Apply, Array, Params, PyTree


@dataclass(frozen=True)
class Inputs:
    """A run's inputs, checked and placed."""

    recipe: Recipe
    place: Placement
    arrays: list[Array]
    params0: Params
    data: feed.Data
    trainable: tuple[str, ...]
    base: str
    total: int
    examples: int
    penalties: tuple[Penalty, ...] = ()
    """By name."""
    streams: list[tuple[str, Stream]] = field(default_factory=list)
    """Of all penalties, each with its place."""
    drawn: tuple[PyTree, ...] = ()
    """Shapes of their batches."""
    mask: dict[str, Array] | None = None

    @classmethod
    def make(
        cls,
        f: Apply,
        params0: Params,
        data: feed.Data,
        regime: str,
        loss: Loss | None,
        readout: Callable | None,
        config: TrainConfig,
        trainable: tree.Pattern,
        inputs: Sequence[str],
        augment: Callable | None,
        penalties: Sequence[Penalty] = (),
        mask: PyTree | None = None,
    ) -> "Inputs":
        if regime == "posthoc":
            raise ValueError(
                "regime='posthoc' evaluates a 'nonlinear' vector: train it by regime='nonlinear'"
            )
        one_of("regime", regime, REGIMES)
        check_function(f)
        examples = feed.check(data)
        if augment is None:
            feed.check_entries(data, [*inputs, *(("labels",) if loss is None else ())])
        if loss is not None and readout is not None:
            raise ValueError(
                "readout belongs to the default loss; call it inside the loss that was given"
            )
        if loss is not None and config.label_smoothing:
            raise ValueError(
                f"label_smoothing={config.label_smoothing} belongs to the default loss; smooth "
                "within the loss that was given, and leave it 0"
            )
        tree.check_finite(params0, what="params0")
        place = Placement.make(config.mesh)
        micro = config.batch_size // config.accumulate
        place.check_batch("batch_size / accumulate", micro)
        names = _trainable(params0, trainable)
        ordered, terms, streams = take_apart(penalties)
        drawn = tuple(stream.batch for _, stream in streams)
        for name, stream in streams:
            place.check_batch(f"{name}: batch_size", stream.batch_size)
        given = {"f": f, "loss": loss, "readout": readout, "augment": augment, **terms}
        batch = feed.entries(data, micro)
        given = current_functions(given, params0, batch, inputs, names, drawn)
        split, arrays = Callables.of(given)
        recipe = Recipe(
            functions=split,
            regime=regime,
            inputs=tuple(inputs),
            optim=config.optim,
            accumulate=config.accumulate,
            label_smoothing=config.label_smoothing,
            ascend=config.direction == "ascend",
            own_loss=loss is not None,
            penalties=tuple(terms),
        )
        _check_loss(recipe, params0, data, arrays, micro, augment)
        _check_terms(recipe, params0, arrays, names, drawn)
        kept = {} if mask is None else checked(mask, params0, names)
        base = tree.fingerprint(params0)
        shardings = place.of(params0)
        where: dict[str, Any] = dict(shardings)
        placed = hosts.put(params0, tree.update(params0, where))
        moving = {n: hosts.put(m, shardings[n]) for n, m in kept.items()} or None
        own = {name: given[name] for name in terms}
        whole = jax.tree.map(lambda _: place.replicated, given)
        lying = jax.tree.leaves(whole | place.beside(own, shardings, tree.flatten(params0)))
        lying = [w for w, rest in zip(lying, split.static, strict=True) if rest is None]
        return cls(
            recipe=recipe,
            place=place,
            arrays=hosts.put(arrays, lying),
            params0=placed,
            data=data,
            trainable=names,
            base=base,
            total=config.total_steps(examples),
            examples=examples,
            penalties=ordered,
            streams=streams,
            drawn=drawn,
            mask=moving,
        )

    def identity(self, config: TrainConfig) -> dict[str, Any]:
        """What decides the result; a run directory belongs to one."""
        deciding = config.deciding()
        deciding.pop("epochs")
        revision = config.optim.revision
        return {
            "config": io.to_json({**deciding, "steps": self.total}),
            "regime": self.recipe.regime,
            "base": self.base,
            "data": data_fingerprint(self.data),
            "trainable": tree.fingerprint({n: np.zeros(0) for n in self.trainable})[:16]
            + f", {len(self.trainable)} leaves",
            "inputs": list(self.recipe.inputs),
            "loss": "own" if self.recipe.own_loss else "cross_entropy",
            "functions": functions(
                self.recipe.functions.join(self.arrays),
                self.params0,
                feed.entries(self.data, config.batch_size // config.accumulate),
                regime=self.recipe.regime,
                trainable=self.trainable,
                inputs=self.recipe.inputs,
                drawn=self.drawn,
            ),
            "arrays": tree.fingerprint(self.arrays),
            **({"optimizer": revision} if revision else {}),
            **({"penalties": self._penalties()} if self.penalties else {}),
            **({"streams": self._streams()} if self.streams else {}),
            **({"mask": tree.fingerprint(self.mask)} if self.mask is not None else {}),
        }

    def _penalties(self) -> dict[str, Any]:
        """What decides them beside their functions and streams."""
        terms: dict[str, Any] = self.recipe.functions.join(self.arrays)
        return {
            penalty.name: {
                "weight": float(penalty.weight),
                "arrays": tree.fingerprint(identity.held(terms[column(penalty.name)])),
            }
            for penalty in self.penalties
        }

    def _streams(self) -> dict[str, Any]:
        return {
            place: {
                "batch_size": stream.batch_size,
                "roles": list(stream.roles),
                "data": [data_fingerprint(each) for each in stream.sets],
            }
            for place, stream in self.streams
        }

    @property
    def notes(self) -> dict[str, Any]:
        """What a task vector remembers of them."""
        weights = {penalty.name: float(penalty.weight) for penalty in self.penalties}
        return {
            **({"penalties": weights} if weights else {}),
            **({"mask": tree.fingerprint(self.mask)} if self.mask is not None else {}),
        }

    def streams_and_seeds(self, seed: int) -> list[tuple[Stream, int]]:
        """Each stream with what its order is drawn from."""
        return [(stream, seed_of(seed, place)) for place, stream in self.streams]

    def fixed_penalties(self, seed: int) -> dict[str, Any]:
        """What steps are given of penalties and mask: weights (P,), keys (P,), the mask by name."""
        found: dict[str, Any] = {}
        if self.penalties:
            weights = np.asarray([penalty.weight for penalty in self.penalties], np.float32)
            keys = [jax.random.key(seed_of(seed, column(p.name))) for p in self.penalties]
            found = {"weights": weights, "keys": jnp.stack(keys)}
        found = hosts.put(found, self.place.replicated)
        return found if self.mask is None else found | {"mask": self.mask}

    def disk_bytes(self, config: TrainConfig) -> int:
        """What the run may want on the disk at most, roughly."""
        flat = tree.flatten(self.params0)
        tau = sum(4 * flat[n].size for n in self.trainable)
        checkpoints = 3 * tau * (config.keep + 1) if config.checkpoint_every else 0
        return tau * (1 + len(config.save_vectors_at)) + checkpoints


def _trainable(params0: Params, pattern: tree.Pattern) -> tuple[str, ...]:
    names = tree.select(params0, pattern)
    if not names:
        kinds = ", ".join(f"{n}: {jnp.result_type(x)}" for n, x in tree.flatten(params0).items())
        raise ValueError(
            f"params0 holds no floating leaf, so there is nothing to train ({kinds or 'no leaf'}); "
            "pass the parameters as floating arrays"
        )
    return names


def _check_terms(
    recipe: Recipe,
    params0: Params,
    arrays: list[Array],
    trainable: Sequence[str],
    drawn: Sequence[PyTree],
) -> None:
    """One abstract pass of each penalty: it is one real number."""
    functions: dict[str, Any] = recipe.functions.join(arrays)
    base = tree.flatten(params0)

    def values(params0: Params, drawn: Sequence[PyTree], key: Array) -> list[Array]:
        tau = tree.zeros({name: base[name] for name in trainable})
        terms = [functions[name] for name in recipe.penalties]
        return [term(tau, params0, drawn, key, f=functions["f"]) for term in terms]

    found = jax.eval_shape(values, params0, drawn, jax.random.key(0))
    for name, value in zip(recipe.penalties, found, strict=True):
        if not (
            isinstance(value, jax.ShapeDtypeStruct)
            and value.shape == ()
            and jnp.issubdtype(value.dtype, jnp.floating)
        ):
            shown = jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", value)
            raise ValueError(
                f"{name} gives {shown}; expected one real floating number, of τ as a whole (sum "
                "or average what it has)"
            )


def _check_loss(
    recipe: Recipe,
    params0: Params,
    data: feed.Data,
    arrays: list[Array],
    batch_size: int,
    augment: Callable | None,
) -> None:
    """One abstract forward pass: the loss has one value an example, and labels are classes."""
    functions: dict[str, Any] = recipe.functions.join(arrays)

    def measures(params0: Params, batch: PyTree, key: Array) -> tuple[PyTree, PyTree]:
        batch = batch if augment is None else functions["augment"](key, batch)
        outputs = functions["f"](params0, *(batch[name] for name in recipe.inputs))
        logits = outputs if functions["readout"] is None else functions["readout"](outputs)
        return recipe.examples(functions, outputs, batch), logits

    batch, labels = feed.entries(data, batch_size), feed.labels(data)
    scored = not recipe.own_loss and labels is not None
    if scored and (not jnp.issubdtype(labels.dtype, jnp.integer) or labels.ndim != 1):
        raise ValueError(
            f"data['labels'] is {labels.dtype}{list(labels.shape)}; expected one integer an "
            "example (or give a loss of your own)"
        )
    got, logits = jax.eval_shape(measures, params0, batch, jax.random.key(0))
    if got["loss"].shape != (batch_size,):
        raise ValueError(
            f"loss gives shape {got['loss'].shape} for a batch of {batch_size}; expected one value "
            f"an example, ({batch_size},), which is averaged here"
        )
    if scored:
        low, high, classes = int(np.min(labels)), int(np.max(labels)), logits.shape[-1]
        if low < 0 or high >= classes:
            raise ValueError(
                f"data['labels'] lie in {low}..{high}, but the logits have {classes} classes "
                f"(0..{classes - 1})"
            )
