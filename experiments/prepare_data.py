"""Download, check and decode all the data that a preset needs, before a run needs them.

    python -m experiments.prepare_data vit_b32 --dry-run
    python -m experiments.prepare_data vit_b32 --data-dir /data/tfds
    python -m experiments.prepare_data cars dtd

What is there is passed over, so the same command goes on after an interruption. Ends with a table;
the exit status is 1 where something is missing or is not what the papers' table says.
"""

import dataclasses
import difflib
import logging
import sys
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table

from configs import COMPARE
from experiments import protocol
from linearize import cli, data
from linearize.config import CompareConfig, ConfigError, DataConfig
from linearize.data import VISION, Limits, Reading, preparing
from linearize.data.vision import human

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Options:
    """What to prepare, and where."""

    what: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Presets of experiments.compare, or names of tasks."""
    data_dir: str | None = None
    """Where data sets of TFDS lie, the preset's own by default."""
    image_size: int | None = None
    """Side of the decoded images in pixels, the preset's own by default."""
    workers: int = 4
    """Threads that decode."""
    on_bad_image: Literal["error", "skip"] = "error"
    """"skip" leaves out images that do not decode."""
    dry_run: bool = False
    """Say what is there, what is missing and how large it is; fetch nothing."""


@dataclasses.dataclass(frozen=True)
class Target:
    """One task at one size, with the limits it is used with."""

    name: str
    image_size: int
    limit: Limits
    seed: int
    reading: Reading


@dataclasses.dataclass(frozen=True)
class Line:
    """A row of the table."""

    name: str
    state: Literal["ready", "missing", "differs", "failed"]
    examples: str = ""
    download: str = ""
    disk: str = ""
    decoded: str = ""
    note: str = ""


def targets(options: Options) -> list[Target]:
    """The tasks of the presets and names, each once.

    Raises:
        ConfigError: a word that is neither; the nearest is suggested.
    """
    found: dict[tuple[str, int], Target] = {}
    for word in options.what:
        if word in COMPARE:
            of_one = _of_preset(COMPARE[word](), options)
        elif word in data.TASKS:
            of_one = [_of_task(word, options)]
        else:
            near = difflib.get_close_matches(word, [*COMPARE, *data.TASKS], n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"presets: {', '.join(COMPARE)}"
            raise ConfigError(f"{word!r} is no preset of experiments.compare and no task; {hint}")
        for target in of_one:
            found.setdefault((target.name, target.image_size), target)
    return list(found.values())


def _of_preset(config: CompareConfig, options: Options) -> list[Target]:
    names = (*config.data.tasks, config.data.control)
    return [_target(config.data, name, options) for name in names]


def _of_task(name: str, options: Options) -> Target:
    """A task by itself, at CLIP's size; of ImageNet, as many training images as a control has."""
    limit = Limits()
    if name == "imagenet":
        limit = Limits(protocol.CONTROL_PER_CLASS * VISION[name].classes)
    reading = Reading(options.data_dir, options.workers, options.on_bad_image)
    return Target(name, options.image_size or 224, limit, 0, reading)


def _target(config: DataConfig, name: str, options: Options) -> Target:
    folder = options.data_dir if options.data_dir is not None else config.data_dir
    size = options.image_size or config.image_size
    reading = Reading(folder, options.workers, options.on_bad_image)
    return Target(name, size, protocol.limits(config, name), config.seed, reading)


def prepare(target: Target, dry_run: bool) -> Line:
    """Do what is missing of one task; what came of it."""
    try:
        return _packaged(target, dry_run) if target.name not in VISION else _vision(target, dry_run)
    except cli.FORESEEN as error:
        return Line(target.name, "failed", note=str(error))


def _packaged(target: Target, dry_run: bool) -> Line:
    if dry_run:
        providers = ", ".join(data.TASKS[target.name].providers)
        return Line(target.name, "ready", note=f"fetched on first use ({providers})")
    task = data.load_task(
        target.name, image_size=target.image_size, limit=target.limit, seed=target.seed
    )
    return Line(target.name, "ready", _listed(task.counts))


def _vision(target: Target, dry_run: bool) -> Line:
    name, row, reading = target.name, VISION[target.name], target.reading
    found = preparing.status(name, reading)
    if not found.there and not found.problem and not dry_run:
        reading.folder.mkdir(parents=True, exist_ok=True)
        log.info("%s: %s, %s to download", name, row.tfds, row.downloads)
        preparing.prepare_set(name, reading)
        found = preparing.status(name, reading)
    notes = [found.problem] if found.problem else []
    if not found.there and row.by_hand:
        notes.append(row.by_hand.format(data_dir=reading.folder))
    if row.differs:
        notes.append(row.differs.format(data_dir=reading.folder))
    if found.there and not dry_run:
        log.info("%s: decoding validation and test at %d px", name, target.image_size)
        skipped = preparing.write_evaluation(
            name, target.image_size, target.limit, target.seed, reading
        )
        if any(skipped.values()):
            notes.append(f"left out as they do not decode: {_listed(skipped)}")
    decoded = preparing.evaluation_bytes(name, target.image_size, target.limit)
    return Line(
        name,
        "ready" if found.ready else "differs" if found.there else "missing",
        _listed(found.counts or found.expected),
        "" if found.there else row.downloads,
        human(row.disk),
        human(decoded),
        "; ".join(notes),
    )


def _listed(counts: object) -> str:
    return ", ".join(f"{split} {n:,}" for split, n in dict(counts).items())  # type: ignore[call-overload]


def table(lines: list[Line]) -> Table:
    """For the terminal."""
    shown = Table(title="Data", title_justify="left")
    for title in ("task", "state", "examples", "download", "on disk", "decoded"):
        shown.add_column(title, overflow="fold")
    for line in lines:
        shown.add_row(*dataclasses.astuple(line)[:6])
    return shown


def main(options: Options) -> int:
    """Prepare, print, and the exit status: 0 where everything is ready."""
    wanted = targets(options)
    packaged = [t for t in wanted if t.name not in VISION]
    if packaged and not options.dry_run:
        data.prefetch([t.name for t in packaged], packaged[0].image_size)
    lines = []
    for target in wanted:
        lines.append(prepare(target, options.dry_run))
        log.info("%s: %s", target.name, lines[-1].state)
    console = Console()
    console.print(table(lines))
    for line in lines:
        if line.note:
            console.print(f"{line.name}: {line.note}", markup=False, highlight=False)
    left = [line.name for line in lines if line.state != "ready"]
    if left:
        console.print(f"not ready: {', '.join(left)}", markup=False, highlight=False)
    return 1 if left else 0


if __name__ == "__main__":
    with cli.reporting(status=2):  # 1 is said of data that are not ready
        sys.exit(main(tyro.cli(Options, prog="python -m experiments.prepare_data")))
