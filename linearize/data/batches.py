"""The order of examples in an epoch."""

import numpy as np


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of ``n`` rows, the same on every machine, another one in each epoch.

    Args:
        n: number of examples.
        seed: of the run.
        epoch: counted from 0.

    Returns:
        (n,) int32.

    >>> epoch_order(4, seed=0, epoch=0).shape
    (4,)
    """
    generator = np.random.Generator(np.random.Philox(key=[seed % 2**64, epoch]))
    return generator.permutation(n).astype(np.int32)
