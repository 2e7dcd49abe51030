"""Training batches from images on disk: shuffled, decoded and augmented by grain's workers."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from linearize import tree
from linearize.data.stored import StoredImages

_POSITIONS = 1 << 50
"""As good as without end; grain's own endless stream overflows at batches of one."""


class Loader:
    """An endless stream of batches whose order and crops are functions of seed and step alone.

    Each epoch is another permutation; batches reach over an epoch's end, so nothing is dropped.
    Worker threads make whole batches ahead: Pillow decodes and resizes outside Python's lock.

    Args:
        images: (N, S, S, 3) on disk.
        columns: what else an example has, arrays of N rows, such as ``labels``.
        augment: random crops as in open_clip's training; else the crop of evaluation.
        workers: threads.
        entry: the images' name in a batch.

    Raises:
        ValueError: a column of another length.
    """

    def __init__(
        self,
        images: StoredImages,
        columns: Mapping[str, np.ndarray],
        *,
        augment: bool = True,
        workers: int = 4,
        entry: str = "inputs",
    ) -> None:
        for name, column in columns.items():
            if len(column) != len(images):
                raise ValueError(
                    f"column {name!r} has {len(column)} rows for {len(images)} images; give one "
                    "an image"
                )
        self.images, self.columns = images, dict(columns)
        self.augment, self.workers, self.entry = augment, workers, entry

    @property
    def examples(self) -> int:
        """N."""
        return len(self.images)

    @property
    def spec(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Shape of one example and dtype of each entry of a batch."""
        columns = {name: (c.shape[1:], c.dtype) for name, c in self.columns.items()}
        return {self.entry: (self.images.shape[1:], self.images.dtype), **columns}

    @property
    def fingerprint(self) -> str:
        """A hash of all that decides the batches, but for seed and batch size."""
        decided_by = self.images.fingerprint, self.augment, tree.fingerprint(self.columns)
        return hashlib.sha256(repr(decided_by).encode()).hexdigest()

    def batches(
        self, batch_size: int, seed: int, first: int = 0
    ) -> Iterator[dict[str, np.ndarray]]:
        """The batches of steps ``first``, ``first + 1``, ... without end.

        Raises:
            DataError: while iterating, an image that does not decode; it is named.
        """
        import grain  # half a second, and nobody needs it for arrays in memory

        stream = (
            grain.MapDataset.range(self.examples)
            .seed(seed)
            .shuffle()
            .repeat(_POSITIONS // self.examples)
            .random_map(self.example)
            .batch(batch_size, drop_remainder=True)
        )
        options = grain.ReadOptions(num_threads=self.workers, prefetch_buffer_size=2 * self.workers)
        iterator = iter(stream.to_iter_dataset(options))
        grain.experimental.set_next_index(iterator, first)
        return iterator

    def example(self, position: int, rng: np.random.Generator) -> dict[str, Any]:
        """One example as it enters a batch."""
        image = self.images.pixels(int(position), rng if self.augment else None)
        columns = {name: column[position] for name, column in self.columns.items()}
        return {self.entry: image, **columns}


def for_training(
    examples: Mapping[str, Any], *, augment: bool = True, workers: int = 4
) -> Mapping[str, Any] | Loader:
    """Examples as ``train.fine_tune`` takes them: a :class:`Loader` where their images are on disk.

    Args:
        examples: ``inputs``, ``labels``, and what the loss may want.
        augment: of images on disk; arrays are not augmented.
        workers: threads that decode.
    """
    images = examples["inputs"]
    if not isinstance(images, StoredImages):
        return examples
    columns = {name: column for name, column in examples.items() if name != "inputs"}
    return Loader(images, columns, augment=augment, workers=workers)
