"""What an experiment is told: one frozen dataclass a component, validated where it is made.

The training room keeps its own (:class:`linearize.train.TrainConfig`); here are the others, and
the way of a whole configuration to JSON and back.
"""

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from linearize.train import TrainConfig

C = TypeVar("C")


class ConfigError(ValueError):
    """A configuration that cannot be run; the message names the field, the value and a remedy."""


def _require(holds: bool, field: str, value: object, remedy: str) -> None:
    if not holds:
        raise ConfigError(f"{field}={value!r}: {remedy}")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Which pretrained model, and how much of it."""

    name: str = "vit_s_focus"
    image_size: int = 28
    """Side in pixels that images are resized to inside the model."""
    blocks: int | None = 6
    """How many blocks to keep, counted from the input; all where None."""
    pretrained: bool = True
    """False draws the weights at random, from ``seed``: the control for what pre-training does."""
    seed: int = 0

    def __post_init__(self) -> None:
        _require(self.image_size > 0, "model.image_size", self.image_size, "give a positive side")
        _require(
            self.blocks is None or self.blocks > 0, "model.blocks", self.blocks, "keep at least 1"
        )


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which tasks, and how many examples of each split at most."""

    tasks: tuple[str, ...] = ("mnist",)
    control: str = "digits"
    """A task that nothing is trained on; negation must leave its accuracy alone."""
    image_size: int = 28
    train: int = 2000
    validation: int = 500
    test: int = 1000
    seed: int = 0
    """Decides the splits; a run's own seeds decide heads and data order."""

    def __post_init__(self) -> None:
        _require(len(self.tasks) >= 2, "data.tasks", self.tasks, "name two tasks or more")
        _require(
            len(set(self.tasks)) == len(self.tasks), "data.tasks", self.tasks, "name each task once"
        )
        _require(
            self.control not in self.tasks,
            "data.control",
            self.control,
            "the control task must not be one of data.tasks",
        )
        for split in ("train", "validation", "test"):
            count = getattr(self, split)
            _require(count > 0, f"data.{split}", count, "give a positive count")


@dataclasses.dataclass(frozen=True)
class HeadConfig:
    """The frozen head that stands in for CLIP's text head, made at θ0 from training examples."""

    kind: Literal["prototype", "probe"] = "prototype"
    shots: int = 10
    """Labelled training examples a class."""
    temperature: float = 20.0
    normalize: bool = True
    """False makes prototypes' logits affine in the features; a probe's always are."""

    def __post_init__(self) -> None:
        _require(self.shots > 0, "head.shots", self.shots, "give a positive count")
        _require(self.temperature > 0, "head.temperature", self.temperature, "must be positive")


@dataclasses.dataclass(frozen=True)
class EditConfig:
    """How the scaling coefficient is searched on validation data."""

    low: float = 0.0
    high: float = 1.0
    points: int = 21
    retained: float = 0.95
    """Share of the control task's pre-trained accuracy that negation must keep."""
    sweep_test: bool = True
    """Measure test accuracy along all of α for the figure, not at the chosen α alone."""

    def __post_init__(self) -> None:
        _require(self.points >= 2, "edit.points", self.points, "a search needs two points or more")
        _require(self.low < self.high, "edit.low", self.low, f"must be below high={self.high}")
        _require(0 < self.retained <= 1, "edit.retained", self.retained, "a share in (0, 1]")


@dataclasses.dataclass(frozen=True)
class MapConfig:
    """Which pairs of tasks get a disentanglement error map, on which grid."""

    pairs: tuple[tuple[str, str], ...] = ()
    low: float = -3.0
    high: float = 3.0
    points: int = 21
    n_eval: int = 500
    """Examples of each task, drawn from its test split."""
    search_box: tuple[float, float] = (-1.0, 1.0)

    def __post_init__(self) -> None:
        _require(self.points >= 2, "map.points", self.points, "a map needs two points a side")
        _require(self.low < self.high, "map.low", self.low, f"must be below high={self.high}")
        _require(self.n_eval > 0, "map.n_eval", self.n_eval, "give a positive count")


@dataclasses.dataclass(frozen=True)
class ExactConfig:
    """Linear fine-tuning to its optimum: mean cross-entropy + (l2 / 2) ‖τ‖²."""

    l2: float = 1e-2
    solver: Literal["auto", "dual", "gauss_newton"] = "auto"
    """On the kernel of the logits, which an affine head has, or in weight space."""
    tolerance: float = 1e-5
    """On the objective, in nats, by its gradient norm² / (2 l2)."""
    max_iterations: int = 50
    max_products: int = 2000
    batch_size: int = 64
    """Examples a pass in training."""

    def __post_init__(self) -> None:
        _require(self.l2 > 0, "exact.l2", self.l2, "must be positive, or there is no optimum")
        for name in ("tolerance", "max_iterations", "max_products", "batch_size"):
            value = getattr(self, name)
            _require(value > 0, f"exact.{name}", value, "must be positive")


Baseline = Literal["random", "gradient_ascent", "joint"]


@dataclasses.dataclass(frozen=True)
class CompareConfig:
    """The main job: three regimes of task arithmetic side by side."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig(tasks=("mnist", "animals"))
    head: HeadConfig = HeadConfig()
    nonlinear: TrainConfig = TrainConfig()
    """Fine-tuning of f itself; its task vectors serve the post-hoc regime too."""
    linear: TrainConfig = TrainConfig()
    """Fine-tuning of f's linearization."""
    exact: ExactConfig | None = None
    """Exact fine-tuning of f's linearization as one more regime; None leaves it out."""
    trainable: str | None = None
    """Regular expression of the parameter names to train; all where None."""
    edit: EditConfig = EditConfig()
    map: MapConfig = MapConfig()
    baselines: tuple[Baseline, ...] = ("random", "gradient_ascent", "joint")
    seeds: tuple[int, ...] = (0,)
    """Each draws its own heads and data order; intervals are over them."""
    random_init: bool = False
    """Also run the two trained regimes from random weights, to see what pre-training does."""
    batch_size: int = 256
    """Examples a call in evaluation."""

    def __post_init__(self) -> None:
        _require(len(self.seeds) >= 1, "seeds", self.seeds, "give at least one")
        _require(len(set(self.seeds)) == len(self.seeds), "seeds", self.seeds, "name each once")
        for name, recipe in (("nonlinear", self.nonlinear), ("linear", self.linear)):
            try:
                recipe.total_steps(self.data.train)
            except ValueError as error:
                raise ConfigError(f"{name}: {error}") from error
        for pair in self.map.pairs:
            for task in pair:
                near = difflib.get_close_matches(task, self.data.tasks, n=1)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                _require(task in self.data.tasks, "map.pairs", task, f"not one of data.tasks{hint}")


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as JSON's types."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(kind: type[C], values: Mapping[str, Any], where: str = "") -> C:
    """The configuration that :func:`to_dict` wrote.

    Raises:
        ConfigError: a field that ``kind`` does not have, or a value of the wrong kind.
    """
    hints = typing.get_type_hints(kind)
    fields = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name in values:
        near = difflib.get_close_matches(name, fields, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(fields))}"
        _require(name in fields, f"{where}{name}", values[name], f"no such option; {hint}")
    return kind(**{n: _value(hints[n], v, f"{where}{n}") for n, v in values.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        return _value(next(a for a in args if a is not type(None)), value, where)
    if dataclasses.is_dataclass(hint):
        _require(isinstance(value, Mapping), where, value, "expected a mapping of options")
        return from_dict(typing.cast(type, hint), value, f"{where}.")
    if origin is tuple:
        _require(isinstance(value, list | tuple), where, value, "expected a list")
        inner = [args[0]] * len(value) if args[-1] is Ellipsis else args
        return tuple(_value(i, v, where) for i, v in zip(inner, value, strict=True))
    return value


def completed(kind: type[C], values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration's JSON with what it leaves out at the defaults: those of its time are ours.

    A file that does not fit ``kind`` at all is returned as it is.

    >>> completed(HeadConfig, {"shots": 3})["normalize"]
    True
    """
    try:
        return to_dict(from_dict(kind, values))
    except (ConfigError, TypeError, ValueError):
        return dict(values)


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Lines ``field: a -> b`` for each leaf in which two JSON trees differ."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        lines = []
        for key in sorted(set(a) | set(b)):
            lines += differences(a.get(key), b.get(key), f"{where}.{key}" if where else key)
        return lines
    return [] if a == b else [f"{where}: {a!r} -> {b!r}"]


def load_config(kind: type[C], path: str | Path) -> C:
    """A configuration from the ``config.json`` of an earlier run.

    Raises:
        ConfigError: the file cannot be read, or does not fit ``kind``.
    """
    try:
        values = json.loads(Path(path).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path}: not a readable configuration ({error})") from error
    return from_dict(kind, values)
