"""Stores, studies and merges: what is kept, reused and refused."""

import dataclasses
import json
import logging
import math
from functools import partial
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from linearize import sealed
from linearize.comparison import objective_of
from linearize.evaluate.view import VIEWS, Displaced, Tangent
from linearize.examples import Examples
from linearize.merge import MERGES, RANDOM, SUM, TIES
from linearize.merge.ties import ties
from linearize.methods import EXACT, JOINT, LINEAR, METHODS, NONLINEAR, POSTHOC
from linearize.models import Model
from linearize.models.heads import Head
from linearize.objectives import Classify, Squared
from linearize.objectives.distances import DISTANCES
from linearize.study import Method, Store, Study, stack
from linearize.study.store import begin
from linearize.task_vector import TaskVector
from linearize.tree import StructureMismatch

pytestmark = pytest.mark.usefixtures("quick_compilation")

close = np.testing.assert_allclose
NUMBERS = [0.1 + 0.2, 1 / 3, 1e-320, math.nextafter(1, 2), 2**53 + 1]


class RepeatedError(AssertionError):
    """Something was computed again."""


def refuse(*_):
    raise RepeatedError


@pytest.fixture(params=["memory", "disk"])
def store(request, tmp_path):
    return Store() if request.param == "memory" else Store.of(tmp_path / "seed_0")


def test_a_part_is_computed_once_and_its_numbers_survive(store):
    def compute():
        return {
            "array": np.array(NUMBERS[:4]),
            "one": np.float32(0.1),
            "device": jnp.arange(3),
            "many": 2**53 + 1,
            2: ("a", None),
            "lost": [math.nan, math.inf],
        }

    found = store.kept("part", compute)
    assert found == {
        "array": NUMBERS[:4],
        "one": float(np.float32(0.1)),
        "device": [0, 1, 2],
        "many": 2**53 + 1,
        "2": ["a", None],
        "lost": [None, None],
    }
    assert store.kept("part", refuse) == found
    assert store.kept("nothing", lambda: None) is None
    assert store.kept("nothing", refuse) is None


def test_what_is_kept_is_not_changed_by_who_asked(store):
    for compute in (lambda: {"values": [1]}, refuse, refuse):
        found = store.kept("part", compute)
        assert found == {"values": [1]}
        found["values"].append(2)


def test_parts_of_other_names_folders_and_stores_are_others(store):
    assert store.kept("part", lambda: 1) == 1
    assert store.kept("other", lambda: 2) == 2
    assert store.kept("part", lambda: 3, folder="") == 3
    assert store.under("seed_1").kept("part", lambda: 4) == 4
    assert store.under("seed_1").kept("part", refuse) == 4
    assert store.kept("part", refuse) == 1


def test_a_failed_part_is_not_kept(store):
    with pytest.raises(RepeatedError):
        store.kept("part", refuse)
    with pytest.raises(TypeError, match="no form in JSON"):
        store.kept("part", object)
    assert store.kept("part", lambda: 1) == 1


def test_a_store_of_a_directory_is_found_again(tmp_path):
    Store.of(tmp_path / "run").under("seed_0").kept("part", lambda: NUMBERS)
    again = Store.of(str(tmp_path / "run")).under("seed_0")
    assert again.kept("part", refuse) == NUMBERS
    assert Store.of(again) is again
    assert again.name == "seed 0"
    assert again.path("linear", "mnist") == tmp_path / "run/seed_0/linear/mnist"
    assert Store().path("linear") is None
    assert json.loads((tmp_path / "run/seed_0/parts/part.json").read_text()) == NUMBERS


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.write_text(path.read_text().replace("1", "7")), "was changed after it"),
        (lambda path: path.write_bytes(path.read_bytes()[:-3]), "was changed after it"),
        (lambda path: sealed.write(path, "[1, 2"), "is no JSON"),
        (lambda path: (path.with_name(sealed.LIST)).write_text("{}"), "is not in the list"),
    ],
    ids=["changed", "cut", "no JSON", "unlisted"],
)
def test_a_damaged_part_is_set_aside_and_made_anew(tmp_path, caplog, spoil, reason):
    store = Store.of(tmp_path)
    store.kept("part", lambda: [1, 2, 3])
    path = tmp_path / "parts/part.json"
    spoil(path)
    damaged = path.read_bytes()
    assert store.kept("part", lambda: [1, 2, 4]) == [1, 2, 4]
    assert reason in caplog.text
    assert "part.json.damaged" in caplog.text
    assert path.with_name("part.json.damaged").read_bytes() == damaged
    assert store.kept("part", refuse) == [1, 2, 4]


def measured(store, parts=2):
    def measure():
        return {name: store.kept(name, lambda n=name: [len(n)]) for name in ("one", "three")}

    return store.recorded(parts, measure)


def test_a_record_is_measured_once_and_counts_its_parts(store, caplog):
    caplog.set_level(logging.INFO)
    store = dataclasses.replace(store, name="seed 0")
    record = measured(store)
    assert {"one": [3], "three": [5]}.items() <= record.items()
    assert record["seconds"] >= 0
    lines = [each.message for each in caplog.records]
    assert lines[:2] == ["seed 0 [1/2] one", "seed 0 [2/2] three"]
    assert lines[2].startswith("seed 0: measured in ")
    caplog.clear()
    assert store.recorded(2, refuse) == record
    assert [each.message for each in caplog.records] == ["seed 0: measured before"]


def test_parts_that_were_not_foreseen_are_said(store, caplog):
    measured(store, parts=3)
    assert "2 parts began, not 3" in caplog.text


def test_a_part_outside_of_any_record_has_no_number(caplog):
    caplog.set_level(logging.INFO)
    begin("alone")
    assert caplog.messages == ["alone"]


def test_an_interrupted_record_takes_its_parts_up_and_has_no_time(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    store = Store.of(tmp_path / "seed_0")
    with pytest.raises(RepeatedError):
        store.recorded(2, lambda: (store.kept("one", lambda: [3]), refuse()))
    record = measured(store)
    assert record == {"one": [3], "three": [5], "seconds": None}
    assert "seed 0 [1/2] one: measured before" in caplog.messages


def test_a_record_whose_files_are_lost_is_made_anew(tmp_path, caplog):
    store, made = Store.of(tmp_path / "seed_0"), []

    def measure():
        made.append(1)
        store.write_bytes("explorer.npz", b"numbers")
        return {"value": store.kept("one", lambda: 1.5)}

    store.recorded(1, measure)
    store.recorded(1, measure)
    assert len(made) == 1
    (tmp_path / "seed_0/explorer.npz").unlink()
    assert store.recorded(1, measure)["value"] == 1.5
    assert len(made) == 2
    assert "explorer.npz lost or damaged; made anew" in caplog.text
    assert (tmp_path / "seed_0/explorer.npz").read_bytes() == b"numbers"


def test_seeds_are_stacked_and_their_times_added(store):
    def measure(seed, place):
        return {"value": seed, "by": {"part": place.kept("part", lambda: [seed])}}

    record = store.every_seed((3, 5), 1, measure)
    times = [store.under(f"seed_{s}").read("record.json")["seconds"] for s in (3, 5)]
    assert record == {"value": [3, 5], "by": {"part": [[3], [5]]}, "seconds": sum(times)}
    assert store.every_seed((3, 5), 1, refuse) == record
    assert stack([{"a": 1}, {"a": None}]) == {"a": [1, None]}


def model(params, x):
    return jnp.tanh(x @ params["w"])


W = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)


def task(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(5, 3)).astype(np.float32), rng.normal(size=(5, 2)).astype(np.float32)
    examples = Examples(x, {"targets": y})
    return SimpleNamespace(split={"train": examples, "test": examples}.__getitem__)


TASKS = {name: task(seed) for seed, name in enumerate(("one", "two", "rest"))}


def given(**options):
    options = {"objectives": dict.fromkeys(TASKS, Squared()), "control": "rest", **options}
    return Study(Model(model, {"w": W}), TASKS, **options)


def method(name="given", view="tangent", **options):
    """A method whose vectors are made at once, and the tasks that it was asked for."""
    asked = []

    def train(study, task):
        asked.append(task)
        return TaskVector({"w": W * (len(task) + study.seed)})

    return Method(name, name, view, train, **options), asked


def test_vectors_are_made_once_for_each_trained_task():
    study, (mine, asked) = given(), method()
    assert study.names == ("one", "two")
    first = study.vectors(mine)
    assert list(first) == asked == ["one", "two"]
    assert study.vectors(mine) is first
    view = study.view(mine)
    assert study.view(mine) is view
    assert view.vectors == first
    assert len(asked) == 2
    other = study.view(mine, {"sum": sum(first.values())})
    assert list(other.vectors) == ["sum"]
    assert study.view(mine) is view


def test_posthoc_takes_the_vectors_of_the_nonlinear_ones():
    nonlinear, asked = method("nonlinear", "displaced")
    posthoc = Method("posthoc", "Post-hoc", "tangent", of=nonlinear)
    study = given()
    assert study.vectors(posthoc) is study.vectors(nonlinear)
    assert asked == ["one", "two"]
    assert isinstance(study.view(nonlinear), Displaced)
    assert isinstance(study.view(posthoc), Tangent)
    tau = study.vectors(nonlinear)["one"].delta["w"]
    x, y = TASKS["one"].split("test").inputs, TASKS["one"].split("test").targets["targets"]
    base = np.float64(x) @ W
    moved = np.tanh(base + np.float64(x) @ np.float64(tau))
    tangent = np.tanh(base) + (1 - np.tanh(base) ** 2) * (np.float64(x) @ np.float64(tau))
    for row, outputs in ((nonlinear, moved), (posthoc, tangent)):
        expected = ((outputs - y) ** 2).mean()
        assert study.singles(study.view(row))[0] == pytest.approx(expected, rel=1e-4)
        start = study.pretrained(study.view(row), "one")
        assert start == pytest.approx(((np.tanh(base) - y) ** 2).mean(), rel=1e-5)
    assert (POSTHOC.of, POSTHOC.train, POSTHOC.view) == (NONLINEAR, None, "tangent")
    assert [m.view for m in (NONLINEAR, LINEAR, EXACT)] == ["displaced", "tangent", "tangent"]
    assert all(METHODS[name].name == name for name in METHODS)


def test_a_method_that_stands_for_addition_has_one_vector():
    mine, asked = method("joint", "displaced", stands="addition")
    study = given()
    assert list(study.vectors(mine)) == asked == ["joint"]


def test_a_study_that_is_otherwise_remembers_nothing_of_the_old_one():
    study, (mine, asked) = given(), method()
    old = study.vectors(mine), study.view(mine)
    for change in ({"seed": 7}, {"batch_size": 2}, {"views": VIEWS}):
        other = study.but(**change)
        assert other.view(mine) is not old[1]
        assert other.view(mine).batch_size == other.batch_size
    close(study.but(seed=7).vectors(mine)["one"].delta["w"], 10 * W)
    assert len(asked) == 10
    assert (study.vectors(mine), study.view(mine)) == old


def test_vectors_are_borrowed_of_a_finished_run(tmp_path):
    """One for each task; of a method that stands for addition, the one that there is."""
    (mine, asked), (joint, _) = method(), method("joint", stands="addition")
    for row, place in ((mine, "given/one"), (mine, "given/two"), (joint, "joint")):
        tau = row.train(SimpleNamespace(seed=3), place)
        tau.save(tmp_path / place / "task_vector.safetensors")
    asked.clear()
    study = given(borrowed=tmp_path)
    for name, tau in study.vectors(mine).items():
        close(tau.delta["w"], W * (len(f"given/{name}") + 3))
    assert list(study.vectors(joint)) == ["joint"]
    assert not asked
    (tmp_path / "given/two/task_vector.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="finish the run that vectors are taken of"):
        given(borrowed=tmp_path).vectors(mine)


def test_borrowed_vectors_of_another_model_are_refused(tmp_path):
    mine, _ = method()
    for name in ("one", "two"):
        tau = TaskVector({"w": W}, base="another")
        tau.save(tmp_path / "given" / name / "task_vector.safetensors")
    study = given(borrowed=tmp_path)
    with pytest.raises(StructureMismatch):
        study.singles(study.view(mine))


def test_objectives_share_a_shape_where_points_take_passes():
    def head(classes):
        zeros = jnp.zeros(2)
        return Head(zeros, jnp.ones((2, classes)), None, jnp.float32(1), normalize=True)

    objectives = dict(zip(TASKS, map(Classify, map(head, (2, 3, 4))), strict=True))
    study, (tangent, _), (displaced, _) = (
        given(objectives=objectives),
        method(),
        method("d", "displaced"),
    )
    exact, padded = (study.objective("one", study.view(m)) for m in (tangent, displaced))
    assert exact is objectives["one"]
    assert padded.readout.kernel.shape == (2, 4)


def test_studies_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"objectives lacks \['two'\]; give one for each task"):
        given(objectives={"one": Squared(), "rest": Squared()})
    with pytest.raises(ValueError, match=r"objectives lacks \['rest'\]"):
        given(objectives={"one": Squared(), "two": Squared()})
    with pytest.raises(ValueError, match=r"control='mnist' is none of the tasks"):
        given(control="mnist")
    with pytest.raises(ValueError, match="seed=4294967296; expected an integer from 0 to"):
        given(seed=2**32)  # which would draw what 0 does
    alone = {"rest": TASKS["rest"]}
    with pytest.raises(ValueError, match="nothing is left to train beside control"):
        Study(Model(model, {"w": W}), alone, {"rest": Squared()}, control="rest")
    with pytest.raises(ValueError, match="nothing is left to train"):
        Study(Model(model, {"w": W}), {}, {})
    with pytest.raises(ValueError, match="method 'mine': give train, or of"):
        Method("mine", "Mine", "tangent")
    with pytest.raises(ValueError, match="no recipe for 'exact'"):
        given().vectors(EXACT)


ODD = {"a": (3, 5), "b": (7,), "c": ()}


def integers(seed, shapes=ODD):
    """Entries from −3 to 3: many are equal, cancel or are 0."""
    rng = np.random.default_rng(seed)
    return {n: np.asarray(rng.integers(-3, 4, s), np.float32) for n, s in shapes.items()}


def dense_ties(deltas, density):
    """Trim, elect, merge (Yadav et al. 2023, §4), an entry at a time."""
    flat = np.stack(
        [np.concatenate([np.ravel(np.float64(d[n])) for n in sorted(d)]) for d in deltas]
    )
    kept = max(1, round(density * flat.shape[1]))
    for row in flat:
        least = sorted(map(abs, row))[-kept]
        row[[abs(x) < least for x in row]] = 0
    totals = flat.sum(0)
    majority = np.sign(np.sign(totals).sum())
    merged = []
    for column, total in zip(flat.T, totals, strict=True):
        sign = np.sign(total) or majority
        agreeing = [x for x in column if x != 0 and np.sign(x) == sign]
        merged.append(np.mean(agreeing) if agreeing else 0.0)
    return np.array(merged)


@pytest.mark.slow(but=["1-1e-06", "3-0.5", "5-0.2"])
@pytest.mark.parametrize("density", [1e-6, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_ties_is_its_dense_reference(count, density):
    deltas = [integers(10 * count + i) for i in range(count)]
    if count > 2:
        deltas[1] = {n: np.zeros_like(d) for n, d in deltas[1].items()}
        deltas[2] = {n: -d for n, d in deltas[0].items()}  # these two cancel everywhere
    taus = {
        str(i): TaskVector({n: jnp.asarray(d) for n, d in each.items()})
        for i, each in enumerate(deltas)
    }
    (name, merged), *rest = ties(taus, density=density).items()
    assert (name, rest) == ("ties", [])
    assert {n: d.shape for n, d in merged.delta.items()} == ODD
    found = np.concatenate([np.ravel(merged.delta[n]) for n in sorted(ODD)])
    close(found, dense_ties(deltas, density), rtol=1e-6)


def test_ties_keeps_all_entries_as_large_as_the_least_that_is_kept():
    """So that nothing depends on the order of entries, nor on how tensors cut them."""
    w = np.array([1, -1, 0.5, 1, 3, -1, 0.2, 0.2], np.float32)
    order = np.random.default_rng(0).permutation(len(w))
    for density, least in ((0.125, 3), (0.25, 1), (0.625, 1), (0.75, 0.5), (0.8, 0.5), (0.9, 0.2)):
        whole, moved = (TaskVector({"w": jnp.asarray(x)}) for x in (w, w[order]))
        cut = TaskVector({"a": jnp.asarray(w[:3]), "b": jnp.asarray(w[3:]).reshape(1, 5)})
        kept = np.where(np.abs(w) >= np.float32(least), w, 0)
        merge = partial(ties, density=density)
        close(merge({"t": whole})["ties"].delta["w"], kept)
        close(merge({"t": moved})["ties"].delta["w"], kept[order])
        delta = merge({"t": cut})["ties"].delta
        close(np.concatenate([delta["a"], np.ravel(delta["b"])]), kept)


def test_ties_resolves_what_cancels_by_the_majority():
    """Three entries are elected positive and one negative, so the cancelled one is positive."""
    one = TaskVector({"w": jnp.array([1.0, 2.0, 3.0, -4.0, 5.0])})
    two = TaskVector({"w": jnp.array([1.0, 1.0, 0.0, -1.0, -5.0])})
    merged = TIES.directions({"a": one, "b": two}, 0)["ties"].delta["w"]
    close(merged, np.zeros(5))  # a fifth of the entries: the largest two alone, which cancel
    full = ties({"a": one, "b": two}, density=1.0)["ties"].delta["w"]
    close(full, [1, 1.5, 3, -2.5, 5])


@pytest.mark.parametrize(
    ("taus", "density", "error", "message"),
    [
        ({}, 0.2, ValueError, "taus is empty"),
        ({"a": TaskVector({"w": jnp.ones(2)})}, 0.0, ValueError, "density=0.0"),
        ({"a": TaskVector({"w": jnp.ones(2)})}, 1.5, ValueError, "density=1.5"),
        ({"a": TaskVector({"w": jnp.ones(2)})}, math.nan, ValueError, "density=nan"),
        (
            {"a": TaskVector({"w": jnp.ones(2)}), "b": TaskVector({"w": jnp.ones(3)})},
            0.2,
            StructureMismatch,
            r"\(3,\)",
        ),
        (
            {"a": TaskVector({"w": jnp.ones(2)}, "x"), "b": TaskVector({"w": jnp.ones(2)}, "y")},
            0.2,
            StructureMismatch,
            "base",
        ),
    ],
)
def test_vectors_that_cannot_be_merged_are_refused(taus, density, error, message):
    with pytest.raises(error, match=message):
        ties(taus, density=density)


def test_random_directions_have_each_tensor_s_norm():
    leaves = {n: jnp.asarray(d) for n, d in integers(0).items()} | {"zero": jnp.zeros(3)}
    taus = {"a": TaskVector(leaves), "b": TaskVector(leaves)}
    found = RANDOM.directions(taus, 3)
    assert list(found) == ["a", "b"]
    for tau in found.values():
        for name, leaf in leaves.items():
            assert tau.delta[name].shape == leaf.shape
            close(np.linalg.norm(tau.delta[name]), np.linalg.norm(leaf), rtol=1e-5)
    big = {n: np.asarray(tau.delta["a"]) for n, tau in found.items()}
    assert not np.allclose(big["a"], big["b"])  # each task has its own
    again, other = (RANDOM.directions(taus, seed)["a"].delta["a"] for seed in (3, 4))
    np.testing.assert_array_equal(again, big["a"])
    assert not np.allclose(other, big["a"])


def test_merges_say_how_their_directions_are_called():
    taus = {
        task: TaskVector({f"block_{i}/w": size * jnp.ones(2) for i in range(2)})
        for task, size in (("a", 1.0), ("b", 2.0))
    }
    assert SUM.directions(taus, 0) == taus
    of_vectors = {name: m for name, m in MERGES.items() if m.statistics is None}
    found = {name: list(m.directions(taus, 0)) for name, m in of_vectors.items()}
    assert [found.pop("sum"), found.pop("random")] == [["a", "b"]] * 2
    assert found["ties"] == ["ties"]
    for directions in found.values():
        assert len(directions) == 1
        assert not {"a", "b"} & set(directions)
    assert JOINT.stands == "addition"


@pytest.mark.parametrize(
    "change",
    [
        {"smoothing": 0.1},
        {"distance": DISTANCES["total_variation"]},
        {"readout": Head(jnp.zeros(2), jnp.eye(2), None, jnp.float32(1), normalize=True)},
    ],
    ids=["loss", "distance", "readout"],
)
def test_a_study_is_known_by_all_that_its_objectives_are(change):
    """What only training or maps ask decides numbers that a store would give back."""
    examples = Examples(TASKS["one"].split("test").inputs, {"labels": np.arange(5) % 2})
    tasks = {"one": SimpleNamespace(split=lambda _: examples)}

    def known(objective):
        study = Study(Model(model, {"w": W}), tasks, {"one": objective})
        return objective_of(study, "one")

    assert known(Classify()) == known(Classify())
    assert known(Classify(**change)) == known(Classify(**change))
    assert known(Classify(**change)) != known(Classify())
