"""The numbers of a run's finished seeds, as files that go from one run directory to another."""

from itertools import chain
from pathlib import Path

from linearize import io, sealed

RECORD = "record.json"


def records_of(run: Path) -> dict[Path, bytes]:
    """The records of a run's finished seeds, by their places in it.

    Raises:
        CorruptFileError: one was changed after it was written.
    """
    paths = sorted(chain(run.glob(f"seed_*/{RECORD}"), run.glob(f"*/seed_*/{RECORD}")))
    for path in paths:
        if problem := sealed.problem(path):
            raise io.CorruptFileError(f"{path} {problem}; take it out, and run that seed again")
    return {path.relative_to(run): path.read_bytes() for path in paths}
