"""Where a study keeps what it measured: in files with hashes, or, without a directory, in memory.

A file that was changed, cut short or brought from another run is set aside by name, and measured
again (:mod:`linearize.sealed`). Of several processes the first reads and writes, and tells the
others: all of them measure the same things, and go on from the same numbers.
"""

import copy
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from linearize import hosts, io, sealed
from linearize.train import RunMismatchError
from linearize.train.lock import claimed, exclusive

log = logging.getLogger(__name__)

T = TypeVar("T")
Record = dict[str, Any]

_ABSENT: Any = object()
_LATER = ("views", "feed")
"""What ``study.json`` of earlier versions does not say."""


@dataclass
class _Plan:
    """How many parts a measuring has, and how many have begun."""

    name: str
    total: int
    begun: int = 0


_plan: ContextVar[_Plan | None] = ContextVar("plan", default=None)


def begin(part: str) -> None:
    """Say that a part begins: its name, and where that is among the parts of what is measured."""
    plan = _plan.get()
    if plan is None:
        log.info("%s", part)
    else:
        plan.begun += 1
        log.info("%s [%d/%d] %s", plan.name, plan.begun, plan.total, part)


@dataclass(frozen=True, eq=False)
class Store:
    """What is kept under a directory, by name; in memory where there is none.

    >>> store = Store()
    >>> store.kept("single", lambda: [0.5]), store.kept("single", lambda: 1 / 0)
    ([0.5], [0.5])
    """

    root: Path | None = None
    name: str = ""
    _memory: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, where: "Store | Path | str | None") -> "Store":
        """A store, or the one of a directory."""
        if isinstance(where, Store):
            return where
        return cls() if where is None else cls(Path(where), Path(where).name.replace("_", " "))

    def under(self, name: str) -> "Store":
        """The store of a part, such as a seed: a folder of its own."""
        key = f"{name}/"
        if self.root is None:
            return self._memory.setdefault(key, Store(name=name.replace("_", " ")))
        return Store(self.root / name, name.replace("_", " "))

    def path(self, *parts: str) -> Path | None:
        """Where something else lies, such as a fine-tuning's run; None in memory."""
        return None if self.root is None else self.root.joinpath(*parts)

    def kept(self, name: str, compute: Callable[[], T], folder: str = "parts/") -> T:
        """What is kept by that name, or else what is computed, and then kept; a part each.

        On disk it is JSON under ``folder``; numbers and arrays come back as numbers and lists.
        """
        found = self.read(f"{folder}{name}.json")
        if found is not _ABSENT:
            begin(f"{name}: measured before")
            return found
        begin(name)
        made = compute()
        value = hosts.told(lambda: io.to_json(made))  # what will be read is what is given now
        self.write(f"{folder}{name}.json", value)
        return value

    def kept_file(
        self,
        file: str,
        make: Callable[[], T],
        save: Callable[[Path, T], object],
        load: Callable[[Path], T],
    ) -> T:
        """What lies in a file with a hash of its own, or else what is made, and then saved there.

        Args:
            file: its name in the store, which says all that decides what is in it.
            make: makes it; in memory every time.
            save: writes it.
            load: reads it; a damaged file is set aside.
        """
        if self.root is None:
            return make()
        path = self.root / file
        if hosts.told(path.exists):
            try:
                return load(path)
            except io.CorruptFileError as error:
                hosts.told(partial(sealed.set_aside, path, f"cannot be read ({error})"))
        with hosts.held(exclusive(path.parent, wait=True)):  # who wants it meanwhile reads it
            if hosts.told(path.exists):
                return load(path)
            log.info("%s", file)
            made = make()
            hosts.told(lambda: save(path, made) and None)
            return made

    def read(self, file: str) -> Any:
        """A file of JSON; absent, damaged or another run's, it is as if there were none."""
        if self.root is None:
            return copy.deepcopy(self._memory[file]) if file in self._memory else _ABSENT
        found = hosts.told(partial(self._on_disk, self.root / file))
        return found[0] if found else _ABSENT

    def _on_disk(self, path: Path) -> list[Any]:
        """What a file of JSON says, or nothing."""
        data = sealed.read(path)
        if data is None:
            return []
        try:
            return [json.loads(data)]
        except ValueError as error:
            sealed.set_aside(path, f"is no JSON ({error})")
            return []

    def write(self, file: str, value: Any) -> None:
        """Keep a value as a file of JSON, with its hash."""
        plain = io.to_json(value)
        if self.root is None:
            self._memory[file] = plain
            return
        self._keep(self.root / file, json.dumps(plain, indent=2, allow_nan=False) + "\n")

    def write_bytes(self, file: str, content: bytes) -> None:
        """Keep a file of another kind, with its hash."""
        if self.root is None:
            self._memory[file] = content
        else:
            self._keep(self.root / file, content)

    def _keep(self, path: Path, content: str | bytes) -> None:
        hosts.told(lambda: sealed.write(path, content) and None)

    def every_seed(
        self, seeds: Sequence[int], parts: int, measure: Callable[[int, "Store"], Record]
    ) -> Record:
        """What each seed measures in a store of its own, stacked; ``seconds`` is the sum.

        Args:
            seeds: of the study.
            parts: how often measuring a seed comes to :func:`begin`.
            measure: of a seed and its store.
        """
        records = []
        for seed in seeds:
            place = self.under(f"seed_{seed}")
            records.append(place.recorded(parts, partial(measure, seed, place)))
        return stack(records) | {"seconds": total_seconds(records)}

    def read_bytes(self, file: str) -> bytes | None:
        """A file that :meth:`write_bytes` kept; None where there is none, or it is damaged."""
        if self.root is None:
            return self._memory.get(file)
        path = self.root / file
        return sealed.read(path) if hosts.told(lambda: sealed.read(path) is not None) else None

    @contextmanager
    def claimed(self, described: Mapping[str, Any], *, shared: bool = False) -> Iterator[None]:
        """Hold the directory for one study, alone; ``study.json`` says which.

        In memory, what was kept of another study is forgotten.

        Args:
            described: what the study is of.
            shared: among other processes of the same study.

        Raises:
            RunLockedError: another process works there.
            RunMismatchError: it holds another study; what differs is named.
        """
        if self.root is None:
            if self._memory.get("study.json", described) != described:
                self._memory.clear()
            self._memory["study.json"] = described
            yield
            return
        with claimed(self.root, partial(self._claim, self.root, described), shared=shared):
            yield

    def _claim(self, root: Path, described: Mapping[str, Any]) -> None:
        path = root / "study.json"
        theirs = io.read_json(path) if path.exists() else dict(described)
        described = {k: v for k, v in described.items() if k in theirs or k not in _LATER}
        differ = sorted(k for k in {*theirs, *described} if theirs.get(k) != described.get(k))
        if differ:
            raise RunMismatchError(
                f"{root} holds another study: {', '.join(differ)} differ ({path} says "
                "what it is of); choose another store, or move this one away"
            )
        text = json.dumps(dict(described), sort_keys=True)
        io.write_json(root / sealed.RUN, {"run": sha256(text.encode()).hexdigest()})
        io.write_json(path, dict(described))
        io.write_json(root / "versions.json", io.versions())

    def recorded(self, parts: int, measure: Callable[[], Record]) -> Record:
        """A record that is measured once; ``seconds`` says how long that took, in one go.

        Args:
            parts: how often measuring comes to :func:`begin`.
            measure: what measures.
        """
        found = self.read("record.json")
        lost = hosts.told(partial(sealed.lost, self.root)) if self.root is not None else ()
        if found is not _ABSENT and not lost:
            log.info("%s: measured before", self.name)
            return found
        if found is not _ABSENT:
            log.warning("%s: %s lost or damaged; made anew", self.name, ", ".join(lost))
        resumed = self.root is not None and hosts.told(self.root.exists)
        started = time.perf_counter()
        with self._planned(parts):
            record = measure()
        seconds = time.perf_counter() - started
        log.info("%s: measured in %.0f s", self.name, seconds)
        record |= {"seconds": None if resumed else seconds}
        self.write("record.json", record)
        return self.read("record.json")

    @contextmanager
    def _planned(self, parts: int) -> Iterator[None]:
        plan = _Plan(self.name, parts)
        outer = _plan.set(plan)
        try:
            yield
        finally:
            _plan.reset(outer)
        if plan.begun != plan.total:
            log.warning("%s: %d parts began, not %d", plan.name, plan.begun, plan.total)


def stack(records: list[Record]) -> Record:
    """A list of records to one record of lists, through nested mappings, of what all of them say.

    >>> stack([{"a": 1, "b": {"c": 2}}, {"a": 3, "b": {"c": 4}}])
    {'a': [1, 3], 'b': {'c': [2, 4]}}
    """
    stacked: Record = {}
    for key in (key for key in records[0] if all(key in record for record in records)):
        value = records[0][key]
        column = [record[key] for record in records]
        stacked[key] = stack(column) if isinstance(value, dict) else column
    return stacked


def total_seconds(records: list[Record]) -> float | None:
    """How long all of them took; None where one was interrupted."""
    seconds = [record["seconds"] for record in records]
    return None if None in seconds else sum(seconds)
