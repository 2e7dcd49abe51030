"""Task vectors of a finished run of ``compare``, and their affine terms, for the analyses."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from experiments import protocol
from linearize import cli, io
from linearize import config as configuration
from linearize.config import AnalysisConfig, CompareConfig, ConfigError, StudyConfig, VectorsConfig
from linearize.config.files import require
from linearize.data import Task
from linearize.evaluate.kept import KeptTangent
from linearize.evaluate.view import VIEWS
from linearize.methods import METHODS
from linearize.study import FineTuning, Method, Store, Study
from linearize.study import fine_tunings as every_seed
from linearize.study.store import Record
from linearize.task_vector import TaskVector
from linearize.train import TrainConfig


class Borrows(Protocol):
    """A configuration that may name the run whose task vectors it uses."""

    @property
    def vectors(self) -> str | None:
        """That run's directory."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds wanted."""


C = TypeVar("C", bound=Borrows)


def resolve(config: C) -> C:
    """The configuration, in the setting of the run that its task vectors are taken from.

    Raises:
        ConfigError: that run has no readable configuration, or lacks a seed.
    """
    if config.vectors is None:
        return config
    theirs = configuration.load_config(CompareConfig, Path(config.vectors) / "config.json")
    if not set(config.seeds) <= set(theirs.seeds):
        raise ConfigError(
            f"seeds={config.seeds}: {config.vectors} has task vectors of seeds {theirs.seeds} only"
        )
    given = configuration.taken(StudyConfig, theirs) | {"seeds": config.seeds}
    return dataclasses.replace(config, **given)  # type: ignore[type-var]


def check_lent(config: VectorsConfig, methods: Iterable[Method] | None = None) -> None:
    """See that the run whose vectors are taken has all of them, before anything is measured.

    Args:
        config: of the analysis, resolved.
        methods: whose vectors, those of the configuration's regimes by default.

    Raises:
        FileNotFoundError: it lacks some; the first is named.
    """
    for method in methods or [METHODS[name] for name in config.regimes]:
        for seed, task in itertools.product(config.seeds, config.data.tasks):
            folder = borrowed(config, seed)
            if folder is None:
                return
            place = folder.joinpath(*method.trainer.place(task))
            if not (place / "task_vector.safetensors").exists():
                raise FileNotFoundError(
                    f"vectors={config.vectors!r}: there is none in {place}; finish the run that "
                    f"they are taken of, or leave {method.name} out"
                )


LENT = "vectors.json"
"""In an analysis's run directory: which vectors its results are of."""


def claim(run_dir: Path, config: object) -> None:
    """As :func:`linearize.cli.claim`, of the borrowed vectors too, by what their files state.

    Raises:
        ConfigError: the directory is of another configuration, or holds results of vectors that
            have been made anew since.
        CorruptFileError: a file of theirs is none.
    """
    cli.claim(run_dir, config)
    if not isinstance(config, VectorsConfig) or config.vectors is None:
        return
    lent = _lent(Path(config.vectors), config.seeds)
    path = run_dir / LENT
    before = io.read_json(path) if path.exists() else {}
    if anew := sorted(name for name in before.keys() & lent if before[name] != lent[name]):
        raise ConfigError(
            f"{run_dir} holds results of vectors that have been made anew since ({len(anew)} in "
            f"{config.vectors}, the first {anew[0]}); choose another --run-dir"
        )
    io.write_json(path, {**before, **lent})


def _lent(folder: Path, seeds: Sequence[int]) -> dict[str, str | None]:
    """What the vectors' files state, by their places in the run's directory."""
    found = (p for s in seeds for p in (folder / f"seed_{s}").rglob("task_vector.safetensors"))
    return {path.relative_to(folder).as_posix(): io.stated_hash(path) for path in sorted(found)}


def study(config: AnalysisConfig, tasks: Mapping[str, Task], seed: int, store: Store) -> Study:
    """One seed's study, with as many examples as the analysis looks at; its terms are kept."""
    return protocol.study(config, tasks, seed, store).but(
        tasks=first(tasks, config.validation, config.test),
        views={**VIEWS, "tangent": KeptTangent},
        borrowed=borrowed(config, seed),
    )


def fine_tunings(
    config: VectorsConfig,
    run_dir: Path,
    methods: Sequence[Method] | None = None,
    study: Callable[[Any, Mapping[str, Task], int, Store], Study] = study,
) -> list[FineTuning]:
    """Those of an analysis; none where it takes another run's vectors.

    Args:
        config: of the analysis.
        run_dir: its own.
        methods: whose vectors, those of the configuration's regimes by default.
        study: one seed's, of the configuration, tasks, a seed and its store.
    """
    if config.vectors is not None:
        return []
    methods = methods or [METHODS[name] for name in config.regimes]
    tasks = cache(partial(protocol.load_tasks, config, methods=methods))
    return every_seed(
        Store.of(run_dir),
        config.seeds,
        methods,
        config.data.tasks,
        lambda seed, place: study(config, tasks(), seed, place),
    )


def borrowed(config: Borrows, seed: int) -> Path | None:
    """Where a seed's vectors lie that the configuration takes of another run."""
    return None if config.vectors is None else Path(config.vectors) / f"seed_{seed}"


def check_steps(setting: StudyConfig, name: str, recipe: TrainConfig, steps: Sequence[int]) -> None:
    """Refuse to keep vectors after steps that are not those of every task's fine-tuning.

    Args:
        setting: of the study.
        name: of the recipe, as an option.
        recipe: how it trains.
        steps: after which vectors are kept, ascending; the recipe's last is measured too.

    Raises:
        ConfigError: a task trains by epochs, or the recipe ends before the steps do.
    """
    remedy = "vectors are kept by steps, which all tasks share; give steps instead"
    require(recipe.epochs is None, f"{name}.epochs", recipe.epochs, remedy)
    require(not setting.epochs, "setting.epochs", setting.epochs, remedy)
    last = recipe.steps
    require(steps[-1] < last, "steps", steps, f"must end before {name}.steps={last}")


def after(study: Study, method: Method, step: int | None) -> dict[str, TaskVector]:
    """A method's vectors after a step that its recipe kept, or the final ones, where None.

    Raises:
        FileNotFoundError: that step was not kept.
    """
    final = study.vectors(method)
    if step is None:
        return final
    file = f"step_{step}.safetensors"
    paths = {t: study.store.path(method.trainer.name, t, "vectors", file) for t in study.names}
    return {task: TaskVector.load(path) for task, path in paths.items() if path is not None}


def by_regime(
    measure: Callable[[Study, Method], Record],
    store: Store,
    config: AnalysisConfig,
    tasks: Mapping[str, Task],
) -> Record:
    """What each seed's regimes measure, stacked over seeds; each is kept as a file."""

    def one(seed: int, place: Store) -> Record:
        there = study(config, tasks, seed, place)
        return {
            name: place.kept(name, partial(measure, there, METHODS[name]))
            for name in config.regimes
        }

    return store.every_seed(config.seeds, len(config.regimes), one)


def first(tasks: Mapping[str, Task], validation: int | None, test: int | None) -> dict[str, Task]:
    """The same tasks with at most so many validation and test examples each.

    Splits of packaged tasks and of the papers' begin with one example of each class and go on with
    the classes in proportion (:func:`linearize.data.split.stratified_order`), however sorted the
    data lie on disk; so does what this takes.
    """
    return {
        name: dataclasses.replace(
            task,
            validation=task.validation.take(slice(validation)),
            test=task.test.take(slice(test)),
        )
        for name, task in tasks.items()
    }
