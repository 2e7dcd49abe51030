"""Fetch, check and decode all that a preset reads, before a run needs it.

    python -m experiments.prepare_data vit_b32 --dry-run
    python -m experiments.prepare_data vit_b32 --data-dir /data/tfds
    python -m experiments.prepare_data analogies:sketches --weights FOLDER
    python -m experiments.prepare_data cars dtd glue/mrpc spam

Of a preset: its data, in the splits, rows and size that the experiment reads; its weights, and with
text heads the text tower, the tokenizer and the class names. A preset's name is that of ``compare``
where it has one; another's, where several have it, is EXPERIMENT:PRESET. What is there is passed
over, so the same command goes on after an interruption. Ends with a table; the exit status is 1
where something is missing or is not what the papers' table says. What a preset reads from one's own
files is not prepared: the table says so, and where it is expected.
"""

import contextlib
import dataclasses
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from configs import PRESETS
from configs.compare import STAND_INS
from experiments import protocol, stand_ins
from experiments.kernel_behavior.config import KernelBehaviorConfig, PromptConfig
from experiments.stand_ins import reviews
from experiments.width.config import WidthConfig
from linearize import assets, choices, cli, data, tree
from linearize.assets.cache import cached_path
from linearize.config import CompareConfig, ConfigError, HeadConfig, ModelConfig, StudyConfig
from linearize.config.files import require, said_as_configuration
from linearize.data import VISION, Limits, Reading, Task, preparing
from linearize.data.text import TEXT_SETS, TEXT_TASKS, load_text, text_set
from linearize.data.vision import human
from linearize.models import MODELS, clip
from linearize.models.hf import sources
from linearize.report import terminal
from linearize.study import heads

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Options:
    """What to prepare, and where."""

    what: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Presets, of any experiment as EXPERIMENT:PRESET, or names of tasks."""
    data_dir: str | None = None
    """Where data sets of TFDS lie, the preset's own by default."""
    weights: str | None = None
    """A folder, a file or a repository on the Hub in place of the preset's weights."""
    image_size: int | None = None
    """Side of the decoded images in pixels, the preset's own by default."""
    workers: int = 4
    """Threads that decode."""
    on_bad_image: Literal["error", "skip"] = "error"
    """"skip" leaves out images that do not decode."""
    dry_run: bool = False
    """Say what is there, what is missing and how large it is; fetch nothing."""

    def __post_init__(self) -> None:
        require(bool(self.what), "what", self.what, "name a preset or a task")
        for name in ("data_dir", "weights"):
            require(getattr(self, name) != "", name.replace("_", "-"), "", "give a path")
        folder = self.data_dir is None or not Path(self.data_dir).is_file()
        require(folder, "data-dir", self.data_dir, "it is a file; give a folder")
        sized = self.image_size is None or 1 <= self.image_size <= 1024
        require(sized, "image-size", self.image_size, "give a side from 1 to 1024 pixels")
        require(self.workers > 0, "workers", self.workers, "give one thread or more")

    def target(
        self, name: str, side: int, limit: Limits, seed: int = 0, data_dir: str | None = None
    ) -> "Target":
        """A task at a preset's size and from its folder, unless others are given here."""
        folder = self.data_dir if self.data_dir is not None else data_dir
        reading = Reading(folder, self.workers, self.on_bad_image)
        return Target(name, self.image_size or side, limit, seed, reading)


@dataclasses.dataclass(frozen=True)
class Target:
    """One task at one size, with the limits it is used with.

    Attributes:
        head: the text head that must have words for its classes; None for another head.
        stand_in: whether it is made by this command, and not of the real data set's size.
    """

    name: str
    image_size: int
    limit: Limits
    seed: int
    reading: Reading
    head: HeadConfig | None = None
    stand_in: bool = False


@dataclasses.dataclass(frozen=True)
class Encoder:
    """Weights that a preset reads, and its head where that is of text."""

    model: ModelConfig
    head: HeadConfig | None = None


@dataclasses.dataclass(frozen=True)
class Needs:
    """All that one preset reads."""

    targets: tuple[Target, ...]
    encoder: Encoder | None = None
    stand_ins: Path | None = None
    own: tuple["Own", ...] = ()


@dataclasses.dataclass(frozen=True)
class Own:
    """Texts that a preset reads from the user's own files, which are not prepared here.

    Attributes:
        name: as the preset says it.
        path: where they are expected; None where the preset names no folder.
    """

    name: str
    path: Path | None


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


def needs(options: Options) -> list[Needs]:
    """What the presets and tasks read.

    Raises:
        ConfigError: a word that is neither (the nearest is suggested), or a preset's name that
            several experiments have; weights for tasks alone.
    """
    found = []
    for word in options.what:
        preset = None if word in data.TASKS or _is_text(word) else find_preset(word)
        found.append(_of_preset(preset(), options) if preset else _of_task(word, options))
    require(
        options.weights is None or any(need.encoder for need in found),
        "weights", options.weights, "they stand for a preset's; name one that has a model",
    )  # fmt: skip
    return found


def find_preset(word: str) -> Callable[[], Any]:
    """The preset ``EXPERIMENT:NAME``, or ``NAME`` of ``compare`` or of the one that has it.

    Raises:
        ConfigError: there is none, or several; the message has the nearest, or the choices.
    """
    full = {f"{e}:{name}": build for e, table in PRESETS.items() for name, build in table.items()}
    for name in (word, f"compare:{word}"):
        if name in full:
            return full[name]
    same = [name for name in full if name.partition(":")[2] == word]
    if len(same) == 1:
        return full[same[0]]
    if same:
        raise ConfigError(f"{word!r} is a preset of several experiments; name {' or '.join(same)}")
    short = [name.partition(":")[2] for name in full]
    tasks = [*data.TASKS, *TEXT_TASKS, *TEXT_SETS]
    known, otherwise = [*full, *short, *tasks], f"experiments: {', '.join(PRESETS)}"
    hint = choices.hint(word, known, otherwise)
    raise ConfigError(f"{word!r} is no preset, EXPERIMENT:PRESET or PRESET, and no task{hint}")


def _of_preset(config: Any, options: Options) -> Needs:
    """What the experiment loads: the control task is read by ``compare`` alone.

    Raises:
        ConfigError: an experiment on text.
    """
    match config:
        case CompareConfig():
            return _of_study(config, (*config.data.tasks, config.data.control), options)
        case (StudyConfig() as told) | object(setting=StudyConfig() as told):
            return _of_study(told, told.data.tasks, options)
        case KernelBehaviorConfig(data=few):
            limit = Limits(None, few.validation, few.test)
            made = (options.target(name, few.image_size, limit, few.seed) for name in few.tasks)
            return Needs(tuple(made), _encoder(config.model, config.head, options))
        case WidthConfig():
            limit = Limits(config.train, config.test, config.test)
            return Needs((options.target(config.task, config.image_size, limit, config.data_seed),))
        case object(reads=names, data_dir=folder):  # text; the model is read when it is asked for
            known = [n for n in names if n in data.TASKS or _is_text(n)]
            made = (options.target(n, 224, Limits(), 0, folder) for n in known)
            left = [n for n in names if n not in known and not _made_by_the_run(n)]
            return Needs(tuple(made), own=tuple(_own(n, config) for n in left))
    raise TypeError(f"nothing is known of what {type(config).__name__} reads")


def _of_study(config: StudyConfig, names: Iterable[str], options: Options) -> Needs:
    own, folder = config.data, stand_ins.read_by(config)
    made = []
    for name in names:
        limit = protocol.limits(own, name)
        target = options.target(name, own.image_size, limit, own.seed, own.data_dir)
        made_here = folder is not None and target.reading.folder == folder / "data"
        head = config.head if config.head.kind == "text" else None
        made.append(dataclasses.replace(target, head=head, stand_in=made_here and name in VISION))
    return Needs(tuple(made), _encoder(config.model, config.head, options), folder)


def _made_by_the_run(name: str) -> bool:
    """Made-up documents, and stand-ins of files."""
    return name in reviews.DOMAINS or Path(name).is_relative_to(STAND_INS)


def _own(name: str, config: Any) -> Own:
    """Of kernels of few shots a folder in ``texts``; otherwise the name is the path."""
    if not isinstance(config, PromptConfig):
        return Own(name, Path(name))
    return Own(name, Path(config.texts, name) if config.texts else None)


def _own_files(own: Own) -> Line:
    """Whether they are there; only the user can bring them."""
    if own.path is None:
        files = f"FOLDER/{own.name}/train.csv and FOLDER/{own.name}/test.csv"
        return Line(
            own.name, "missing", note=f"not prepared here: pass --texts FOLDER, with {files}"
        )
    if own.path.exists():
        return Line(
            own.name, "ready", note=f"not prepared here: as it lies in {own.path.resolve()}"
        )
    note = (
        f"not prepared here: a file or folder of texts is expected in {own.path.resolve()}, or "
        "where the experiment is told; docs/data.md (Texts) says how a folder of WikiText is made"
    )
    return Line(own.name, "missing", note=note)


def _encoder(model: ModelConfig, head: HeadConfig, options: Options) -> Encoder | None:
    """None where weights are drawn at random."""
    if options.weights is not None:
        model = dataclasses.replace(model, weights=options.weights, pretrained=True)
    family = MODELS[model.name]
    if not model.pretrained or not (model.weights or family.convert or family.kind):
        return None
    return Encoder(model, head if head.kind == "text" else None)


def _of_task(name: str, options: Options) -> Needs:
    """A task by itself, at CLIP's size; of ImageNet, as many training images as a control has;
    text as it is.
    """
    limit = Limits()
    if name == "imagenet":
        limit = Limits(protocol.CONTROL_PER_CLASS * VISION[name].classes)
    return Needs((options.target(name, 224, limit),))


def prepare(target: Target, dry_run: bool) -> Line:
    """Do what is missing of one task; what came of it."""
    try:
        if target.name in VISION:
            return _vision(target, dry_run)
        return (_text_set if text_set(target.name) else _packaged)(target, dry_run)
    except OSError as error:
        remedy = "make room there, or choose another --data-dir or LINEARIZE_CACHE"
        return Line(target.name, "failed", note=f"{type(error).__name__}: {error}; {remedy}")
    except cli.FORESEEN as error:
        return Line(target.name, "failed", note=str(error))


def _is_text(name: str) -> bool:
    return name in TEXT_TASKS or text_set(name) is not None


def _packaged(target: Target, dry_run: bool) -> Line:
    texts = target.name in TEXT_TASKS
    if dry_run:
        row = TEXT_TASKS[target.name] if texts else data.TASKS[target.name]
        return _assets(target.name, row.assets)
    if texts:
        return Line(target.name, "ready", _listed(load_text(target.name).counts))
    return Line(target.name, "ready", _listed(_load(target).counts))


def _assets(name: str, names: Iterable[str]) -> Line:
    """Whether registered files are in the cache."""
    absent = [a for n in names if not cached_path(a := assets.REGISTRY[n]).is_file()]
    if not absent:
        return Line(name, "ready")
    size, providers = sum(a.size for a in absent), sorted({a.provider for a in absent})
    note = f"fetched from {', '.join(providers)}"
    return Line(name, "missing", download=human(size) if size else "", note=note)


def _load(target: Target) -> Task:
    """The task as the experiment loads it; a text head must have words for its classes."""
    task = data.load_task(
        target.name,
        image_size=target.image_size,
        limit=target.limit,
        seed=target.seed,
        reading=target.reading,
    )
    if target.head is not None:
        with said_as_configuration("head"):
            heads.sentences(task, target.head.class_names, target.head.templates)
    return task


def _vision(target: Target, dry_run: bool) -> Line:
    name, row, reading = target.name, VISION[target.name], target.reading
    found = preparing.status(name, reading)
    if not found.there and not found.problem and not dry_run:
        reading.folder.mkdir(parents=True, exist_ok=True)
        log.info("%s: %s, %s to download", name, row.tfds or row.original, row.downloads)
        preparing.prepare_set(name, reading)
        found = preparing.status(name, reading)
    notes = [found.problem] if found.problem else []
    if not found.there and row.by_hand:
        notes.append(row.by_hand.format(data_dir=reading.folder))
    if row.differs:
        notes.append(row.differs.format(data_dir=reading.folder))
    if target.stand_in:
        notes = ["a stand-in"]
    if found.there and not dry_run:
        log.info("%s: decoding validation and test at %d px", name, target.image_size)
        skipped = _load(target).skipped
        if any(skipped.values()):
            notes.append(f"left out as they do not decode: {_listed(skipped)}")
    decoded = preparing.evaluation_bytes(name, target.image_size, target.limit)
    ready = found.ready or (found.there and target.stand_in)
    return Line(
        name,
        "ready" if ready else "differs" if found.there else "missing",
        _listed(found.counts or found.expected),
        "" if found.there else row.downloads,
        human(row.disk),
        human(decoded),
        "; ".join(notes),
    )


def _text_set(target: Target, dry_run: bool) -> Line:
    name, reading, row = target.name, target.reading, text_set(target.name)
    assert row is not None
    found = preparing.status(name, reading)
    if not found.there and not dry_run:
        reading.folder.mkdir(parents=True, exist_ok=True)
        log.info("%s: %s, to download", name, row.tfds)
        preparing.prepare_set(name, reading)
        found = preparing.status(name, reading)
    notes = [found.problem] if found.problem else []
    if not found.there and row.by_hand:
        notes.append(row.by_hand.format(data_dir=reading.folder))
    return Line(
        name,
        "ready" if found.ready else "differs" if found.there else "missing",
        _listed(found.counts or found.expected),
        "" if found.there else row.downloads,
        note="; ".join(notes),
    )


def prepare_encoder(encoder: Encoder, dry_run: bool) -> Iterator[Line]:
    """Fetch and load one encoder, then its text tower; neither is kept."""
    model, name = encoder.model, f"weights of {encoder.model.name}"
    if dry_run:
        yield _unread(name, model)
        return
    log.info("%s: %s", name, model.weights or "packaged")
    try:
        width, parameters = _loaded(model)
        yield Line(name, "ready", parameters, disk=_size(model))
        if encoder.head is not None:
            name = f"text tower of {model.name}"
            yield _text(name, encoder.model, encoder.head, width)
    except cli.FORESEEN as error:
        yield Line(name, "failed", note=str(error))


def _unread(name: str, model: ModelConfig) -> Line:
    """Whether the weights are here; nothing is fetched."""
    if model.weights is None and model.name in assets.REGISTRY:
        return _assets(name, [model.name])
    if model.weights is None or sources.held(model.weights):
        return Line(name, "ready", disk=_size(model))
    if not sources.is_hub(model.weights):
        note = f"weights={model.weights!r} holds no weights; point to a folder or a file of them"
        return Line(name, "missing", note=note)
    note = f"fetched from the Hub ({model.weights}); offline, pass --weights FOLDER"
    size = expected_bytes(model.name)
    return Line(name, "missing", download=f"about {human(size)}" if size else "", note=note)


def _loaded(model: ModelConfig) -> tuple[int, str]:
    """Width of an encoder's features and number of its parameters; the encoder is let go."""
    backbone = model.load(0)
    return backbone.feature_dim, _parameters(backbone.params)


def _text(name: str, model: ModelConfig, head: HeadConfig, width: int) -> Line:
    text, tokenizer = model.text_tower(head.tokenizer)
    with said_as_configuration("head"):
        heads.check_width(text, model.name, width)
    note = f"tokenizer: {tokenizer.source}, {tokenizer.vocabulary:,} tokens"
    return Line(name, "ready", _parameters(text.params), note=note)


def _parameters(params: Any) -> str:
    return f"{sum(np.size(leaf) for leaf in tree.flatten(params).values()):,} parameters"


def _size(model: ModelConfig) -> str:
    """Size of the files of weights on this disk, for people."""
    held = sources.held(model.weights) if model.weights else []
    if model.weights is None and model.name in assets.REGISTRY:
        held = [cached_path(assets.REGISTRY[model.name])]
    size = sum(path.stat().st_size for path in held)
    return human(size) if size else ""


def expected_bytes(name: str) -> int:
    """Bytes of a named model's weights in float32, the text tower's too; 0 where none is told."""
    family = MODELS[name]
    if not family.kind or not family.depth:
        return 0
    module = family.module(
        image_size=family.image_size, depth=family.depth, scan=True, **family.options or {}
    )
    images = jax.ShapeDtypeStruct((1, family.image_size, family.image_size, 3), jnp.uint8)
    shapes = [jax.eval_shape(module.init, jax.random.key(0), images)]
    if family.text:
        tower = clip.TextTower(**family.text, scan=True)
        tokens = jax.ShapeDtypeStruct((1, tower.context), jnp.int32)
        shapes.append(jax.eval_shape(tower.init, jax.random.key(0), tokens))
    return sum(4 * leaf.size for leaf in jax.tree.leaves(shapes))


def _listed(counts: object) -> str:
    return ", ".join(f"{split} {n:,}" for split, n in dict(counts).items())  # type: ignore[call-overload]


def table(lines: list[Line]) -> terminal.Grid:
    """For the terminal."""
    head = ("what", "state", "examples", "download", "on disk", "decoded")
    return terminal.Grid.plain(head, (dataclasses.astuple(line)[:6] for line in lines), numbers=3)


def prepare_all(wanted: list[Needs], dry_run: bool) -> Iterator[Line]:
    """Weights first, which are soon checked, then every task once."""
    targets = list(dict.fromkeys(target for need in wanted for target in need.targets))
    for need in wanted if not dry_run else []:
        if need.stand_ins is not None:
            stand_ins.make(need.stand_ins, tuple(t.name for t in need.targets))
    for encoder in dict.fromkeys(need.encoder for need in wanted if need.encoder):
        yield from prepare_encoder(encoder, dry_run)
    if not dry_run:
        for size in dict.fromkeys(target.image_size for target in targets):
            with contextlib.suppress(assets.AssetError):  # each task says so for itself below
                data.prefetch([t.name for t in targets if t.image_size == size], size)
    for target in targets:
        yield prepare(target, dry_run)
    yield from map(_own_files, dict.fromkeys(own for need in wanted for own in need.own))


def main(options: Options) -> int:
    """Prepare, print, and the exit status: 0 where everything is ready."""
    lines = []
    for line in prepare_all(needs(options), options.dry_run):
        lines.append(line)
        log.info("%s: %s", line.name, line.state)
    console = terminal.console()
    terminal.show(console, "Data and weights", table(lines))
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
