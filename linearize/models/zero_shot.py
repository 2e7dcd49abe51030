"""The frozen heads that a text tower makes of class names, as in both task-vector papers.

Per class, the mean of the L2-normalised features of its sentences, one a template, normalised again
(Radford et al. 2021, §3.1.4), times ``exp(logit_scale)``; no bias. A head costs a pass over all
sentences, so it is kept in the cache.
"""

import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from linearize import assets, io, tree
from linearize.models.heads import Head
from linearize.models.prompts import ClassName, words
from linearize.models.text import TextEncoder, text_features
from linearize.models.tokenizer import Tokenizer

_VERSION = 1
"""Raised whenever the way from sentences to a head changes, so that older heads are not read."""


def zero_shot_head(class_features: Sequence[ArrayLike], logit_scale: float) -> Head:
    """The head of features of sentences; an image's features are normalised too.

    Args:
        class_features: per class, features ``(templates, D)`` of :func:`text_features`.
        logit_scale: of the :class:`TextEncoder`.

    Raises:
        ValueError: fewer than two classes, or features of differing widths.

    >>> head = zero_shot_head([jnp.eye(3)[:1], jnp.eye(3)[1:2]], 0.0)
    >>> head.kernel.shape, head.normalize
    ((3, 2), True)
    """
    shapes = [np.shape(x) for x in class_features]
    widths = {shape[1] if len(shape) == 2 and shape[0] else None for shape in shapes}
    if len(class_features) < 2 or len(widths) != 1 or None in widths:
        raise ValueError(
            f"class_features has {len(class_features)} class(es) with shapes "
            f"{shapes[:4]}; expected two or more of (templates, D)"
        )
    means = np.stack([_unit(np.asarray(x, np.float64)).mean(axis=0) for x in class_features])
    return _head(_unit(means).T, logit_scale)


def text_head(
    text: TextEncoder,
    tokenizer: Tokenizer,
    task: str,
    class_names: Sequence[ClassName],
    templates: Sequence[str],
    *,
    batch: int = 256,
) -> Head:
    """The head of a task's class names, from the cache where it was made before.

    The cache is keyed by the tower's weights and architecture, the tokenizer, the task, templates
    and class names; a file is whole or absent, and one that is damaged is made anew.

    Args:
        text: the tower that belongs to the image encoder.
        tokenizer: of :func:`linearize.models.load_tokenizer`.
        task: its name.
        class_names: what sentences call the classes, by label; of several words for a class, the
            head has the mean of the sentences with each.
        templates: each with one ``{}`` for the class's name.
        batch: sentences a call.

    Raises:
        ValueError: fewer than two classes, or no template.
    """
    if len(class_names) < 2 or not templates:
        raise ValueError(
            f"{task}: {len(class_names)} class name(s), {len(templates)} template(s); a head wants "
            "two classes and a template at least"
        )
    path = _path(text, tokenizer, task, class_names, templates)
    with contextlib.suppress(OSError, io.CorruptFileError, KeyError):
        found = io.load_tree(path)[0]
        return _head(found["kernel"], float(found["logit_scale"]))
    said = [[t.replace("{}", w) for w in words(name) for t in templates] for name in class_names]
    sentences = [sentence for of_class in said for sentence in of_class]
    tokens = tokenizer(sentences, text.context)
    # attention is causal: what follows the last end token need not be computed
    longest = int(np.flatnonzero(tokens.any(axis=0))[-1]) + 1
    cut = min(-8 * (-longest // 8), text.context)
    features = text_features(text, jnp.asarray(tokens[:, :cut]), batch=batch)
    ends = np.cumsum([len(of_class) for of_class in said])
    head = zero_shot_head(np.split(np.asarray(features), ends[:-1]), text.logit_scale)
    kept = {"kernel": head.kernel, "logit_scale": np.float64(text.logit_scale)}
    with contextlib.suppress(OSError):  # a full or read-only cache costs time only
        io.save_tree(path, kept, {"task": task, "model": text.name})
    return head


def _path(
    text: TextEncoder,
    tokenizer: Tokenizer,
    task: str,
    class_names: Sequence[ClassName],
    templates: Sequence[str],
) -> Path:
    decided_by = [
        _VERSION,
        tree.fingerprint(text.params),
        text.logit_scale,
        text.dtype,
        sorted((k, str(v)) for k, v in text.architecture.items()),
        tokenizer.fingerprint,
        task,
        list(class_names),
        list(templates),
    ]
    digest = hashlib.sha256(json.dumps(decided_by).encode()).hexdigest()[:16]
    return assets.cache_dir() / "heads" / f"{task}-{digest}.safetensors"


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


def _head(kernel: np.ndarray, logit_scale: float) -> Head:
    return Head(
        center=jnp.zeros(kernel.shape[0]),
        kernel=jnp.asarray(kernel, jnp.float32),
        bias=None,
        scale=jnp.exp(jnp.asarray(logit_scale, jnp.float32)),
        normalize=True,
    )
