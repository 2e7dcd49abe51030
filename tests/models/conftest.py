"""Real images; programs that are compiled quickly."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from linearize.models.hf import sources


@pytest.fixture(scope="session")
def digits() -> Callable[[int, int], np.ndarray]:
    """``digits(n, side)``: scanned digits in colour, ``(n, side, side, 3) uint8``."""
    from sklearn.datasets import load_digits

    grey = np.round(load_digits().images * (255 / 16)).astype(np.uint8)

    def take(n: int, side: int) -> np.ndarray:
        large = [np.asarray(Image.fromarray(x).resize((side, side), 2)) for x in grey[:n]]
        x = np.stack(large).astype(int)
        return np.stack([x, 255 - x, 40 + x // 2], axis=-1).astype(np.uint8)

    return take


OPTIMIZED = ("test_attention",)
"""Files whose programs are what is measured."""


@pytest.fixture(scope="module", autouse=True)
def compiled_quickly(request: pytest.FixtureRequest) -> None:
    """These tests are about what models compute, and most of their time is XLA's."""
    if request.path.stem not in OPTIMIZED:
        request.getfixturevalue("quick_compilation")


@pytest.fixture(autouse=True)
def connected(monkeypatch):
    """The Hub answers, as far as tests that fake its downloads are concerned."""
    monkeypatch.setattr(sources, "_no_connection", lambda *_: None)
