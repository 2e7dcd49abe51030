"""Small made-up data sets."""

import numpy as np
import pytest

from experiments.stand_ins import data as stand_in_data
from linearize.models.hf import sources


@pytest.fixture
def make_images():
    """Distinct noise images (n, side, side, 3) and labels that run through the classes."""

    def make(n, classes=3, side=8, seed=0):
        generator = np.random.default_rng(seed)
        images = generator.integers(0, 256, (n, side, side, 3), np.uint8)
        return images, np.arange(n) % classes

    return make


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """The papers' data sets on disk, from their own builders; not to be written to."""
    return stand_in_data.make(tmp_path_factory.mktemp("data"), per_class=3)


@pytest.fixture(autouse=True)
def connected(monkeypatch):
    """The Hub answers, as far as tests that fake its downloads are concerned."""
    monkeypatch.setattr(sources, "_no_connection", lambda *_: None)
