"""A run's inputs, checked and placed, and which question they make."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from linearize import choices, io, tree
from linearize.objectives.objective import Loss
from linearize.taylor import check_function
from linearize.train import feed
from linearize.train.config import TrainConfig
from linearize.train.identity import current_functions, data_fingerprint, functions
from linearize.train.mesh import Placement
from linearize.train.step import REGIMES, Recipe, Split
from linearize.types import Apply, Array, Params, PyTree


@dataclass(frozen=True)
class Setting:
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
    ) -> "Setting":
        if regime not in REGIMES:
            also = " ('posthoc' evaluates a 'nonlinear' vector)" if regime == "posthoc" else ""
            hint = choices.hint(regime, REGIMES)
            raise ValueError(f"regime={regime!r}; expected {' or '.join(REGIMES)}{also}{hint}")
        check_function(f)
        examples = feed.check(data)
        wanted = [*inputs, *(() if loss is not None or augment is not None else ("labels",))]
        there = feed.entries(data, 1)
        missing = [name for name in wanted if name not in there] if augment is None else []
        if missing:
            raise ValueError(
                f"data has no entry {', '.join(map(repr, missing))}; it has "
                f"{', '.join(map(repr, there))}"
            )
        if loss is not None and readout is not None:
            raise ValueError(
                "readout belongs to the default loss; call it inside the loss that was given"
            )
        tree.check_finite(params0, what="params0")
        place = Placement.make(config.mesh)
        micro = config.batch_size // config.accumulate
        if micro % place.ways:
            raise ValueError(
                f"mesh splits batches over {place.ways} devices, which do not divide "
                f"batch_size / accumulate = {micro}"
            )
        given = {"f": f, "loss": loss, "readout": readout, "augment": augment}
        given = current_functions(given, params0, feed.entries(data, micro), inputs)
        split, arrays = Split.of(given)
        recipe = Recipe(
            functions=split,
            regime=regime,
            inputs=tuple(inputs),
            optim=config.optim,
            accumulate=config.accumulate,
            label_smoothing=config.label_smoothing,
            ascend=config.direction == "ascend",
            own_loss=loss is not None,
        )
        _check_loss(recipe, params0, data, arrays, micro, augment)
        base = tree.fingerprint(params0)
        shardings = place.of(params0)
        where: dict[str, Any] = dict(shardings)
        placed = jax.device_put(params0, tree.update(params0, where))
        return cls(
            recipe=recipe,
            place=place,
            arrays=jax.device_put(arrays, place.replicated),
            params0=placed,
            data=data,
            trainable=_trainable(params0, trainable),
            base=base,
            total=config.total_steps(examples),
            examples=examples,
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
            ),
            "arrays": tree.fingerprint(self.arrays),
            **({"optimizer": revision} if revision else {}),
        }

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
