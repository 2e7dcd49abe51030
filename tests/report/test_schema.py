"""A schema reads what it records, and names the key of whatever does not fit."""

import copy
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from linearize.report import schema
from linearize.report.node import Floats, ResultsError
from linearize.report.schema import Axes, Number, entries, key


@dataclass(frozen=True)
class Inner:
    """One of a list, each with a length of its own."""

    grid: Annotated[Floats, Axes("G")]
    total: Mapping[str, Annotated[Floats, Axes("S", "G", "G")]]
    held: bool | None = None

    def __post_init__(self) -> None:
        if (np.diff(self.grid) <= 0).any():
            raise ValueError(f"grid must rise, got {self.grid.tolist()}")


@dataclass(frozen=True)
class Regime:
    """An entry beside the names that ``along`` has."""

    single: Annotated[Floats, Axes("S", "X")]


@dataclass(frozen=True, kw_only=True)
class Every:
    """Every kind once."""

    seeds: Annotated[tuple[int, ...], Axes("S", some=True)]
    tasks: Annotated[tuple[str, ...], Axes("T")]
    notes: Annotated[tuple[float, ...], Axes("T")]
    rate: Number
    steps: int
    loss: float
    name: str
    done: bool
    better: Literal["higher", "lower"] = "higher"
    config: Any = None
    box: tuple[float, str] = (0.0, "")
    words: tuple[str, ...] = ()
    accuracy: Annotated[Floats, Axes("S", "T", upper=1.0)]
    pairs: Annotated[Floats, Axes("T", "?")] | None = None
    beside: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    inside: Annotated[Floats, Axes("S")] = key("outer/inner")
    maps: tuple[Inner, ...] = ()
    along: Mapping[str, Annotated[Floats, Axes("X")]]
    regimes: Mapping[str, Regime] = entries("along")


NUMBERS = st.floats(allow_nan=True, allow_infinity=False, width=32)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=8)
OWN = {f.metadata.get("key", f.name).split("/")[0] for f in dataclasses.fields(Every)}


def array(*shape: int, elements: Any = NUMBERS) -> st.SearchStrategy[Floats]:
    return arrays(np.float64, shape, elements=elements)


@st.composite
def every(draw: st.DrawFn) -> Every:
    S, T = draw(st.integers(1, 3)), draw(st.integers(0, 3))
    lengths = draw(st.dictionaries(NAMES.filter(lambda name: name not in OWN), st.integers(0, 3)))
    maps = []
    for G in draw(st.lists(st.integers(1, 3), max_size=2)):  # JSON knows no shape (S, 0, 0)
        total = draw(st.dictionaries(NAMES, array(S, G, G), max_size=2))
        maps.append(Inner(np.arange(G, dtype=float), total, draw(st.sampled_from([None, True]))))
    return Every(
        seeds=tuple(draw(st.lists(st.integers(), min_size=S, max_size=S))),
        tasks=tuple(draw(st.lists(NAMES, min_size=T, max_size=T, unique=True))),
        notes=tuple(draw(st.lists(st.floats(-9, 9), min_size=T, max_size=T))),
        rate=draw(NUMBERS),
        steps=draw(st.integers()),
        loss=draw(st.floats(-9, 9)),
        name=draw(st.text()),
        done=draw(st.booleans()),
        better=draw(st.sampled_from(["higher", "lower"])),
        config=draw(st.sampled_from([None, 3, "text", {"lr": [1, 2]}])),
        box=(draw(st.floats(-9, 9)), draw(st.text())),
        words=tuple(draw(st.lists(st.text(), max_size=2))),
        accuracy=draw(array(S, T, elements=st.floats(0, 1))),
        pairs=draw(st.none() | array(T, 2)) if T else None,
        beside=draw(st.dictionaries(NAMES, st.dictionaries(NAMES, st.integers(), max_size=2))),
        inside=draw(array(S)),
        maps=tuple(maps),
        along={name: draw(array(X)) for name, X in lengths.items()},
        regimes={name: Regime(draw(array(S, X))) for name, X in lengths.items()},
    )


def same(left: Any, right: Any) -> bool:
    """Equal in value and kind, arrays and NaN too."""
    if dataclasses.is_dataclass(left):
        return type(left) is type(right) and same(vars(left), vars(right))
    if isinstance(left, Mapping):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, tuple):
        return isinstance(right, tuple) and len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right, equal_nan=True)
    return type(left) is type(right) and (left == right or left != left)


@settings(max_examples=30, deadline=None)
@given(every())
def test_what_is_recorded_is_read(results):
    written = json.loads(json.dumps(schema.record(results), allow_nan=False))
    again = schema.read(Every, written)
    assert same(again, results)
    assert schema.record(again) == written


WHOLE = Every(
    seeds=(0, 1),
    tasks=("a", "b", "c"),
    notes=(0.5, 1.0, 2.0),
    rate=float("nan"),
    steps=3,
    loss=0.5,
    name="mine",
    done=True,
    config={"lr": 1},
    box=(0.5, "text"),
    words=("one",),
    accuracy=np.full((2, 3), 0.5),
    pairs=np.zeros((3, 5)),
    beside={"mnist": {"train": 3}},
    inside=np.zeros(2),
    maps=(Inner(np.arange(4.0), {"linear": np.zeros((2, 4, 4))}, held=False),),
    along={"linear": np.zeros(2)},
    regimes={"linear": Regime(np.zeros((2, 2)))},
)
RECORD = schema.record(WHOLE)


def edited(path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    raw = copy.deepcopy(RECORD)
    *outer, last = path
    node: Any = raw
    for part in outer:
        node = node[part]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return raw


def paths(node: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Of all that has a name of its own: keys, and entries that are objects."""
    if path and path[0] == "config":
        return []  # anything
    below = node.items() if isinstance(node, dict) else ()
    if isinstance(node, list) and node and isinstance(node[0], dict):
        below = enumerate(node)
    return [path] * bool(path) + [p for name, inner in below for p in paths(inner, (*path, name))]


@pytest.mark.parametrize("path", paths(RECORD), ids=lambda path: "/".join(map(str, path)))
def test_a_damaged_key_is_named(path):
    name = "/".join(map(str, path))
    with pytest.raises(ResultsError) as error:
        schema.read(Every, edited(path, {"of": {"another": "kind"}} if path[-1] != "beside" else 3))
    assert name in str(error.value)


@pytest.mark.parametrize("field", dataclasses.fields(Every), ids=lambda f: f.name)
def test_a_missing_key_is_its_default_or_named(field):
    if "entries" in field.metadata:
        return
    name = field.metadata.get("key", field.name)
    raw = edited(tuple(name.split("/")), ...)
    if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
        with pytest.raises(ResultsError, match=f"key '{name}' is missing"):
            schema.read(Every, raw)
    else:
        made = field.default_factory
        expected = field.default if made is dataclasses.MISSING else made()
        assert getattr(schema.read(Every, raw), field.name) == expected


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("seeds",), [], "seeds is empty; expected at least one"),
        (("seeds",), [0.5], r"seeds is \[0.5\]; expected a list of whole numbers"),
        (("tasks",), ["a", "a", "b"], r"tasks is \['a', 'a', 'b'\]; expected distinct names"),
        (("notes",), [1.0], "notes has 1 entries; expected 3"),
        (("rate",), "fast", "rate is not a regular list of numbers"),
        (("rate",), [1.0], r"rate has shape \(1,\); expected \(\)"),
        (("steps",), 0.5, "steps is 0.5; expected a whole number"),
        (("steps",), True, "steps is True; expected a whole number"),
        (("loss",), None, "loss is None; expected a number"),
        (("loss",), False, "loss is False; expected a number"),
        (("name",), 3, "name is 3; expected a string"),
        (("done",), 1, "done is 1; expected true or false"),
        (("better",), "up", "better is 'up'; expected 'higher' or 'lower'"),
        (("box",), [0.5], r"box is \[0.5\]; expected 2 entries"),
        (("box",), [0.5, 1.0], "box/1 is 1.0; expected a string"),
        (("notes",), None, "notes is None; expected a list"),
        (("words",), "one", "words is 'one'; expected a list"),
        (("words",), [3], "words/0 is 3; expected a string"),
        (("accuracy",), [[0.5]], r"accuracy has shape \(1, 1\); expected \(2, 3\)"),
        (("accuracy",), [[1.5] * 3] * 2, r"accuracy reaches from 1.5 to 1.5; .* in \[0, 1\]"),
        (("accuracy",), [[1], [1, 2]], "accuracy is not a regular list of numbers"),
        (("pairs",), [[0.0]], r"pairs has shape \(1, 1\); expected \(3, 'any'\)"),
        (("beside",), [1], "beside is a list; expected an object"),
        (("beside", "mnist", "train"), "3", "beside/mnist/train is '3'; expected a whole number"),
        (("outer", "inner"), [0.0], r"outer/inner has shape \(1,\); expected \(2,\)"),
        (("maps",), 3, "maps is 3; expected a list"),
        (("maps", 0), "text", "maps/0 is a str; expected an object"),
        (("maps", 0, "held"), "yes", "maps/0/held is 'yes'; expected true or false"),
        (("maps", 0, "grid"), [0.0, 0.0], r"maps/0/total/linear has shape .*expected \(2, 2, 2\)"),
        (("maps", 0, "grid"), [0.0, 2.0, 1.0, 3.0], "maps/0/grid must rise, got"),
        (("linear", "single"), [[0.0]] * 2, r"linear/single has shape \(2, 1\); expected \(2, 2\)"),
    ],
)
def test_what_does_not_fit_is_said_in_words(path, value, message):
    with pytest.raises(ResultsError, match=message):
        schema.read(Every, edited(path, value))


@pytest.mark.parametrize(
    ("name", "expected"), [("better", "higher"), ("pairs", None), ("config", None), ("words", ())]
)
def test_null_is_none_where_none_may_be_and_else_the_default(name, expected):
    assert getattr(schema.read(Every, edited((name,), None)), name) == expected


@pytest.mark.parametrize("values", [None, 3, [], "text"])
def test_what_is_no_object_is_refused(values):
    with pytest.raises(ResultsError, match=r"the file is a .*; expected an object"):
        schema.read(Every, values)


def test_keys_that_are_not_declared_are_passed_over():
    assert same(schema.read(Every, RECORD | {"more": {"of": "it"}}), WHOLE)


def test_entries_of_a_list_have_lengths_of_their_own():
    other = {"grid": [0.0], "total": {"linear": [[[1.0]], [[2.0]]]}}
    found = schema.read(Every, RECORD | {"maps": [*RECORD["maps"], other]})
    assert [len(each.grid) for each in found.maps] == [4, 1]
