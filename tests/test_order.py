"""The k-th largest of numbers in parts is that of sorting them."""

import numpy as np
import pytest

from linearize.merge.order import largest

RNG = np.random.default_rng(0)
NUMBERS = {
    "normal": np.abs(RNG.normal(size=300)),
    "float32": np.abs(RNG.normal(size=300)).astype(np.float32).astype(np.float64),
    "ties": RNG.integers(0, 4, 300) / 2.0,
    "zeros": np.zeros(40),
    "extremes": np.float64([0, 5e-324, 1e-310, 1, 1 + 2**-52, 1.7e308, np.inf, 1, 0]),
}


@pytest.mark.parametrize("most", [1, 7, 10**6])
@pytest.mark.parametrize("kind", NUMBERS)
def test_equals_sorting(kind, most):
    numbers = NUMBERS[kind]
    parts = [numbers[:5], numbers[5:5], numbers[5:]]
    for k in {1, 2, 5, len(numbers) // 2, len(numbers)}:
        found = largest(lambda: iter(parts), k, len(numbers), most=most)
        assert found == np.sort(numbers)[-k]


@pytest.mark.parametrize("k", [0, 4])
def test_there_must_be_as_many(k):
    with pytest.raises(ValueError, match=f"k={k} of 3 numbers"):
        largest(lambda: [np.ones(3)], k, 3)
