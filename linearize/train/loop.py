"""Fine-tuning, one loop for both regimes: τ is trained, θ0 stays."""

import logging
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from linearize import hosts, io, tree
from linearize.agreement import specification
from linearize.objectives.objective import Loss
from linearize.task_vector import TaskVector
from linearize.train import feed
from linearize.train.blame import blame, blame_penalties
from linearize.train.checkpoint import Checkpoints
from linearize.train.config import TrainConfig
from linearize.train.errors import CheckpointError, NonFiniteLossError, RunDirectoryError
from linearize.train.inputs import Inputs
from linearize.train.interrupt import Request, deferred
from linearize.train.lock import guarded
from linearize.train.mesh import MeshConfig
from linearize.train.penalty import Penalty
from linearize.train.record import Recorder, Row, progress_bar, read_rows
from linearize.train.rundir import RunDirectory, open_run
from linearize.train.second_way import check_first_step, check_penalties
from linearize.train.step import (
    Metrics,
    Programs,
    State,
    overwritten,
    programs,
)
from linearize.types import Apply, Array, Params, PyTree

Validation = Callable[[Params, dict[str, Array]], Iterable[tuple[str, float]]]
"""``validation(params0, tau) -> (name, value), ...``"""

log = logging.getLogger(__name__)

_KEPT = ("tau", "opt", "step")
"""The entries of the state that a checkpoint keeps."""

_ASKED = 8
"""Steps between two times that several processes ask each other whether a signal came."""

_AHEAD, _AHEAD_ON_CPU = 4, 1
"""Calls that may be under way on the device before the host waits for the oldest; on CPU, where a
small state is not donated, each holds a state of its own."""


@dataclass(frozen=True)
class FineTuned:
    """What a run came to."""

    tau: TaskVector
    """τ on the trained leaves, in float32, on the default device."""
    history: Sequence[Row]
    """Rows of metrics, by ``step``: loss, accuracy, lr, grad_norm, tau_norm, validation's names."""
    steps: int
    """Optimizer steps of the whole run."""
    finished: bool = True
    """Whether all of them were taken."""
    resumed_from: int = 0
    """The step of the checkpoint that this call began at; 0 for none, the last of a reused run."""
    reused: bool = False
    """Whether the run was finished already and nothing was trained."""
    seconds: float = 0.0
    """Wall time of the run, compilation included."""
    vectors: Mapping[int, TaskVector] = field(default_factory=dict)
    """The task vectors after the steps of ``save_vectors_at``."""
    run_dir: Path | None = None


def fine_tune(
    f: Apply,
    params0: Params,
    data: feed.Data,
    *,
    regime: str,
    loss: Loss | None = None,
    readout: Callable[[PyTree], Array] | None = None,
    config: TrainConfig | None = None,
    run_dir: str | Path | None = None,
    trainable: tree.Pattern = None,
    mesh: MeshConfig | None = None,
    validation: Validation | None = None,
    meta: Mapping[str, Any] | None = None,
    progress: bool = True,
    inputs: Sequence[str] = ("inputs",),
    augment: Callable[[Array, PyTree], PyTree] | None = None,
    penalties: Sequence[Penalty] = (),
    mask: PyTree | None = None,
) -> FineTuned:
    """Train τ from 0 by gradient steps on ``loss(f(x; θ0 + τ))`` or on its linearization.

    A callable whose arrays are to be arguments of the compiled step, and not constants in it, is
    a ``jax.tree_util.Partial``: ``readout=Partial(apply_head, head)`` lets all tasks whose heads
    have one shape share one compilation, and makes the head part of what identifies a run.

    Args:
        f: ``f(params, *inputs) -> outputs``.
        params0: θ0, never changed; frozen leaves cost no tangent.
        data: arrays that share axis 0, by role: ``inputs``, ``labels`` (int), and what the loss
            may want; or a :class:`linearize.train.feed.Loader`, which makes batches of them.
        regime: ``"nonlinear"`` trains f(x; θ0 + τ), ``"linear"`` trains f(x; θ0) + Jτ.
        loss: ``loss(outputs, batch) -> (B,)``, averaged over the batch; cross-entropy of
            ``readout(outputs)`` against ``batch["labels"]`` by default.
        readout: the frozen head, ``outputs -> logits (B, C)``; identity by default.
        config: the recipe; ``TrainConfig.paper()`` is the papers'.
        run_dir: where the run is kept. The same call resumes a run that was stopped, bitwise as if
            it had not been, and returns the result of one that is finished. Functions are told
            apart by their compiled programs and constants, or, where they have an attribute
            ``fingerprint`` (a string), by that.
        trainable: pattern of the leaves to train (:func:`linearize.tree.select`).
        mesh: as ``config.mesh``, which it replaces. Several processes train together on the
            devices of all; the first writes ``run_dir``, which all can read.
        validation: called with θ0 and τ every ``config.validate_every`` steps and at the end.
        meta: what else the task vector is to remember, such as ``{"task": "mnist"}``.
        progress: whether to show a bar where standard error is a terminal.
        inputs: names of the batch's entries that ``f`` is called with.
        augment: ``augment(key, batch) -> batch``, on the device; the key is a function of the seed
            and the step. It may add entries, such as a key for dropout.
        penalties: terms that are added to the objective, each with its weight; functions of τ, and
            of examples of their own (:class:`linearize.train.Penalty`).
        mask: 0 and 1, or booleans, of the shapes of the trained leaves, as a tree like θ0 or by
            name; gradient, update and τ are exactly 0 where it is 0, whatever the optimizer does.

    Raises:
        ValueError: a regime, data, labels, loss, mesh, penalty or mask that does not fit; the
            message says which.
        UnidentifiedError: a ``run_dir`` is given, and nothing says what one of the functions
            computes: it calls back to Python, or changes from trace to trace.
        NonFiniteError: θ0 holds NaN or infinity.
        NonFiniteLossError: training diverged; the last finite state is kept as a checkpoint.
        RunLockedError: another process works in ``run_dir``.
        RunMismatchError: ``run_dir`` holds a run of another config, function, base model, data or
            head, or a file of one.
        RunDirectoryError: ``run_dir`` cannot be written.
        HostError: of several processes (:func:`linearize.hosts.initialize`), one has another
            configuration, data or versions, met an error, or is gone.
        KeyboardInterrupt: after Ctrl-C, with a checkpoint saved.
        Terminated: likewise after SIGTERM or SIGHUP, which clusters send; a ``SystemExit`` whose
            status is :data:`linearize.train.REQUEUE` after SIGTERM, and 129 after SIGHUP.

    >>> f = lambda params, x: x @ params["w"]
    >>> data = {"inputs": np.eye(2, dtype=np.float32), "labels": np.array([0, 1])}
    >>> config = TrainConfig(steps=5, batch_size=2)
    >>> result = fine_tune(f, {"w": np.zeros((2, 2))}, data, regime="linear", config=config)
    >>> result.tau.delta["w"].shape, result.history[-1]["step"]
    ((2, 2), 5)
    """
    config = config or TrainConfig()
    config = replace(config, mesh=mesh) if mesh is not None else config
    setting = Inputs.make(
        f, params0, data, regime, loss, readout, config, trainable, inputs, augment, penalties, mask
    )
    identity = setting.identity(config) if run_dir is not None or hosts.several() else {}
    if hosts.several():
        hosts.check_same({"versions": io.versions(), **identity})
    if run_dir is None:
        return _Run(setting, config, None, validation, dict(meta or {}), progress).go()
    path = Path(run_dir)
    record = {
        "config": io.to_json(asdict(config)),
        "seed": config.seed,
        "meta": io.to_json(dict(meta or {})),
        "versions": io.versions(),
    }
    with open_run(path, identity, record, setting.disk_bytes(config)) as run:
        done = run.finished()
        if done is not None and not config.repeat:
            return _reuse(run, config, *done)
        if done is not None:
            run.clear()
        return _Run(setting, config, run, validation, dict(meta or {}), progress).go()


def _reuse(
    run: RunDirectory, config: TrainConfig, vector: TaskVector, record: Mapping[str, Any]
) -> FineTuned:
    return FineTuned(
        tau=vector,
        history=read_rows(run.path / "metrics.jsonl"),
        steps=record["steps"],
        resumed_from=record["steps"],
        reused=True,
        seconds=record["seconds"],
        vectors={s: TaskVector.load(run.vector_at(s)) for s in config.save_vectors_at},
        run_dir=run.path,
    )


class _Run:
    """The loop itself."""

    def __init__(
        self,
        setting: Inputs,
        config: TrainConfig,
        directory: RunDirectory | None,
        validation: Validation | None,
        meta: dict[str, Any],
        progress: bool,
    ) -> None:
        self.setting, self.config, self.directory = setting, config, directory
        self.validation, self.progress = validation, progress
        self.meta = {
            "regime": setting.recipe.regime,
            "config": io.to_json(config.deciding()),
            **setting.notes,
            **meta,
        }
        self.total = setting.total
        self.vectors: dict[int, TaskVector] = {}
        self.pending: deque[tuple[int, Metrics]] = deque()
        self.checkpoints = (
            None
            if directory is None
            else Checkpoints(directory.checkpoints, config.keep, directory.hash)
        )

    def go(self) -> FineTuned:
        with ExitStack() as stack:
            if self.checkpoints is not None:
                stack.callback(self.checkpoints.close)
            stack.enter_context(hosts.reached())
            self._prepare()
            for each in (self.feed, *self.streams):
                if isinstance(each, feed.Loaded | feed.Turns):
                    stack.callback(each.close)
            start = self._restore()
            path, run = None, ""
            if self.directory is not None and hosts.first():
                path, run = self.directory.path, self.directory.hash
            self.recorder = Recorder(path, start, self.config.tensorboard, run)
            stack.callback(self.recorder.close)
            title = str(self.meta.get("task", "")) or "training"
            title, shown = (
                f"{title} ({self.setting.recipe.regime})",
                self.progress and hosts.first(),
            )
            self.bar = stack.enter_context(progress_bar(shown, self.total, start, title))
            request = stack.enter_context(deferred())
            try:
                self._train(start, request)
                return self._finish(start)
            except RunDirectoryError as error:
                error.vector = error.vector or self._vector(int(self.state["step"]))
                raise

    def _prepare(self) -> None:
        """Programs, and the arrays that every step is given."""
        setting, config, place = self.setting, self.config, self.setting.place
        whole = place.replicated
        self.fixed = {
            "params0": setting.params0,
            "arrays": setting.arrays,
            "total": hosts.put(np.int32(self.total), whole),
            "key": hosts.put(jax.random.key(config.seed), whole),
            **setting.fixed_penalties(config.seed),
        }
        self.like = jax.eval_shape(
            lambda: setting.recipe.init(setting.params0, self.total, setting.trainable)
        )
        layout = place.of_state(self.like, place.of(setting.params0))
        leaves, treedef = jax.tree.flatten(layout)
        self.layout = layout
        self.in_place = overwritten(place, self.like)
        self.programs: Programs = programs(
            setting.recipe,
            place,
            (treedef, tuple(leaves)),
            config.steps_per_call,
            self.in_place,
        )
        self._room = config.device_bytes
        self.feed = self._feed_of(setting.data, config.batch_size, config.seed)
        self.streams = [
            feed.Turns(
                [self._feed_of(each, stream.batch_size, seed) for each in stream.sets], stream.roles
            )
            for stream, seed in setting.streams_and_seeds(config.seed)
        ]
        self.counts: dict[int, Array] = {}

    def _feed_of(self, data: feed.Data, batch_size: int, seed: int) -> feed.Feed:
        """Data go to the device first come, first served, while there is room."""
        place, gather = self.setting.place, self.programs.gather
        found = feed.of(data, batch_size, seed, self.total, place, gather, self._room)
        if isinstance(found, feed.Resident):
            self._room -= feed.size(found.data)
        return found

    def _first(self) -> State:
        setting = self.setting
        return self.programs.init(setting.params0, self.fixed["total"], setting.trainable)

    def _restore(self) -> int:
        self.state: State = self._first()
        if self.checkpoints is None or self.directory is None:
            return 0
        if hosts.told(self.checkpoints.steps):
            self._rehearse()
        kept = {name: self.like[name] for name in _KEPT}
        where = {name: self.layout[name] for name in kept}
        like = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            kept,
            where,
        )
        restored = self.checkpoints.restore(like)
        if restored is None:
            return 0
        step, state = restored
        self.state |= state
        with guarded(self.directory.path):
            self.vectors = {
                s: TaskVector.load(self.directory.vector_at(s))
                for s in self.config.save_vectors_at
                if s <= step
            }
        return step

    def _train(self, start: int, request: Request) -> None:
        step = self.settled = self.asked = start
        ahead = _AHEAD_ON_CPU if self.setting.place.on_cpu else _AHEAD
        while step < self.total:
            if self._stopped(step, request):
                self._interrupt(step, request)
            if self.directory is not None:
                self.directory.check()
            step += self._advance(step)
            request.unsaved = self.checkpoints is not None
            while len(self.pending) > ahead:
                self._settle()
            self._events(step)

    def _stopped(self, step: int, request: Request) -> bool:
        """Whether a signal came: of several processes to any, which all see after the same step."""
        due = step // _ASKED != self.asked // _ASKED
        if due and hosts.several():
            self._drain()  # of two programs under way, processes may take turns differently
            request.number = hosts.largest(request.number)
        self.asked = step
        return bool(request.number) and (due or not hosts.several())

    def _advance(self, step: int) -> int:
        """Dispatch the next call; how many steps it takes."""
        count = 1
        if not isinstance(self.feed, feed.Resident):
            metrics = self._step(step, self.feed.batch(step))
        elif self.config.steps_per_call == 1 or self.streams:
            metrics = self._step(step, self.feed.batch(step, self.state["step"]))
        else:
            order, first = self.feed.window(step)
            count = min(
                1 if self._is_checked(step) else self.config.steps_per_call,
                self._until_event(step),
                self.feed.until_window_ends(step),
            )
            check = self._second_way(step, ())
            self.state, metrics = self.programs.steps(
                self.state, self.fixed, self.feed.data, order, first, self._count(count)
            )
            check(metrics)
        if self._logged(step, count):
            metrics["values"].copy_to_host_async()
        self.pending.append((count, metrics))
        return count

    def _step(self, step: int, batch: PyTree) -> Metrics:
        drawn = tuple(stream.batch(step) for stream in self.streams)
        check = self._second_way(step, drawn, batch)
        self.state, metrics = self.programs.step(self.state, self.fixed, batch, drawn)
        check(metrics)
        if step + 1 < self.total:
            for each in (self.feed, *self.streams):
                each.prepare(step + 1)
        return metrics

    @property
    def _checked_steps(self) -> int:
        """The first step is held to a second way, and where there are penalties the second."""
        return min(self.total, 2 if self.setting.penalties else 1)

    def _is_checked(self, step: int) -> bool:
        """Once for each program."""
        return step < self._checked_steps and self._arguments not in self.programs.checked

    def _second_way(
        self, step: int, drawn: tuple[PyTree, ...], batch: PyTree = None
    ) -> Callable[[Metrics], None]:
        """What is to be asked of a step that is about to be taken, of its metrics."""
        if not self._is_checked(step):
            return lambda metrics: None
        recipe, place, fixed = self.setting.recipe, self.setting.place, self.fixed
        later = check_penalties(recipe, self.state, fixed, drawn) if step else None

        def check(metrics: Metrics) -> None:
            if later is not None:
                later(metrics)
            else:
                seen = self.feed.batch(0) if batch is None else batch
                if isinstance(self.feed, feed.Resident):
                    self.feed.check(seen, 0)
                for stream in self.streams:
                    stream.check(0)
                check_first_step(recipe, place, self.state, fixed, seen, metrics, drawn)
            if step + 1 == self._checked_steps:
                self.programs.checked.add(self._arguments)

        return check

    @cached_property
    def _arguments(self) -> Hashable:
        """What the compiled steps of a recipe depend on beside it."""
        data = self.setting.data
        resident = None if isinstance(data, feed.Loader) else specification(dict(data))
        batch = feed.entries(data, self.config.batch_size)
        fed = type(self.feed), specification(self.setting.drawn)
        return specification(self.fixed), specification(batch), resident, fed

    def _rehearse(self) -> None:
        """The first steps, taken for their checks alone: of a run that goes on from a later one."""
        for step in range(self._checked_steps):
            if self._is_checked(step):
                self._advance(step)
        self.pending.clear()
        self.state = self._first()

    def _count(self, count: int) -> Array:
        if count not in self.counts:
            self.counts[count] = hosts.put(np.int32(count), self.setting.place.replicated)
        return self.counts[count]

    def _logged(self, step: int, count: int) -> bool:
        """Whether a step that is to be logged lies in ``step + 1 .. step + count``."""
        every = self.config.log_every
        return step // every != (step + count) // every or step + count == self.total

    def _settle(self) -> None:
        """Wait for the oldest call; write its rows, or stop if it was not finite."""
        count, metrics = self.pending.popleft()
        jax.block_until_ready(metrics["bad"])
        step = self.settled
        self.settled += count
        self.bar.at(self.settled)
        # what is not logged is not fetched, but for the last call before the host acts on τ
        if not self._logged(step, count) and self.pending:
            return
        values, bad = hosts.fetch(metrics["values"]), int(hosts.fetch(metrics["bad"]))
        names = self.setting.recipe.metrics
        for here in range(step + 1, (min(bad, self.settled + 1) if bad else self.settled + 1)):
            if here % self.config.log_every == 0 or here == self.total:
                row = dict(zip(names, values[here - step - 1].tolist(), strict=True))
                epoch = here * self.config.batch_size / self.setting.examples
                self.recorder.write(here, {"epoch": round(epoch, 4), **row})
                self.bar.loss(row["loss"])
        if bad:
            self._diverged(bad)

    def _drain(self) -> None:
        """Wait for all that was dispatched, so that τ is known to be finite."""
        while self.pending:
            self._settle()

    def _until_event(self, step: int) -> int:
        """Steps until the host has something to do between two calls."""
        stops = [s for s in self.config.save_vectors_at if s > step] + [self.total]
        checkpoint = self.config.checkpoint_every if self.checkpoints is not None else 0
        validate = self.config.validate_every if self.validation is not None else 0
        stops += [step - step % every + every for every in (checkpoint, validate) if every]
        return min(stops) - step

    def _events(self, step: int) -> None:
        """What is due after a step; the checkpoint last, so that it speaks for all before it."""
        config, last = self.config, step == self.total
        due = _due(step, config.validate_every) or last
        if self.validation is not None and due:
            self._drain()
            given = self.setting.params0, jax.tree.map(jnp.copy, self._tau())
            found = self.validation(*(hosts.own(given) if hosts.several() else given))
            self.recorder.write(step, {f"validation/{n}": v for n, v in found})
        if step in config.save_vectors_at:
            self._drain()
            self.vectors[step] = self._vector(step)
            if self.directory is not None:
                with guarded(self.directory.path):
                    save = partial(self.vectors[step].save, self.directory.vector_at(step))
                    hosts.told(lambda: save() and None)
        if self.checkpoints is not None and _due(step, config.checkpoint_every) and not last:
            self._drain()
            self._save(step)

    def _save(self, step: int) -> None:
        if self.checkpoints is not None:
            self.checkpoints.save(step, {n: self.state[n] for n in _KEPT})

    def _interrupt(self, step: int, request: Request) -> NoReturn:
        self._drain()
        said = f"interrupted at step {step} of {self.total}"
        if self.checkpoints is not None and step:
            self._save(step)
            self.checkpoints.wait()
            said += "; a checkpoint is saved, and the same call resumes from it"
        raise request.answer(said)

    def _diverged(self, bad: int) -> None:
        values = hosts.fetch(self.state["bad_metrics"]).tolist()
        metrics = dict(zip(self.setting.recipe.metrics, values, strict=True))
        # the state has been frozen since, so it is the one before the bad step
        kept = "No run_dir was given; the last finite tau is this error's."
        if self.checkpoints is not None:
            if bad > 1:
                self._save(bad - 1)
                self.checkpoints.wait()
            steps = self.checkpoints.steps()
            kept = (
                f"The last good checkpoint is {self.checkpoints.directory / str(steps[-1])}."
                if steps
                else "It was the first step, so there is no checkpoint."
            )
        raise NonFiniteLossError(
            bad,
            metrics["loss"],
            metrics["lr"],
            metrics["grad_norm"],
            self._vector(bad - 1),
            kept,
            self._blame(bad - 1),
        )

    def _blame(self, step: int) -> str:
        """What of the batch after ``step`` steps is not finite, and was not before them either."""
        setting, config, rows = self.setting, self.config, None
        batch = self.feed.batch(step)
        if not isinstance(self.feed, feed.Loaded):
            (rows,) = feed.rows(self.feed.examples, config.batch_size, config.seed, step, 1)
        key = jax.random.fold_in(self.fixed["key"], step)
        said = blame(setting.recipe, setting.arrays, setting.params0, batch, key, rows)
        streams = zip(setting.streams, self.streams, strict=True)
        drawn = {place: fed.batch(step) for (place, _), fed in streams}
        tau = self.state["tau"]
        return said or blame_penalties(setting.recipe, self.fixed, tau, drawn, step)

    def _tau(self) -> Mapping[str, Array]:
        return self.setting.recipe.answer(self.setting.params0, self.state, self.setting.mask)

    def _vector(self, step: int) -> TaskVector:
        delta = hosts.own(dict(self._tau()))
        vector = TaskVector(delta, self.setting.base, {**self.meta, "steps": step})
        return vector if self.directory is None else self.directory.stamped(vector)

    def _finish(self, start: int) -> FineTuned:
        self._drain()
        vector = self._vector(self.total)
        seconds = round(self.recorder.seconds, 3)
        if self.directory is not None and self.checkpoints is not None:
            try:
                self.checkpoints.wait()
            except CheckpointError as error:
                log.warning("%s (training is over, so nothing is lost)", error)
            record = {"steps": self.total, "seconds": seconds, "resumed_from": start}
            self.directory.finish(vector, record)
            if not self.config.keep_when_done:
                self.checkpoints.clear()
        return FineTuned(
            tau=vector,
            history=self.recorder.rows,
            steps=self.total,
            resumed_from=start,
            seconds=seconds,
            vectors=self.vectors,
            run_dir=None if self.directory is None else self.directory.path,
        )


def _due(step: int, every: int) -> bool:
    return bool(every) and step % every == 0
