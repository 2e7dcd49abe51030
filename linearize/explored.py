"""What the report's sliders need: class scores that are affine in α, and a few images.

explorer.npz    TASK/logits0 (E, C), TASK/labels (E,), TASK/dlogits (T, E, C) of one method,
                TASK/dlogits/METHOD of the others, TASK/shown (K,), TASK/images (K, h, w, 3)
"""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from PIL import Image

from linearize.evaluate.affine import AffineOutputs
from linearize.evaluate.view import Tangent
from linearize.examples import Examples
from linearize.objectives import ACCURACY
from linearize.study import Method, Study

EXAMPLES = 500
"""Test examples a task that the sliders look at, at most."""
NUMBERS = 2_000_000
"""Scores in all, at most: fewer examples of many tasks, classes and methods, for a light page."""
IMAGES, SIDE = 6, 56
"""Images a task, and their longer side in pixels at most."""


def explorable(study: Study, regimes: Sequence[Method]) -> list[Method]:
    """The methods in the tangent view, one that trains there first; none where none does."""
    tangent = [m for m in regimes if issubclass(study.views[m.view], Tangent)]
    trained = next((m for m in tangent if m.train), None)
    return [] if trained is None else [trained, *(m for m in tangent if m is not trained)]


def explored(study: Study, regimes: Sequence[Method]) -> bytes | None:
    """Class scores at θ0 and along each τ on test examples, evenly spaced, as ``explorer.npz``.

    Of the methods of :func:`explorable`. None where there is no such method, or a task's
    predictions are no argmax of scores that are affine in its outputs, or are not measured by
    accuracy, which is all that the page's script computes.
    """
    methods = explorable(study, regimes)
    if not methods or any(study.objectives[task].primary != ACCURACY for task in study.names):
        return None
    scores: dict[str, list[AffineOutputs]] = {}
    for task in study.names:
        examples, reduced = study.split(task, "test"), study.objectives[task].reduced()
        views = [study.view(method) for method in methods]
        known = [v for v in views if isinstance(v, Tangent) and v.keeps(examples)]
        if reduced is None or len(known) < len(views):
            return None
        scores[task] = [view.terms(examples).through(reduced[0]) for view in known]
    most = _most(scores)
    arrays: dict[str, np.ndarray] = {}
    for t, (task, (first, *others)) in enumerate(scores.items()):
        examples = study.split(task, "test")
        labels = np.asarray(examples.labels)
        rows = np.linspace(0, len(labels) - 1, min(most, len(labels))).round().astype(int)
        arrays[f"{task}/logits0"] = np.asarray(first.f0, np.float32)[rows]
        arrays[f"{task}/dlogits"] = np.asarray(first.jvps, np.float32)[:, rows]
        arrays[f"{task}/labels"] = labels[rows]
        for method, each in zip(methods[1:], others, strict=True):
            arrays[f"{task}/dlogits/{method.name}"] = np.asarray(each.jvps, np.float32)[:, rows]
        shown = telling(arrays[f"{task}/logits0"], arrays[f"{task}/dlogits"], labels[rows], t)
        images = thumbnails(examples, rows[shown])
        if images is not None:
            arrays |= {f"{task}/shown": shown, f"{task}/images": images}
    buffer = BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _most(scores: dict[str, list[AffineOutputs]]) -> int:
    """How many examples a task there is room for."""
    a_row = sum((1 + len(each) * len(scores)) * each[0].f0.shape[-1] for each in scores.values())
    return max(1, min(EXAMPLES, NUMBERS // a_row))


def telling(scores: np.ndarray, along: np.ndarray, labels: np.ndarray, t: int) -> np.ndarray:
    """Examples whose prediction α changes, where there are such; (K,) rising.

    Args:
        scores: (E, C) class scores at θ0.
        along: (T, E, C) along each task vector.
        labels: (E,).
        t: the task that the examples are of.
    """
    moved = (scores, scores + along[t], scores + along.sum(0))
    before, alone, together = (each.argmax(-1) == labels for each in moved)
    found: list[int] = []
    for which, count in (
        (~before & alone, IMAGES - 2),
        (alone & ~together, 1),
        (labels == labels, IMAGES),
    ):
        rows = [row for row in np.flatnonzero(which) if row not in found]
        room = min(len(rows), count, IMAGES - len(found))
        found += [rows[i] for i in np.linspace(0, len(rows) - 1, room).round().astype(int)]
    return np.sort(np.array(found, np.int64))


def thumbnails(examples: Examples, rows: np.ndarray) -> np.ndarray | None:
    """Small 8-bit pictures of some examples, (K, h, w, 3); None of what is no such image."""
    inputs = examples.take(rows).inputs
    pixels = None if isinstance(inputs, tuple | dict) else np.asarray(inputs)
    if pixels is None or pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[-1] != 3:
        return None
    pictures = [Image.fromarray(each) for each in pixels]
    for picture in pictures:
        picture.thumbnail((SIDE, SIDE))
    return np.stack([np.asarray(picture) for picture in pictures])
