"""Real images."""

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


@pytest.fixture(autouse=True)
def connected(monkeypatch):
    """The Hub answers, as far as tests that fake its downloads are concerned."""
    monkeypatch.setattr(sources, "_no_connection", lambda *_: None)
