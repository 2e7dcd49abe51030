"""The console command ``linearize``: its jobs on one's own files.

linearize compare --model FOLDER --task cars=photos/cars --task dogs=photos/dogs --out runs/mine
linearize audit a.safetensors lora/dogs --base FOLDER --task photos/cars --task photos/dogs
linearize report runs/mine
linearize merge a.safetensors lora/dogs --alpha 0.4 --base FOLDER --out FOLDER
linearize merge tuned/cars tuned/dogs --merge ties --base FOLDER --out FOLDER --shard-size 2GB
linearize curvature --model FOLDER --task photos/cars --out cars_card.safetensors
linearize plan compare --model FOLDER ... --out runs/mine
linearize work experiments.compare vit_b32 --run-dir runs/vit_b32
srun linearize compare --model FOLDER ... --out runs/mine --distributed
linearize --version

What is compiled is kept in the user's cache directory for the next command;
``--no-compilation-cache`` leaves that alone.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import tyro
from tyro.conf import Positional, UseAppendAction

from linearize import (
    __version__,
    comparison,
    compilation_cache,
    data,
    distributed,
    edit,
    hosts,
    methods,
    models,
    report,
    tree,
)
from linearize.choices import one_of
from linearize.cli import (
    WHOLE,
    Share,
    carry_out,
    reporting,
    sentence,
    split_cache,
    split_share,
)
from linearize.config import ConfigError
from linearize.curvature import Card
from linearize.fields import Count, Positive, Seed, check
from linearize.interference import audit
from linearize.joining import parting
from linearize.merge import MERGES
from linearize.methods.tak import card_of, tak
from linearize.models import Backbone
from linearize.study import Method, Study
from linearize.study.heads import Heads, Prototypes, words
from linearize.task_vector import TaskVector
from linearize.train import OptimConfig, TrainConfig
from linearize.types import Params


@dataclass(frozen=True)
class Compare:
    """Fine-tune a model on folders of images in three regimes, add and negate the task vectors.

    --plan lists the fine-tunings, a command each; --only NAME makes one of them; --work makes this
    one of several processes that share them. --distributed [HOST:PORT --processes N --process I]
    has several processes do it together, each on its host, with a share of the devices.
    """

    model: str
    """Weights of a CLIP, ViT or DINOv2 (a folder, a file or a repository), or a packaged model."""
    task: UseAppendAction[tuple[str, ...]]
    """NAME=FOLDER, with a sub-folder a class, or a training, a validation and a test folder of
    such; or the name of a packaged task. Twice or more."""
    out: Path
    """Where tables, figures, task vectors and the page go."""
    control: str | None = None
    """Likewise: the task that negation must leave alone; without it nothing is negated."""
    image_size: Count | None = None
    """Side in pixels that images are kept at; the model's own by default."""
    given: UseAppendAction[tuple[str, ...]] = ()
    """NAME=WHERE, once a task: what others fine-tuned of the model on it, a LoRA adapter of PEFT or
    a whole checkpoint; compared beside the methods, as it is and post-hoc linearized."""
    leave_out: tuple[str, ...] = ()
    """Regular expressions of tensors' names: what only one side of these has."""
    methods: tuple[str, ...] = ("nonlinear", "posthoc", "linear")
    """Rows of ``linearize.METHODS``, options behind a colon: lora:rank=8 l_lora tau_jp:weight=0.3.
    An adapter of LoRA is written for PEFT too: OUT/seed_0/lora/TASK/peft."""
    merges: tuple[str, ...] = ()
    """Beside the sum: mean, ties, tsv_m, iso_c, wudi, ... (``linearize.MERGES``)."""
    card: UseAppendAction[tuple[Path, ...]] = ()
    """Curvature cards of ``linearize curvature``: TAK with these, no other task's images looked at,
    beside the methods. That of a task's own name is not for its vector."""
    seeds: tuple[Seed, ...] = (0,)
    steps: Count = 100
    batch_size: Count = 32
    lr: Positive = 1e-5
    """Peak learning rate of non-linear fine-tuning."""
    linear_lr: Positive = 2e-5
    """Likewise of linear fine-tuning."""
    head: Literal["auto", "text", "prototype"] = "auto"
    """Frozen heads of the classes' names, as a CLIP's text tower reads them, or of a few training
    examples; ``auto`` takes the former of a CLIP, and the latter of all else."""
    shots: Count = 10
    """Training examples a class of the latter."""


@dataclass(frozen=True)
class Auditor:
    """Say which task vectors will harm which tasks, and where, before anything is merged."""

    vectors: Positional[tuple[str, ...]]
    """task_vector.safetensors, LoRA adapters of PEFT or whole checkpoints, fine-tuned from this
    base: one for each --task, in that order, or as NAME=WHERE."""
    base: str
    """The weights that they displace."""
    task: UseAppendAction[tuple[str, ...]]
    """As of ``linearize compare``; twice or more."""
    out: Path = Path("runs/audit")
    """Where the numbers, figures and the page go."""
    alpha: float = 1.0
    """The coefficient of two vectors at which their disentanglement error is measured."""
    examples: Count = 64
    """Validation examples of each task that are looked at, at most."""
    layer: UseAppendAction[tuple[str, ...]] = ()
    """NAME=PATTERN, a regular expression of leaves' names; by default the model's blocks."""
    view: Literal["displaced", "tangent"] = "displaced"
    """The model in which disentanglement error is measured: with its weights moved, or
    linearized."""
    kronecker: bool = True
    """Measure each task's curvature too, for the estimate that needs no example later."""
    image_size: Count | None = None
    """Side in pixels that images are kept at; the model's own by default."""
    leave_out: tuple[str, ...] = ()
    """Regular expressions of tensors' names: what only one side has."""
    seed: Seed = 0
    """Of the examples drawn, and of heads."""
    head: Literal["auto", "text", "prototype"] = "auto"
    """As of ``linearize compare``."""
    shots: Count = 10


@dataclass(frozen=True)
class Report:
    """Make a finished run's tables, figures and page anew, and print the tables."""

    run_dir: Positional[Path]


@dataclass(frozen=True)
class Edit:
    """Add or merge task vectors, apply them, and write a folder that transformers opens."""

    vectors: Positional[tuple[str, ...]]
    """task_vector.safetensors, LoRA adapters of PEFT or whole checkpoints, fine-tuned from this
    base."""
    base: str
    """The weights that they displace."""
    out: Path
    alpha: float | None = None
    """The scaling coefficient; below 0 to negate. The merge's own by default, 1 of the sum."""
    leave_out: tuple[str, ...] = ()
    """Regular expressions of tensors' names: what only one side has, and stays as in the base."""
    merge: str = "sum"
    """A row of ``linearize.MERGES`` that takes no data: sum, mean, ties, dare, consensus, ..."""
    shard_size: str | None = None
    """Work tensor by tensor, for models larger than memory, and write shards of at most so much,
    such as 2GB, in the dtypes of the base. Vectors are then whole checkpoints of safetensors,
    adapters, or vectors between such."""
    seed: Seed = 0
    """Of merges that draw."""


@dataclass(frozen=True)
class Curvature:
    """Measure a curvature card of images: who has it trains vectors that leave their task alone."""

    model: str
    """Weights of a CLIP, ViT or DINOv2 (a folder, a file or a repository), or a packaged model."""
    task: str
    """FOLDER, with a sub-folder a class, or the name of a packaged task."""
    out: Path
    """A safetensors file."""
    examples: Count = 256
    """Training images of the task; all where there are fewer."""
    image_size: Count | None = None
    """Side in pixels that images are kept at; the model's own by default."""


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line and run; foreseen errors end in a sentence.

    Raises:
        SystemExit: 2 for a command line that cannot be run, 1 for an error that is foreseen.
    """
    words = sys.argv[1:] if args is None else list(args)
    if words == ["--version"]:
        print(f"linearize {__version__}")
        return
    usage = f"usage: linearize {{{','.join((*JOBS, *VERBS))}}} ...; linearize NAME --help says more"
    if len(words) > 1 and words[0] in VERBS:
        words = [*words[1:], f"--{words[0]}"]
        if "." in words[0]:  # a module, such as experiments.compare
            os.execv(sys.executable, [sys.executable, "-m", *words])
    if not words or words[0] not in JOBS:
        print(usage)
        raise SystemExit(0 if words[:1] in (["-h"], ["--help"]) else 2)
    kind, run = JOBS[words[0]]
    share, rest = split_share(words[1:])
    if share and run is not run_compare:
        print(f"error: linearize {words[0]} trains nothing that can be shared", file=sys.stderr)
        raise SystemExit(2)
    processes, rest = distributed.split(rest, bool(share))
    if processes and run is not run_compare:
        print(f"error: linearize {words[0]} is done by one process", file=sys.stderr)
        raise SystemExit(2)
    if share:
        run = partial(run_compare, share=share, words=("compare", *rest))
    keep_compiled, rest = split_cache(rest)
    job: Any = tyro.cli(kind, args=rest, prog=f"linearize {words[0]}")
    try:
        check(job, "--")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    with parting(), reporting(processes=processes):
        if keep_compiled:
            compilation_cache.keep()
        try:
            run(job)
        except (TypeError, ValueError) as error:
            if sentence(error) is None:  # what the library refuses was written in the command line
                raise ConfigError(str(error)) from error
            raise


def run_compare(job: Compare, share: Share = WHOLE, words: Sequence[str] = ()) -> None:
    """From folders to the page; or a share of that, of the command that has these words."""
    asked = [methods.named(each, methods.METHODS, "--methods") for each in job.methods]
    merges = [MERGES[one_of("--merges", each, MERGES)] for each in job.merges]
    model = models.open_model(job.model)
    side = job.image_size or model.image_size
    tasks = [read_task(given, side) for given in job.task]
    recipes = {
        name: TrainConfig(
            optim=OptimConfig(lr=lr, warmup=min(10, job.steps // 10), clip=1.0, weight_decay=0.0),
            steps=job.steps,
            batch_size=job.batch_size,
            checkpoint_every=0,
            tensorboard=False,
        )
        for name, lr in (("nonlinear", job.lr), ("linear", job.linear_lr))
    }
    study = Study(
        model,
        tasks,
        heads(job, model, job.model),
        control=None if job.control is None else read_task(job.control, side),
        store=job.out,
        recipes=recipes,
    )
    asked += given(job, study)
    if job.card:
        asked.append(tak(cards=cards_of(job.card, model.params)))
    whole = comparison.job(study, asked, merges, seeds=job.seeds)
    results = carry_out(share, whole, (sys.executable, "-m", "linearize", *words))
    if results is not None:
        page = results.report()
        if hosts.first():
            report.read_page(job.out).print()
            print(f"report: {page}")


def cards_of(paths: Sequence[Path], params0: Params) -> dict[str, Card]:
    """Cards by the tasks that they are of; several of one task, and those of none, by their files.

    Raises:
        StructureMismatch: a card of another base.
    """
    cards = {str(path): Card.load(path, params0) for path in paths}
    tasks = [str(card.meta.get("task", "")) for card in cards.values()]
    names = (t if t and tasks.count(t) == 1 else path for t, path in zip(tasks, cards, strict=True))
    return dict(zip(names, cards.values(), strict=True))


def read_task(given: str, image_size: int) -> data.Task:
    """``NAME=FOLDER``, ``FOLDER`` or a packaged task's name.

    Raises:
        DataError: no such folder or task, both, or a folder that holds no task.
    """
    here = Path(given).is_dir()
    if given in data.TASKS:
        if here:
            raise data.DataError(
                f"task {given!r} is a packaged one, and a folder here: write ./{given} for the "
                "folder; for the packaged task give the command where there is no such folder"
            )
        return data.load_task(given, image_size=image_size)
    name, _, folder = ("", "", given) if here else given.rpartition("=")
    return data.from_folder(folder, name=name or None, image_size=image_size)


def heads(job: Compare | Auditor, model: Backbone, weights: str) -> Heads:
    """Class names read by the text tower beside the weights, or else few-shot prototypes.

    Raises:
        ConfigError: a text head of a model that has no text tower.
    """
    if job.head == "prototype" or (job.head == "auto" and model.kind != "clip"):
        return Prototypes(job.shots)
    if model.kind != "clip":
        raise ConfigError(
            f"--head text: {model.name} has no text tower beside it; give a CLIP, or --head "
            "prototype"
        )
    text = models.load_text(model.kind, weights=weights)
    return words(text, models.load_tokenizer(weights, vocabulary=text.vocabulary))


def given(job: Compare, study: Study) -> list[Method]:
    """Others' fine-tunings as a method, and post-hoc linearized; none where none are given.

    Raises:
        ConfigError: not one for each task.
    """
    if not job.given:
        return []
    where = {name: place for name, _, place in (each.partition("=") for each in job.given)}
    if where.keys() != set(study.names) or len(where) != len(job.given):
        raise ConfigError(
            f"--given is {' '.join(job.given)}; expected NAME=WHERE once for each of the tasks "
            + ", ".join(study.names)
        )
    read = partial(models.task_vector, study.model, leave_out=job.leave_out)
    taus = {name: read(place) for name, place in where.items()}
    content = tree.fingerprint({name: tau.delta for name, tau in taus.items()})[:8]
    method = Method(f"given_{content}", "Given", "displaced", lambda _, task: taus[task])
    return [method, Method(f"{method.name}_posthoc", "Given, linearized", "tangent", of=method)]


def run_audit(job: Auditor) -> None:
    """From vectors and folders to a sentence and a page.

    Raises:
        ConfigError: not one vector for each task, vectors in another order than the tasks, or a
            layer without a pattern.
    """
    model = models.open_model(job.base)
    side = job.image_size or model.image_size
    tasks = [read_task(given, side) for given in job.task]
    places = by_task(job.vectors, [task.name for task in tasks])
    layers = {name: pattern for name, _, pattern in (each.partition("=") for each in job.layer)}
    if not all(layers.values()) or len(layers) != len(job.layer):
        raise ConfigError(
            f"--layer is {' '.join(job.layer)}; expected NAME=PATTERN, each name once, such as "
            "early='^block_[0-5]/'"
        )
    read = partial(models.task_vector, model, leave_out=job.leave_out)
    taus = {name: read(where) for name, where in places.items()}
    if list(places.values()) == list(job.vectors):
        check_order(taus)
    study = Study(model, tasks, heads(job, model, job.base), seed=job.seed, store=job.out)
    found = audit(
        study,
        taus,
        view=job.view,
        alpha=job.alpha,
        examples=job.examples,
        layers=layers or None,
        kronecker=job.kronecker,
    )
    page = found.report()
    report.read_page(page.parent).print()
    print(f"{found.sentence()}\nreport: {page}")


def by_task(given: Sequence[str], tasks: Sequence[str]) -> dict[str, str]:
    """Where each task's vector lies, of words ``NAME=WHERE``, or in the tasks' order.

    Raises:
        ConfigError: not one for each task.

    >>> by_task(["a.safetensors", "b=2"], ["cars", "dogs"])
    {'cars': 'a.safetensors', 'dogs': 'b=2'}
    >>> by_task(["dogs=b", "cars=a"], ["cars", "dogs"])
    {'cars': 'a', 'dogs': 'b'}
    """
    named = {name: where for name, _, where in (each.partition("=") for each in given)}
    if set(named) == set(tasks) and len(given) == len(tasks):
        return {task: named[task] for task in tasks}
    if len(given) != len(tasks) or not set(named).isdisjoint(tasks):
        raise ConfigError(
            f"the vectors are {' '.join(given)}; expected one for each task, in the order "
            f"{', '.join(tasks)}, or NAME=WHERE for each"
        )
    return dict(zip(tasks, given, strict=True))


def check_order(taus: Mapping[str, TaskVector]) -> None:
    """Vectors that lie in the tasks' order are not another's of these tasks, as far as they say.

    Raises:
        ConfigError: one is.
    """
    for name, tau in taus.items():
        if (said := tau.meta.get("task")) != name and said in taus:
            raise ConfigError(
                f"the vector in the place of the task {name} says that it is of {said}; name the "
                "tasks in the vectors' order, or give NAME=WHERE for each"
            )


def run_report(job: Report) -> None:
    """Draw again what a run measured."""
    page = report.write_all(job.run_dir)
    report.read_page(job.run_dir).print()
    print(f"report: {page}")


def run_merge(job: Edit) -> None:
    """θ0 + α Σ τ, or another merge, as weights for others.

    Raises:
        ConfigError: they would replace the base's weights, or others that are read; a merge that
            takes data, or all vectors at once where they are larger than memory.
    """
    merge = MERGES[one_of("--merge", job.merge, MERGES)]
    if merge.statistics is not None:
        raise ConfigError(
            f"--merge is {merge.name}, which takes {merge.takes or 'data'}: lz.compare runs it"
        )
    if merge.whole and job.shard_size is not None:
        raise ConfigError(
            f"--merge is {merge.name}, which holds all vectors in memory; leave out --shard-size"
        )
    alpha = merge.alpha if job.alpha is None else job.alpha
    for each in (job.base, *job.vectors):
        place = Path(each).expanduser().resolve()
        if job.out.expanduser().resolve() in (place, place.parent if place.is_file() else place):
            raise ConfigError(
                f"--out is {job.out}, and {each} is read there; its weights would be replaced, so "
                "give another folder"
            )

    def merged(read: Callable[..., TaskVector]) -> TaskVector:
        places = job.vectors
        names = [f"{w} ({i})" if w in places[:i] else w for i, w in enumerate(places)]
        taus = {n: read(w, leave_out=job.leave_out) for n, w in zip(names, places, strict=True)}
        merge.check_moved(taus)
        return edit.add(merge.directions(taus, job.seed).values())

    if job.shard_size is None:
        model = models.open_model(job.base)
        edited = merged(partial(models.task_vector, model)).apply_to(model.params, scale=alpha)
        print(models.export(job.out, model, edited, like=job.base))
    else:
        base = models.open_checkpoint(job.base)
        total, size = merged(partial(models.checkpoint_vector, base)), job.shard_size
        print(models.export_checkpoint(job.out, base, total, alpha, shard_size=size))


def run_curvature(job: Curvature) -> None:
    """From a folder to a card."""
    model = models.open_model(job.model)
    task = read_task(job.task, job.image_size or model.image_size)
    print(card_of(Study(model, [task]), task.name, examples=job.examples).save(job.out))


JOBS: Mapping[str, tuple[type, Callable[[Any], None]]] = {
    "compare": (Compare, run_compare),
    "audit": (Auditor, run_audit),
    "report": (Report, run_report),
    "merge": (Edit, run_merge),
    "curvature": (Curvature, run_curvature),
}
"""By name, what a job is told, and what it does."""

VERBS = ("plan", "work")
"""Before a job that trains, or a module that does: the same with the option of that name."""
