"""Every field of every configuration is checked where the configuration is made."""

import dataclasses
import importlib
import typing

import numpy as np
import pytest

from experiments import listed
from linearize import config, train
from linearize.fields import Count, Positive, Share, check

PLACES = [importlib.import_module(f"experiments.{n}.config") for n in listed() if n != "compare"]
KINDS = sorted(
    {k for m in (config, train, *PLACES) for k in vars(m).values() if dataclasses.is_dataclass(k)}
    - {train.FineTuned, train.Penalty, train.Stream},
    key=lambda kind: (kind.__name__, kind.__module__),
)
FIELDS = [(kind, field.name) for kind in KINDS for field in dataclasses.fields(kind)]
SIGNED = {
    ("EditConfig", "low"),
    ("EditConfig", "high"),
    ("MapConfig", "low"),
    ("MapConfig", "high"),
}
SIGNED |= {("SubsetsConfig", "fixed")}


def hint(kind, name):
    return typing.get_type_hints(kind)[name]


def numeric(kind, name):
    return {int, float} & {hint(kind, name), *typing.get_args(hint(kind, name))}


def test_no_configuration_is_left_out():
    assert {"CompareConfig", "OptimConfig", "TrainConfig", "WidthConfig"} <= {
        kind.__name__ for kind in KINDS
    }
    assert len({kind.__name__ for kind in KINDS}) == len(KINDS) > 20


@pytest.mark.parametrize(("kind", "name"), FIELDS)
def test_what_is_of_another_kind_is_refused_by_name(kind, name):
    wrong = [object(), {1, 2}]
    wrong += [] if hint(kind, name) is str else [b"x"]
    if numeric(kind, name):
        wrong += ["1", float("nan"), float("inf"), True]
    if int in numeric(kind, name):
        wrong += [1.5]
    for value in wrong:
        with pytest.raises(ValueError, match=rf"\b{name}=.*; expected "):
            kind(**{name: value})


@pytest.mark.parametrize(
    ("kind", "name"),
    [f for f in FIELDS if numeric(*f) and (f[0].__name__, f[1]) not in SIGNED],
)
def test_negative_numbers_are_refused_by_name(kind, name):
    with pytest.raises(ValueError, match=rf"\b{name}=-1"):
        kind(**{name: -1})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: config.CompareConfig(seeds=["x"]), r"seeds\[0\]='x'; expected an integer"),
        (lambda: config.CompareConfig(seeds=(0, -1)), r"seeds\[1\]=-1; expected an integer from 0"),
        (
            lambda: config.CompareConfig(seeds=(0, 2**32)),
            r"seeds\[1\]=4294967296; .* to 4294967295",
        ),
        (lambda: config.ModelConfig(seed=2**32), r"seed=4294967296; .* to 4294967295"),
        (lambda: config.CompareConfig(seeds=3), "seeds=3; expected a tuple"),
        (lambda: config.CompareConfig(batch_size=-1), "batch_size=-1; expected 1 or more"),
        (lambda: config.CompareConfig(epochs={"mnist": -1}), r"epochs\['mnist'\]=-1"),
        (lambda: config.CompareConfig(baselines=("joit",)), r"baselines\[0\].*mean 'joint'"),
        (lambda: config.MapConfig(pairs=(("mnist",),)), r"map\.pairs\[0\].*expected 2 entries"),
        (
            lambda: config.MapConfig(pairs=(("mnist", "cars"), ("mnist", "mnist"))),
            r"map\.pairs=\('mnist', 'mnist'\): name two different tasks",
        ),
        (
            lambda: config.MapConfig(search_box=(1.0, -1.0)),
            r"map\.search_box=\(1\.0, -1\.0\); expected \(low, high\) with a coefficient",
        ),
        (
            lambda: config.CompareConfig(edit=config.EditConfig(low=0.2)),
            r"edit=\(0\.2, 1\.0, 21\): the grid .* must hold α = 0",
        ),
        (lambda: config.ModelConfig(dtype="float16"), r"model\.dtype='float16'; expected one of"),
        (lambda: config.EditConfig(high=np.nan), r"edit\.high=nan; expected a finite number"),
        (lambda: train.TrainConfig(save_vectors_at=(1.5,)), r"save_vectors_at\[0\]=1\.5"),
        (lambda: train.TrainConfig(save_vectors_at=(0,)), r"save_vectors_at\[0\]=0; expected 1"),
        (lambda: train.TrainConfig(batch_size=-1), "batch_size=-1; expected 1 or more"),
        (
            lambda: train.TrainConfig(optim="adam"),
            "optim='adam'; expected an instance of OptimConfig",
        ),
        (lambda: train.OptimConfig(clip=-1.0), r"optim\.clip=-1\.0; expected a positive number"),
        (lambda: train.OptimConfig(decay="taus"), r"optim\.decay='taus'.*did you mean 'tau'"),
        (lambda: train.MeshConfig(axes=(("data", 1.5),)), r"mesh\.axes\[0\]\[1\]=1\.5"),
    ],
)
def test_the_message_says_where_what_and_what_instead(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def options(values, where=""):
    """Every option of a configuration's JSON: its way from the top, and where it stands."""
    for name, value in values.items():
        yield f"{where}{name}", values, name
        if isinstance(value, dict):
            yield from options(value, f"{where}{name}.")


def test_what_json_holds_wrongly_is_named_from_the_top():
    """A value of another kind, and an option that there is not, at every depth."""
    count = sum(1 for _ in options(config.to_dict(config.CompareConfig())))
    for i in range(count):
        for key, value, words in (("", [{}], "; expected"), ("z", 1, ": no such option")):
            values = config.to_dict(config.CompareConfig())
            path, place, name = list(options(values))[i]
            place[name + key] = value
            with pytest.raises(config.ConfigError) as raised:
                config.from_dict(config.CompareConfig, values)
            assert str(raised.value).startswith(f"{path}{key}"), path
            assert words in str(raised.value), path
    assert count > 60


def test_what_json_and_numpy_hold_is_welcome():
    """Lists for tuples, NumPy's numbers, integers for floats."""
    made = train.TrainConfig(seed=np.int64(3), save_vectors_at=[1, np.int32(2)], epochs=2)
    assert (made.seed, made.epochs) == (3, 2)
    assert train.OptimConfig(lr=np.float32(0.5)).lr == 0.5
    assert config.from_dict(config.CompareConfig, config.to_dict(config.CompareConfig()))


@dataclasses.dataclass(frozen=True)
class Nested:
    """Annotations of every sort."""

    rows: tuple[tuple[Count, Share], ...] = ((1, 0.5),)
    by_name: dict[str, tuple[Positive, ...]] = dataclasses.field(default_factory=dict)
    maybe: Positive | typing.Literal["auto"] | None = None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rows": ((1, 0.5), (0, 0.5))}, r"x\.rows\[1\]\[0\]=0; expected 1 or more"),
        ({"rows": ((1, 1.5),)}, r"x\.rows\[0\]\[1\]=1\.5; expected a number in \[0, 1\]"),
        ({"by_name": {"a": (1.0, 0.0)}}, r"x\.by_name\['a'\]\[1\]=0\.0; expected a positive"),
        ({"maybe": "aut"}, r"x\.maybe='aut'; expected .*'auto'; did you mean 'auto'"),
        ({"maybe": -2.0}, r"x\.maybe=-2\.0; expected a positive number or one of 'auto'"),
    ],
)
def test_what_is_nested_is_found(values, message):
    check(Nested(), "x.")
    with pytest.raises(config.ConfigError, match=message):
        check(Nested(**values), "x.", config.ConfigError)


def test_the_annotations_are_plain_types_to_others():
    assert typing.get_type_hints(Nested)["maybe"] == float | typing.Literal["auto"] | None
