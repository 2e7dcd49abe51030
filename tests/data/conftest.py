"""Small made-up data sets."""

import numpy as np
import pytest

from experiments.stand_ins import data as stand_in_data
from linearize.data.vision import SUITES
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
    names = tuple(name for name in stand_in_data.ALL if name not in SUITES)
    return stand_in_data.make(tmp_path_factory.mktemp("data"), names, per_class=3)


@pytest.fixture(scope="session")
def suites_dir(tmp_path_factory):
    """What the suites of 14 and 20 tasks add; not to be written to."""
    return stand_in_data.make(tmp_path_factory.mktemp("suites"), tuple(SUITES), per_class=3)


@pytest.fixture(autouse=True)
def connected(monkeypatch):
    """The Hub answers, as far as tests that fake its downloads are concerned."""
    monkeypatch.setattr(sources, "_no_connection", lambda *_: None)
