"""Tasks of a language model hold tokens that it has."""

import jax
import numpy as np

from linearize.data import Task
from linearize.data.records import SPLITS
from linearize.examples import as_arguments
from linearize.models import Model


def check_tokens(model: Model, name: str, task: Task) -> None:
    """A language model, whose first argument are tokens, has all that a task holds.

    Where a mask follows them, what it hides is not looked at.

    Raises:
        ValueError: one is negative or beyond its vocabulary; the first example is named.
    """
    if (vocabulary := model.about.get("vocabulary")) is None:
        return
    for split in SPLITS:
        tokens, *more = as_arguments(task.split(split).inputs)
        if isinstance(tokens, jax.Array) and tokens.is_fully_addressable:
            tokens = np.asarray(tokens)
        if not isinstance(tokens, np.ndarray) or tokens.dtype.kind not in "iu":
            continue
        wrong = (tokens < 0) | (tokens >= vocabulary)
        mask = more[0] if more else None
        if isinstance(mask, np.ndarray) and mask.dtype == bool and mask.shape == wrong.shape:
            wrong &= mask  # padding may be anything
        if wrong.any():
            row = int(wrong.reshape(len(tokens), -1).any(1).argmax())
            raise ValueError(
                f"task {name!r}, {split} example {row}: the token {tokens[wrong][0]}, and "
                f"{model.name} has 0 to {vocabulary - 1}: the tokenizer is another model's; take "
                "the one beside the weights"
            )
