"""Language modelling: the negative logarithmic likelihood of the next token, and perplexity."""

from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from linearize.losses import cross_entropy
from linearize.objectives.distances import Distance, as_distance
from linearize.objectives.metric import PERPLEXITY, Metric
from linearize.objectives.objective import Objective, Targets, Totals
from linearize.objectives.predictions import NO_CLASS, predicted
from linearize.objectives.targets import check_integers, role
from linearize.types import Array, Batch

IGNORED = -1
"""What is kept of a prediction that nobody asks for."""


def _changed(a: Array, b: Array) -> Array:
    asked = (a != IGNORED) & (b != IGNORED)
    differ = asked & ((a != b) | (a == NO_CLASS) | (b == NO_CLASS))
    return jnp.sum(differ, -1) / jnp.maximum(jnp.sum(asked, -1), 1)


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["distance"])
@dataclass(frozen=True)
class CausalLM(Objective):
    """``labels`` (B, L) int: the token after each position; a negative one is not asked for.

    Perplexity is over all tokens of a data set; the loss of an example is its own tokens' mean.

    >>> found = CausalLM().measure(jnp.zeros((1, 2, 4)), {"labels": np.array([[2, -1]])})
    >>> round(found["perplexity"], 4)
    4.0
    """

    distance: Distance = field(default=Distance("next token", predicted, _changed, 1.0))

    metrics: ClassVar[tuple[Metric, ...]] = (PERPLEXITY,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "distance", as_distance(self.distance))

    def _nats(self, outputs: Array, batch: Batch) -> tuple[Array, Array]:
        asked = batch["labels"] >= 0
        labels = jnp.where(asked, batch["labels"], 0)
        nats = cross_entropy(outputs, labels)
        return jnp.sum(jnp.where(asked, nats, 0), -1), jnp.sum(asked, -1, dtype=jnp.int32)

    def loss(self, outputs: Array, batch: Batch) -> Array:
        """Mean of an example's tokens in nats, (B,) float32; 0 where none is asked for."""
        nats, tokens = self._nats(outputs, batch)
        return nats / jnp.maximum(tokens, 1)

    def statistics(self, outputs: Array, batch: Batch) -> dict[str, Array]:
        """``nats`` (B,) float32 and ``tokens`` (B,) int32 of each example."""
        nats, tokens = self._nats(outputs, batch)
        return {"nats": nats, "tokens": tokens}

    def values(self, totals: Totals) -> dict[str, np.ndarray]:
        """Perplexity, exp of the mean over tokens; infinite where that overflows."""
        with np.errstate(over="ignore"):
            return {"perplexity": np.exp(np.asarray(totals["nats"], np.float64) / totals["tokens"])}

    def kept(self, outputs: Array, batch: Batch) -> Array:
        """What the distance keeps, by default the likeliest token (B, L), where one is asked for.

        Elsewhere :data:`IGNORED`, whatever the outputs are.
        """
        asked, code = batch["labels"] >= 0, self.distance.kept(outputs)
        asked = jnp.expand_dims(asked, tuple(range(2, code.ndim)))
        return jnp.where(asked, code, IGNORED)

    def between(self, a: Array, b: Array, batch: Batch) -> Array:
        """Share of an example's tokens that differ, or the mean of another distance of tokens."""
        if jax.eval_shape(self.distance.compare, a, b).ndim == 1:
            return self.distance.between(a, b)
        asked = batch["labels"] >= 0
        each = jax.vmap(self.distance.between, 1, 1)(a, b)
        return jnp.sum(jnp.where(asked, each, 0), -1) / jnp.maximum(jnp.sum(asked, -1), 1)

    def counted(self, batch: Targets) -> np.ndarray:
        """An example's tokens that are asked for: means are over tokens, as perplexity's is."""
        return np.sum(self.asked(batch), -1)

    def asked(self, batch: Targets) -> np.ndarray:
        """The positions whose label is a token, (B, L)."""
        return np.asarray(role(batch, "labels", self)) >= 0

    def check(self, outputs: Array, batch: Targets) -> None:
        """Labels are integers of (B, L) below the vocabulary's size, at least one not negative."""
        if len(outputs.shape) != 3:
            raise ValueError(
                f"the outputs have shape {outputs.shape}; expected (B, L, V), logits of the token "
                "after each position"
            )
        labels = check_integers(role(batch, "labels", self), outputs.shape[:-1])
        if labels.max() >= outputs.shape[-1]:
            raise ValueError(
                f"labels reach {labels.max()}; the vocabulary has the tokens 0 to "
                f"{outputs.shape[-1] - 1}"
            )
        if labels.max() < 0:
            raise ValueError("labels are negative everywhere: no token is asked for")
