"""Fine-tunings each apart from the others: listed, made one by one, or shared among processes.

A fine-tuning is named by its folder in the run directory, ``seed_0/linear/mnist``. Whoever makes
it holds ``claim`` there (:mod:`linearize.train.lock`), which says afterwards that it is finished.
That is a note for those who look for work: what is believed are the run's own files.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Generic, TypeVar

from linearize.choices import one_of
from linearize.joining import HostError, joined
from linearize.study.store import Store
from linearize.study.study import Method, Study
from linearize.train import RunDirectoryError, RunLockedError
from linearize.train.lock import exclusive, said

log = logging.getLogger(__name__)

T = TypeVar("T")

CLAIM, FINISHED = "claim", "finished"


@dataclass(frozen=True, eq=False)
class FineTuning:
    """One task's vector, by one method, of one seed."""

    folder: Path
    """Where a process claims it, and where its vector will lie."""
    train: Callable[[], object]
    """Makes it, or goes on with it, or finds it whole."""

    @property
    def finished(self) -> bool:
        """Whether somebody has made it."""
        return said(self.folder / CLAIM) == FINISHED

    def make(self, *, wait: bool = False) -> None:
        """Train it, unless it is finished; nobody else does meanwhile.

        Args:
            wait: for another process that does.

        Raises:
            RunLockedError: another process does.
        """
        with exclusive(self.folder, file=CLAIM, wait=wait) as claim:
            if claim.before != FINISHED:
                self.train()
            claim.note = FINISHED


@dataclass(frozen=True, eq=False)
class Job(Generic[T]):
    """What one process does, or several together: fine-tunings, and what comes of all of them."""

    root: Path
    """The run directory, which all processes see."""
    fine_tunings: Sequence[FineTuning]
    among: Callable[[], AbstractContextManager[None]]
    """Holds the directory among others, once it is seen to be this job's."""
    finish: Callable[[], T]
    """Holds it alone: trains what is left, evaluates, and writes the results."""

    @property
    def left(self) -> list[str]:
        """Names of the fine-tunings that nobody has finished."""
        return [self.name(each) for each in self.fine_tunings if not each.finished]

    def name(self, each: FineTuning) -> str:
        """Its folder's, in the run directory."""
        return each.folder.relative_to(self.root).as_posix()

    def work(self) -> T | None:
        """Make what is not finished and nobody makes, until there is none; who is last finishes.

        One that fails does not keep this process from the others; its error is raised in the end.

        Returns:
            What :attr:`finish` makes; None where others still train, or finish.

        Raises:
            RunLockedError: a process holds the directory alone.
        """
        _check_alone()
        failed: dict[Path, Exception] = {}
        if self.left:
            with self.among():
                while sum(self._made(each, failed) for each in self.fine_tunings):
                    log.info("%d of %d fine-tunings left", len(self.left), len(self.fine_tunings))
        if failed:
            raise next(iter(failed.values()))
        return self._finished()

    def only(self, name: str) -> T | None:
        """Make one, waiting where another process does; who makes the last finishes.

        Raises:
            ValueError: there is none of that name; the nearest is suggested.
            RunLockedError: a process holds the directory alone.
        """
        _check_alone()
        named = {self.name(each): each for each in self.fine_tunings}
        one = named[one_of("only", name, named)]
        if not one.finished:
            with self.among():
                one.make(wait=True)
        return self._finished()

    def _made(self, each: FineTuning, failed: dict[Path, Exception]) -> bool:
        if each.finished or each.folder in failed:
            return False
        try:
            each.make()
        except RunLockedError as error:
            log.debug("%s: %s", self.name(each), error)
            return False
        except RunDirectoryError:
            raise
        except Exception as error:
            failed[each.folder] = error
            log.warning("%s failed, and the others go on: %s", self.name(each), error)
        return True

    def _finished(self) -> T | None:
        """After the directory was let go: of two who end at once, one sees the other's work."""
        if left := self.left:
            log.info("other processes train %s; who is last finishes", ", ".join(left))
            return None
        try:
            return self.finish()
        except RunLockedError as error:
            log.info("all fine-tunings are finished, and another process goes on: %s", error)
            return None


def _check_alone() -> None:
    if joined():
        raise HostError(
            "processes that share a run each train alone, and this one has joined others "
            "(hosts.initialize), which train together: call finish() in all of them"
        )


def fine_tunings(
    store: Store,
    seeds: Iterable[int],
    methods: Iterable[Method],
    tasks: Sequence[str],
    study: Callable[[int, Store], Study],
    within: str | None = None,
) -> list[FineTuning]:
    """Every vector that methods have of seeds and tasks, each once; none of them is begun.

    Args:
        store: of the run, which is a directory; a seed's is ``seed_N`` in it.
        seeds: of the studies.
        methods: whose vectors, or those that they take of others.
        tasks: that are trained.
        study: of a seed and its store; asked for when the first of its vectors is to be made.
        within: a folder of the seed's, where its studies are several.
    """
    trainers = {method.trainer.name: method.trainer for method in methods}
    found = []
    for seed in seeds:
        place = store.under(f"seed_{seed}")
        if within is not None:
            place = place.under(within)
        of = cache(partial(study, seed, place))
        for method in trainers.values():
            for task in method.targets(tasks):
                folder = place.path(*method.place(task))
                assert folder is not None
                found.append(FineTuning(folder, partial(_train, of, method, task)))
    return found


def _train(of: Callable[[], Study], method: Method, task: str) -> None:
    of().train(method, task)
