"""Stand-ins for what a rehearsal cannot fetch: a small random CLIP, and the papers' data sets.

They lie on disk as the real ones do, and everything that reads them is what reads these.
"""

from pathlib import Path

from configs.compare import STAND_INS as STAND_INS
from experiments.stand_ins import data as stand_in_data
from experiments.stand_ins import model as stand_in_model
from linearize.config import StudyConfig

PER_CLASS = 40
"""Images a class in each TFDS split; fewer where the classes are many."""


def read_by(config: StudyConfig) -> Path | None:
    """The folder of stand-ins that a configuration reads, to be made first; None of any other."""
    weights = config.model.weights
    return Path(STAND_INS) if weights and Path(weights) == Path(STAND_INS, "clip") else None


def make(folder: str | Path, tasks: tuple[str, ...], seed: int = 0) -> tuple[Path, Path]:
    """``FOLDER/clip``, for ``model.weights``, and ``FOLDER/data``, for ``data.data_dir``.

    What is there already is left as it is; tasks that are not the papers' are passed over.

    Raises:
        WeightsError: as :func:`experiments.stand_ins.model.make`.
        AssetError: OpenAI's vocabulary is not in the cache and cannot be fetched.
    """
    folder = Path(folder)
    weights = stand_in_model.make(folder / "clip", seed)
    return weights, stand_in_data.make(folder / "data", tasks, PER_CLASS, seed)
