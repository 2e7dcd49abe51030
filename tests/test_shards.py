"""Vectors and checkpoints leaf by leaf: what memory would give, to the bit, or an error."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from linearize import TaskVector, models, shards, tree
from linearize.command import main
from linearize.files import CorruptFileError
from linearize.lazy import Lazy
from linearize.merge import MERGES
from linearize.models.backbone import WeightsError

ROOT = Path(__file__).parents[1]
SHAPES = {"block_0/w": (6, 5), "block_1/w": (6, 5), "embed": (6, 5), "norm": (5,)}

pytestmark = pytest.mark.usefixtures("quick_compilation")


def drawn(seed, shapes=SHAPES, scale=1.0):
    rng = np.random.default_rng(seed)
    return {n: (scale * rng.normal(size=s)).astype(np.float32) for n, s in shapes.items()}


@pytest.fixture
def stored(tmp_path):
    """Two vectors of one base, in memory and in shards."""
    taus = {t: TaskVector(drawn(i), "b" * 64, {"task": t}) for i, t in enumerate(("one", "two"))}
    taus = {t: jax.tree.map(jnp.asarray, tau) for t, tau in taus.items()}
    places = {t: tau.save(tmp_path / f"{t}.safetensors", shard_size=125) for t, tau in taus.items()}
    return taus, places


def same(found, expected):
    assert isinstance(next(iter(found.delta.values())), Lazy)
    assert found.delta.keys() == expected.delta.keys()
    for name, leaf in expected.delta.items():
        made = found.delta[name].make()
        assert made.dtype == leaf.dtype == found.delta[name].dtype
        np.testing.assert_array_equal(made, leaf)


class TestVectors:
    def test_come_back(self, stored):
        taus, places = stored
        for task, tau in taus.items():
            names = {p.name for p in places[task].parent.glob(f"{task}-*")}
            assert names == {f"{task}-0000{i}-of-00004.safetensors" for i in (1, 2, 3, 4)}
            for found in (TaskVector.open(places[task]), TaskVector.load(places[task])):
                assert (found.base, found.meta["task"]) == (tau.base, task)
                assert repr(found)[:40] == repr(tau)[:40]
            same(TaskVector.open(places[task]), tau)
            assert isinstance(TaskVector.load(places[task]).delta["norm"], jax.Array)

    def test_algebra_is_that_of_memory(self, stored):
        (one, two), places = stored[0].values(), stored[1].values()
        a, b = map(TaskVector.open, places)
        same(0.3 * a - b / 7.0 + a, 0.3 * one - two / 7.0 + one)
        assert a.norm() == one.norm()
        assert a.cosine(b) == one.cosine(two)
        assert a.dot(b) == one.dot(two)
        assert a.norms() == one.norms()
        assert tree.fingerprint(a.delta) == tree.fingerprint(one.delta)
        theta = {n: jnp.ones(s) for n, s in SHAPES.items()}
        moved = a.apply_to(theta, 0.5, check_base=False)
        for name, leaf in one.apply_to(theta, 0.5, check_base=False).items():
            np.testing.assert_array_equal(moved[name], leaf)

    @pytest.mark.parametrize(
        "merge", [n for n, m in MERGES.items() if m.statistics is None and not m.whole]
    )
    def test_a_merge_is_that_of_memory(self, stored, merge):
        taus, places = stored
        lazy = {task: TaskVector.open(place) for task, place in places.items()}
        expected, found = (MERGES[merge].directions(x, 3) for x in (taus, lazy))
        assert found.keys() == expected.keys()
        for name, direction in expected.items():
            same(found[name], direction)

    def test_leaves_of_all_kinds_come_back(self, tmp_path):
        leaves = {
            "scalar": np.float32(3),
            "empty": np.zeros((0, 3), np.float16),
            "bytes": np.arange(5, dtype=np.int8),
            "wide": np.float64([[1e-300, 2]]),
            "brain": np.arange(3).astype(ml_dtypes.bfloat16),
        }
        for size in (1, 30, "1GB"):
            place = shards.save_tree(tmp_path / "all.safetensors", leaves, {"a": "b"}, size=size)
            found, notes = shards.load_tree(place)
            assert notes == {"a": "b"}
            assert found.keys() == leaves.keys()
            for name, leaf in leaves.items():
                assert (found[name].dtype, found[name].shape) == (leaf.dtype, leaf.shape)
                np.testing.assert_array_equal(found[name], leaf)
        with pytest.raises(ValueError, match="no leaf"):
            shards.save_tree(tmp_path / "none.safetensors", {}, size=1)

    def test_what_is_not_finite_is_refused_where_it_is_made(self, tmp_path):
        big = TaskVector({"w": jnp.full(3, 3e38)})
        tau = TaskVector.open(big.save(tmp_path / "big.safetensors", shard_size=8))
        with pytest.raises(tree.NonFiniteError, match="w: 3 of 3"):
            (2 * tau).save(tmp_path / "twice.safetensors", shard_size=8)
        assert {p.name for p in tmp_path.iterdir()} == {
            "big.safetensors.index.json",
            "big-00001-of-00001.safetensors",
        }


def break_map(change):
    def broken(index):
        told = json.loads(index.read_text())
        change(told["weight_map"])
        index.write_text(json.dumps(told))

    return broken


def cut(index):
    shard = index.with_name("one-00002-of-00004.safetensors")
    shard.write_bytes(shard.read_bytes()[:-3])


def flipped(index):
    shard = index.with_name("one-00002-of-00004.safetensors")
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")


def other(index):
    index.with_name("two-00003-of-00004.safetensors").replace(
        index.with_name("one-00003-of-00004.safetensors")
    )


class TestFiles:
    def test_another_vector_takes_the_place_of_the_first(self, stored):
        (one, two), (place, _) = stored[0].values(), stored[1].values()
        path = place.with_name("one.safetensors")
        two.save(path, shard_size="1kB")
        same(TaskVector.open(place), two)
        assert [p.name for p in place.parent.glob("one-*")] == ["one-00001-of-00001.safetensors"]
        one.save(path)
        two.save(path, shard_size="1kB")
        assert not path.exists()  # which transformers would read in place of the index

    def test_what_an_index_lists_beside_shards_of_its_name_is_nobody_s_to_remove(self, stored):
        (two,), (place,) = list(stored[0].values())[1:], list(stored[1].values())[:1]
        told = json.loads(place.read_text())
        mine = [place.with_name(n) for n in ("notes.txt", "two-00001-of-00001.safetensors")]
        for i, path in enumerate(mine):
            path.touch()
            told["weight_map"][f"w{i}"] = path.name
        place.write_text(json.dumps(told))
        two.save(place.with_name("one.safetensors"), shard_size="1kB")
        assert all(path.exists() for path in mine)
        assert len(list(place.parent.glob("one-*"))) == 1

    def test_a_full_disk_leaves_the_old(self, stored, largest_file):
        (one, _), (place, _) = stored[0].values(), stored[1].values()
        before = sorted(place.parent.iterdir())
        huge = TaskVector({"a": jnp.zeros(3), "w": jnp.zeros(4000)}, one.base)
        with largest_file(9000), pytest.raises(OSError, match="nothing was written"):
            huge.save(place.with_name("one.safetensors"), shard_size=100)
        assert sorted(place.parent.iterdir()) == before
        same(TaskVector.open(place), one)

    def test_a_file_that_changes_under_a_vector_is_refused(self, stored):
        place = stored[1]["one"]
        tau = TaskVector.open(place)
        stored[0]["two"].save(place.with_name("one.safetensors"), shard_size=125)
        with pytest.raises(CorruptFileError, match="changed after it was opened"):
            tau.delta["norm"].make()

    @pytest.mark.parametrize(
        ("harm", "says"),
        [
            (lambda p: p.with_name("one-00002-of-00004.safetensors").unlink(), "does not hold"),
            (cut, "truncated"),
            (flipped, "changed after they were written"),
            (other, "changed after they were written"),
            (break_map(lambda m: m.update(norm="../x.safetensors")), "own folder"),
            (break_map(lambda m: m.update(norm="one-00001-of-00004.safetensors")), "no shard"),
            (break_map(lambda m: m.update(extra="one-00001-of-00004.safetensors")), "no shard"),
            (
                lambda p: safetensors.numpy.save_file(
                    {"norm": np.zeros(5, np.float32), "block_1/w": np.zeros(1, np.float32)},
                    p.with_name("one-00002-of-00004.safetensors"),
                ),
                "norm is in one-00004-of-00004.safetensors and in another",
            ),
            (lambda p: p.write_text(p.read_text().replace('"task', '"tusk')), "changed after"),
            (lambda p: p.write_text("{}"), "weight_map"),
        ],
    )
    def test_what_is_harmed_is_refused(self, stored, harm, says):
        place = stored[1]["one"]
        harm(place)
        for read in (TaskVector.open, TaskVector.load):
            with pytest.raises(CorruptFileError, match=says):
                read(place)

    def test_a_shard_alone_is_no_vector(self, stored):
        with pytest.raises(CorruptFileError, match="no task vector"):
            TaskVector.load(stored[1]["one"].with_name("one-00002-of-00004.safetensors"))

    @pytest.mark.parametrize("size", ["", "2 GBs", "0", -1, "1e9", True, "nan"])
    def test_a_size_that_is_none(self, stored, size):
        with pytest.raises(ValueError, match="expected bytes"):
            stored[0]["one"].save("never.safetensors", shard_size=size)


NAMES = {"layers.0.weight": (6, 5), "layers.1.weight": (6, 5), "embed": (7, 4), "norm": (5,)}


def write(folder, leaves, parts=1):
    """A checkpoint as others write it, of one file or of several."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "mine", "width": 5}))
    if parts == 1:
        safetensors.numpy.save_file(leaves, folder / "model.safetensors", {"format": "pt"})
        return folder
    listed = {n: f"part-{i % parts}.safetensors" for i, n in enumerate(leaves)}
    for part in set(listed.values()):
        own = {n: x for n, x in leaves.items() if listed[n] == part}
        safetensors.numpy.save_file(own, folder / part, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))
    return folder


@pytest.fixture
def checkpoints(tmp_path):
    """A base in two dtypes and two parts, and two fine-tunings of it; as arrays too."""
    base = drawn(0, NAMES)
    base["embed"] = base["embed"].astype(ml_dtypes.bfloat16)
    ids = {"position_ids": np.arange(3)}
    tuned = {t: drawn(i, NAMES) for i, t in ((1, "cars"), (2, "dogs"))}
    for name, leaves in {"base": base, **tuned}.items():
        write(tmp_path / name, {**leaves, **ids}, parts=2 if name == "base" else 1)
    return base, tuned, tmp_path


class TestCheckpoints:
    def test_a_vector_is_the_difference(self, checkpoints):
        base, tuned, where = checkpoints
        tau = models.checkpoint_vector(where / "base", where / "cars")
        expected = {n: tuned["cars"][n] - np.float32(x) for n, x in base.items()}
        same(tau, TaskVector(expected))
        assert tau.base == tree.fingerprint(base)
        place = tau.save(where / "tau.safetensors", shard_size=100)
        same(models.checkpoint_vector(where / "base", place), TaskVector(expected))

    def test_the_documented_command(self, checkpoints, monkeypatch, capsys):
        base, tuned, where = checkpoints
        monkeypatch.chdir(where)
        text = (ROOT / "docs" / "large_vectors.md").read_text()
        command = re.search(r"```bash\nlinearize ((?:.|\\\n)+?)\n```", text)[1]
        main(shlex.split(command.replace("\\\n", "")))
        assert capsys.readouterr().out.strip() == "merged"
        found, _ = shards.load_tree("merged/model.safetensors.index.json")
        taus = {
            t: TaskVector({n: x - np.float32(base[n]) for n, x in leaves.items()})
            for t, leaves in tuned.items()
        }
        moved = tree.add(base, MERGES["ties"].merged(taus), 0.8)
        assert found.keys() == base.keys() | {"position_ids"}
        for name, x in moved.items():
            assert found[name].dtype == base[name].dtype
            np.testing.assert_array_equal(found[name], x)
        assert json.loads(Path("merged/config.json").read_text())["width"] == 5

    def test_the_documented_lines(self, checkpoints, monkeypatch):
        monkeypatch.chdir(checkpoints[2])
        text = (ROOT / "docs" / "large_vectors.md").read_text()
        exec(re.search(r"```python\n(.+?)```", text, re.DOTALL)[1], {})
        assert Path("forgetful/model.safetensors.index.json").exists()

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"embed": np.zeros((9, 4), np.float32)}, r"embed is \(9, 4\), the base's is \(7, 4\)"),
            ({"norm": np.zeros(5, np.int32)}, "missing: norm"),
            ({"norm": None}, "missing: norm"),
            ({"head": np.ones(2, np.float32)}, "only there: head"),
        ],
    )
    def test_other_tensors_are_named_and_may_be_left_out(self, checkpoints, change, says):
        base, tuned, where = checkpoints
        leaves = {n: x for n, x in {**tuned["cars"], **change}.items() if x is not None}
        write(where / "other", leaves)
        with pytest.raises(WeightsError, match=says):
            models.checkpoint_vector(where / "base", where / "other")
        (name,) = change
        tau = models.checkpoint_vector(where / "base", where / "other", leave_out=f"^{name}$")
        assert name == "head" or not np.any(tau.delta[name].make())
        assert tau.delta.keys() == base.keys()

    @pytest.mark.parametrize("where_said", ["config", "dtype"])
    def test_quantized_weights_are_refused(self, checkpoints, where_said):
        """Codes and scales: moved apart they are no weights, and codes are no floats."""
        _, tuned, where = checkpoints
        leaves = dict(tuned["cars"])
        if where_said == "dtype":
            leaves["norm"] = leaves["norm"].astype(ml_dtypes.float8_e4m3fn)
        folder = write(where / "quantized", leaves)
        if where_said == "config":
            told = {"model_type": "mine", "width": 5, "quantization_config": {"bits": 4}}
            (folder / "config.json").write_text(json.dumps(told))
        with pytest.raises(WeightsError, match=r"is quantized .*; dequantize it"):
            models.checkpoint_vector(where / "base", folder)
        with pytest.raises(WeightsError, match="is quantized"):
            models.open_checkpoint(folder)

    def test_integers_that_a_fine_tuning_changed_are_named(self, checkpoints):
        _, tuned, where = checkpoints
        write(where / "other", {**tuned["cars"], "position_ids": np.arange(1, 4)})
        with pytest.raises(WeightsError, match=r"not floating, .* hold: position_ids; leave_out"):
            models.checkpoint_vector(where / "base", where / "other")
        models.checkpoint_vector(where / "base", where / "other", leave_out="^position_ids$")

    def test_every_dtype_and_the_tokenizer_come_along(self, checkpoints):
        base, tuned, where = checkpoints
        fine = 1 + 1e-12 * np.arange(5)
        write(where / "wide", {**base, "norm": fine})
        beside = ("chat_template.jinja", "added_tokens.json", "sentencepiece.bpe.model")
        for name in beside:
            (where / "wide" / name).write_text("{}")
        write(where / "moved", {**tuned["cars"], "norm": fine + 0.5})
        tau = models.checkpoint_vector(where / "wide", where / "moved")
        models.export_checkpoint(where / "out", where / "wide", tau, 0.5)
        found, _ = shards.load_tree(where / "out" / "model.safetensors.index.json")
        assert found["norm"].dtype == np.float64
        np.testing.assert_allclose(np.asarray(found["norm"]), fine + 0.25, rtol=1e-15)
        assert all((where / "out" / name).is_file() for name in beside)

    def test_a_kind_that_is_no_word_is_an_unknown_one(self, checkpoints):
        _, _, where = checkpoints
        for name in ("base", "cars"):
            (where / name / "config.json").write_text('{"model_type": ["x"], "width": 5}')
        assert models.checkpoint_vector(where / "base", where / "cars").delta

    def test_a_narrower_dtype_is_told(self, checkpoints, caplog):
        _, tuned, where = checkpoints
        narrow = {n: x.astype(ml_dtypes.bfloat16) for n, x in tuned["cars"].items()}
        models.checkpoint_vector(where / "base", write(where / "narrow", narrow))
        assert "3 tensor(s), " in caplog.text
        assert "bfloat16 where the base has float32" in caplog.text

    def test_another_function_base_or_place_is_refused(self, checkpoints):
        _, _, where = checkpoints
        tau = models.checkpoint_vector(where / "base", where / "cars")
        with pytest.raises(tree.StructureMismatch, match="another base"):
            models.export_checkpoint(where / "out", where / "dogs", tau)
        with pytest.raises(ValueError, match="holds the base"):
            models.export_checkpoint(where / "base", where / "base", tau)
        own = TaskVector({"block_0/w": jnp.ones(2)}).save(where / "own.safetensors")
        with pytest.raises(WeightsError, match="vector of a model's leaves"):
            models.checkpoint_vector(where / "base", own)
        (where / "dogs" / "config.json").write_text('{"model_type": "mine", "width": 6}')
        with pytest.raises(WeightsError, match="width is 6 there and 5 in the base"):
            models.checkpoint_vector(where / "base", where / "dogs")
        assert not (where / "out").exists()

    def test_nan_in_a_checkpoint_is_found_in_any_merge(self, checkpoints):
        _, tuned, where = checkpoints
        broken = {**tuned["dogs"], "norm": np.float32([1, np.nan, 3, 4, 5])}
        write(where / "broken", broken)
        taus = {t: models.checkpoint_vector(where / "base", where / t) for t in ("cars", "broken")}
        merged = MERGES["consensus"].merged(taus)
        with pytest.raises(tree.NonFiniteError, match="norm: 1 of 5"):
            models.export_checkpoint(where / "out", where / "base", merged)
        assert not list((where / "out").glob("model*"))


MEASURED = """
import sys
from pathlib import Path
from linearize import models
from linearize.merge import MERGES

def told(what):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(what))

def merged(where, size):
    base = models.open_checkpoint(where / "base")
    taus = {t: models.checkpoint_vector(base, where / t) for t in ("cars", "dogs")}
    taus["cars"].cosine(taus["dogs"])
    total = MERGES["sum"].merged(taus)
    models.export_checkpoint(where / "out", base, total, 0.5, shard_size=size)
    return taus

merged(Path(sys.argv[1]), 4000)  # all that is imported and compiled
Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
before = told("VmRSS")
taus = merged(Path(sys.argv[2]), int(sys.argv[3]))
apart = told("VmHWM") - before
kept = [leaf.make() for tau in taus.values() for leaf in tau.delta.values()]
print(apart, told("VmHWM") - before)
"""


@pytest.mark.slow
def test_two_shards_are_enough(tmp_path):
    shard, leaf, count = 16 * 2**20, 2**20, 32
    for folder, number in (("small", 2), ("large", count)):
        (tmp_path / folder).mkdir()
        for i, name in enumerate(("base", "cars", "dogs")):
            leaves = {
                f"layers.{k}.weight": np.full(leaf // 4, i + k + 1.0, "f4") for k in range(number)
            }
            write(tmp_path / folder / name, leaves, parts=2)
    words = [str(tmp_path / "small"), str(tmp_path / "large"), str(shard)]
    run = subprocess.run(
        [sys.executable, "-c", MEASURED, *words],
        env=os.environ | {"PYTHONPATH": str(ROOT), "MALLOC_MMAP_THRESHOLD_": "65536"},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    apart, whole = map(int, run.stdout.split())
    print(f"{apart / 2**20:.1f} MiB leaf by leaf, {whole / 2**20:.1f} MiB with both vectors")
    assert apart <= 2 * shard
    assert whole >= 1.5 * count * leaf  # two vectors, seen by the same measure where both are kept
    assert len(list((tmp_path / "large" / "out").glob("model-*"))) == count * leaf // shard
