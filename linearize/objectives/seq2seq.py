"""Answers of an encoder–decoder: the likelihood of their tokens, and whether they are right."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from linearize.choices import one_of
from linearize.objectives.causal_lm import CausalLM
from linearize.objectives.confusion import OF_CONFUSION, confusion, of_confusion
from linearize.objectives.metric import ACCURACY, PERPLEXITY, Metric
from linearize.objectives.objective import Objective, Targets, Totals
from linearize.objectives.predictions import predicted
from linearize.types import Array, Batch

EXACT = Metric("exact match", "higher", 0.0, 1.0, percent=True)
Answers = Sequence[Sequence[int]]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["answers"],
    meta_fields=["distance", "metric"],
)
@dataclass(frozen=True)
class Seq2Seq(CausalLM):
    """``labels`` (B, A) int: an answer's tokens, its end's among them, and negative ones behind.

    Outputs are logits (B, A, V) of each token given the answer's before it. That all of an answer's
    tokens are the likeliest there is what greedy decoding gives that very answer for, and so the
    share of such answers is its exact match. Training lowers an answer's mean over tokens.

    Where ``answers`` names those of the classes, what is said is the class whose token is the
    likeliest of theirs where they part: the order of their likelihoods, as long as the tokens that
    follow leave no doubt. The text before that place is the same for all, so that none of it tells
    the answer.

    >>> logits = jnp.log(jnp.array([[[0.1, 0.2, 0.7], [0.3, 0.6, 0.1]]]))
    >>> found = Seq2Seq().measure(logits, {"labels": np.array([[2, 1]])})
    >>> {name: round(value, 3) for name, value in found.items()}
    {'exact match': 1.0, 'perplexity': 1.543}
    >>> Seq2Seq(answers=[[2, 1], [0, 1]], metric="accuracy").measure(
    ...     logits, {"labels": np.array([[2, 1]])}
    ... )["accuracy"]
    1.0
    """

    answers: Any = None
    """Tokens of each class's answer, C lists of them; kept as (C, A) int32, −1 behind. An argument
    of what is compiled, so that tasks share that."""
    metric: str = "exact match"
    """What decides: ``"exact match"``; with ``answers`` also ``"accuracy"``, or a row of
    :data:`linearize.objectives.confusion.OF_CONFUSION`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("metric", self.metric, (EXACT.name, ACCURACY.name, *OF_CONFUSION))
        if isinstance(self.answers, Sequence | np.ndarray):  # and not what JAX makes of it
            answers = [[int(token) for token in row if token >= 0] for row in self.answers]
            parting(answers)
            width = np.shape(self.answers)[-1] if isinstance(self.answers, np.ndarray) else 0
            object.__setattr__(self, "answers", _rows(answers, width))
        elif self.answers is None and self.metric != EXACT.name:
            raise ValueError(f"metric={self.metric!r} is of classes; give answers, one of each")

    @property
    def metrics(self) -> tuple[Metric, ...]:  # type: ignore[override]
        """The one that decides, and the others."""
        decides = {ACCURACY.name: ACCURACY, EXACT.name: EXACT}
        decides |= {name: row.metric for name, row in OF_CONFUSION.items()}
        more = (EXACT,) if self.answers is None else (ACCURACY, EXACT)
        return tuple(dict.fromkeys((decides[self.metric], *more, PERPLEXITY)))

    def statistics(self, outputs: Array, batch: Batch) -> dict[str, Array]:
        """``nats`` and ``tokens`` as :class:`CausalLM`; ``whole`` (B,) int32, 1 of a right answer.

        And ``examples``, 1 each; with ``answers``, ``confusion`` (B, C, C + 1) int32.
        """
        labels = batch["labels"]
        asked = labels >= 0
        whole = jnp.all((predicted(outputs) == labels) | ~asked, -1) & jnp.any(asked, -1)
        found = super().statistics(outputs, batch)
        found |= {"whole": whole.astype(jnp.int32), "examples": jnp.ones_like(whole, jnp.int32)}
        if self.answers is not None:
            said = predicted(self.class_logits(outputs))
            found["confusion"] = confusion(said, self.classes(labels), len(self.answers))
        return found

    def values(self, totals: Totals) -> dict[str, np.ndarray]:
        """Every metric, that which decides first."""
        whole = np.asarray(totals["whole"], np.float64)
        found = {EXACT.name: whole / totals["examples"], **super().values(totals)}
        if self.answers is not None:
            name = self.metric if self.metric in OF_CONFUSION else "matthews"
            found |= of_confusion(name, totals["confusion"])
        return {metric.name: found[metric.name] for metric in self.metrics}

    def class_logits(self, outputs: Array) -> Array:
        """Of each class's token where the answers part, (B, C)."""
        place, tokens = self._parting()
        return jnp.take(outputs, place, axis=1)[:, tokens]

    def classes(self, labels: Array) -> Array:
        """The class of each answer (B, A), (B,) int32."""
        place, tokens = self._parting()
        said = jnp.take(jnp.asarray(labels), place, axis=1)
        return jnp.argmax(said[:, None] == tokens[None], -1).astype(jnp.int32)

    def _parting(self) -> tuple[Array, Array]:
        """The place that :func:`parting` has found, and each class's token there, (C,)."""
        answers = jnp.asarray(self.answers)
        alike = (answers[:, None] == answers[None]).sum((0, 1))
        place = jnp.argmax(alike == len(answers))
        return place, jnp.take(answers, place, axis=1)

    def alike(self, others: Sequence[Objective]) -> Objective:
        """Answers padded to the longest that any of them has."""
        every = [each.answers for each in others if isinstance(each, Seq2Seq)]
        widths = [answers.shape[1] for answers in every if answers is not None]
        if self.answers is None:
            return self
        more = max(widths) - self.answers.shape[1]
        return replace(self, answers=np.pad(self.answers, ((0, 0), (0, more)), constant_values=-1))

    def training(self) -> dict[str, Any]:
        """The loss of :class:`CausalLM`, which it is: tasks of other classes share its program."""
        return CausalLM(self.distance).training()

    def check(self, outputs: Array, batch: Targets) -> None:
        """Labels are tokens as :class:`CausalLM` has them, and with ``answers`` each is one."""
        super().check(outputs, batch)
        if self.answers is None:
            return
        labels, answers = np.asarray(batch["labels"]), np.asarray(self.answers)
        width = labels.shape[1]
        if (answers[:, width:] >= 0).any():
            raise ValueError(f"answers={answers.tolist()}; labels have room for {width} tokens")
        if answers.max() >= outputs.shape[-1]:
            raise ValueError(
                f"answers={answers.tolist()}; the vocabulary has the tokens 0 to "
                f"{outputs.shape[-1] - 1}"
            )
        rows = _rows(answers[:, :width].tolist(), width)
        known = (np.where(labels < 0, -1, labels)[:, None] == rows[None]).all(-1).any(-1)
        if not known.all():
            raise ValueError(
                f"labels hold {labels[np.argmin(known)].tolist()}, which is none of the answers "
                f"{rows.tolist()}"
            )


def _rows(answers: Answers, width: int = 0) -> np.ndarray:
    """Answers as (C, A) int32, −1 behind; A is that of the longest, or ``width``."""
    width = max(width, *map(len, answers))
    return np.array([[*answer, *[-1] * (width - len(answer))] for answer in answers], np.int32)


def parting(answers: Answers) -> int:
    """The first place where answers differ, each from each.

    Raises:
        ValueError: there are fewer than two; or two go on alike where another parts from them.
    """
    if len(answers) < 2:
        raise ValueError(f"answers={answers}; expected those of two classes or more")
    for place in range(min(map(len, answers))):
        tokens = {answer[place] for answer in answers}
        if len(tokens) == len(answers):
            return place
        if len(tokens) > 1:
            break
    raise ValueError(
        f"answers={answers}: no one token tells them apart; name classes whose words part at one "
        "place, or measure the exact match"
    )
