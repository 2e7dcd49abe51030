"""What an experiment keeps is believed only as it was written, in the run that it is of."""

import collections
import dataclasses
import json
import os
import subprocess
import sys

import pytest

from experiments.running import claimed
from linearize import cli, config, io, report, sealed
from linearize.report import ResultsError
from linearize.study import Store
from linearize.train import RunDirectoryError


@dataclasses.dataclass(frozen=True)
class Toy:
    """An experiment's configuration."""

    lr: float = 0.1
    seeds: tuple[int, ...] = (0,)


class Measured:
    """A measurement that counts how often it is made."""

    def __init__(self, value=0.725):
        self.value, self.times = value, 0

    def __call__(self):
        self.times += 1
        return {"accuracy": self.value}


def cut(path):
    path.write_bytes(path.read_bytes()[:-9])


def edit(path):
    path.write_text(path.read_text().replace("0.725", "0.9"))


def empty(path):
    path.write_bytes(b"")


def unlist(path):
    folder = path.parent
    listed = json.loads((folder / sealed.LIST).read_text())
    del listed["files"][path.name]
    io.write_json(folder / sealed.LIST, listed)


def kept(path, measured):
    """What a file of a store holds."""
    return Store.of(path.parent).kept(path.stem, measured, folder="")


DAMAGE = {
    "edited": (edit, "was changed after it was written"),
    "truncated": (cut, "was changed after it was written"),
    "empty": (empty, "was changed after it was written"),
    "laid there": (unlist, "is not in the list of files beside it (sha256.json)"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_part_is_set_aside_and_measured_again(tmp_path, caplog, damage):
    harm, said = DAMAGE[damage]
    path, store, measured = tmp_path / "parts" / "single.json", Store.of(tmp_path), Measured()
    expected = store.kept("single", measured)
    assert store.kept("single", measured) == expected
    assert measured.times == 1
    harm(path)
    harmed = path.read_bytes()
    assert store.kept("single", measured) == expected
    assert measured.times == 2
    assert (path.parent / "single.json.damaged").read_bytes() == harmed
    assert f"{path} {said}; it is set aside as single.json.damaged" in caplog.text
    assert store.kept("single", measured) == expected
    harm(path)
    store.kept("single", measured)
    assert measured.times == 3
    assert (path.parent / "single.json.damaged2").exists()


def test_a_damaged_list_costs_measuring_and_nothing_else(tmp_path):
    store, measured = Store.of(tmp_path), Measured()
    store.kept("single", measured)
    (tmp_path / "parts" / sealed.LIST).write_text('{"files": ')
    assert store.kept("single", measured) == {"accuracy": 0.725}
    assert measured.times == 2
    assert (tmp_path / "parts" / "single.json.damaged").exists()


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_record_is_made_anew_from_its_parts(tmp_path, damage):
    measured, seeds = Measured(), []

    def measure(seed, store):
        seeds.append(seed)
        return store.kept("single", measured)

    with claimed(tmp_path, Toy()):
        first = Store.of(tmp_path).every_seed((0,), 1, measure)
    DAMAGE[damage][0](tmp_path / "seed_0" / "record.json")
    with claimed(tmp_path, Toy()):
        again = Store.of(tmp_path).every_seed((0,), 1, measure)
    assert first["accuracy"] == again["accuracy"] == [0.725]
    assert (seeds, measured.times) == ([0, 0], 1)


@pytest.mark.parametrize("harm", [cut, os.unlink])
def test_what_lies_beside_a_record_counts(tmp_path, harm):
    """Such as the class scores of the report's sliders."""
    times, store = [], Store.of(tmp_path).under("seed_0")

    def measure():
        times.append(0)
        store.write_bytes("explorer.npz", b"class scores of the sliders")
        return {}

    for _ in range(2):
        store.recorded(0, measure)
    harm(tmp_path / "seed_0" / "explorer.npz")
    for _ in range(2):
        store.recorded(0, measure)
    assert len(times) == 2
    assert (tmp_path / "seed_0" / "explorer.npz").read_bytes() == b"class scores of the sliders"


def test_parts_of_the_earlier_version_are_taken_with_a_warning(tmp_path, caplog):
    """All of a folder's, once; after that they are as good as new ones."""
    for name in ("single", "addition"):
        io.write_json(tmp_path / f"{name}.json", {"accuracy": 0.725})
    measured = Measured(0.1)
    for name in ("single", "addition"):
        assert kept(tmp_path / f"{name}.json", measured) == {"accuracy": 0.725}
    assert measured.times == 0
    assert caplog.text.count("is of an earlier version, which kept no hashes") == 1
    kept(tmp_path / "new.json", measured)
    edit(tmp_path / "addition.json")
    assert kept(tmp_path / "addition.json", measured) == {"accuracy": 0.1}


def test_a_truncated_part_of_the_earlier_version_is_named(tmp_path, caplog):
    (tmp_path / "single.json").write_text('{"accuracy": 0.7')
    assert kept(tmp_path / "single.json", Measured()) == {"accuracy": 0.725}
    assert f"{tmp_path / 'single.json'} is no JSON" in caplog.text


def test_parts_of_another_configuration_are_measured_again(tmp_path, caplog):
    """Brought from there, and found where both config.json and run.json are gone."""
    first = {}
    for lr in (0.1, 0.2):
        with claimed(tmp_path / str(lr), Toy(lr)):
            first[lr] = kept(tmp_path / str(lr) / "parts" / "single.json", Measured(lr))
    for name in ("parts/single.json", "parts/sha256.json"):
        (tmp_path / "0.1" / name).write_bytes((tmp_path / "0.2" / name).read_bytes())
    with claimed(tmp_path / "0.1", Toy(0.1)):
        again = kept(tmp_path / "0.1" / "parts" / "single.json", Measured(0.1))
    assert again == first[0.1]
    assert "single.json is of another run" in caplog.text
    for name in ("config.json", "run.json"):
        (tmp_path / "0.2" / name).unlink()
    with claimed(tmp_path / "0.2", Toy(0.3)):
        assert kept(tmp_path / "0.2" / "parts" / "single.json", Measured(0.3)) == {"accuracy": 0.3}


def test_added_seeds_and_options_leave_parts_as_they_are(tmp_path):
    measured = Measured()
    with claimed(tmp_path, Toy()):
        kept(tmp_path / "seed_0" / "single.json", measured)
    with claimed(tmp_path, Toy(seeds=(0, 1))):
        kept(tmp_path / "seed_0" / "single.json", measured)

    @dataclasses.dataclass(frozen=True)
    class Newer(Toy):
        momentum: float = 0.0

    for seeds in ((0, 1), (0, 1, 2)):
        with claimed(tmp_path, Newer(seeds=seeds)):
            kept(tmp_path / "seed_0" / "single.json", measured)
    assert measured.times == 1


def test_without_its_config_a_directory_is_its_own_configuration_s(tmp_path):
    with claimed(tmp_path, Toy(0.1)):
        pass
    described = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").unlink()
    with (
        pytest.raises(config.ConfigError, match=r"config\.json is missing, and run\.json"),
        claimed(tmp_path, Toy(0.2)),
    ):
        pass
    with claimed(tmp_path, Toy(0.1)):
        pass
    assert (tmp_path / "config.json").read_text() == described
    (tmp_path / "config.json").write_text(described.replace("0.1", "0.2"))
    with (
        pytest.raises(config.ConfigError, match=r"config\.json was changed after it was written"),
        claimed(tmp_path, Toy(0.2)),
    ):
        pass


def test_changed_results_are_not_shown(tmp_path):
    Store.of(tmp_path).write("results.json", {"schema": 1, "accuracy": 0.725})
    report.node.read(tmp_path)
    edit(tmp_path / "results.json")
    with pytest.raises(ResultsError, match=r"results\.json was changed after.*experiment again"):
        report.node.read(tmp_path)


RACE = """
import collections, json, multiprocessing, sys, time, warnings
from pathlib import Path
sys.path.insert(0, sys.argv[1])
warnings.simplefilter("ignore")
from test_kept import RunDirectoryError, Toy, claimed, config

def contend(barrier, root, lr, rounds, told):
    for r in range(rounds):
        run_dir = root / str(r)
        barrier.wait()
        try:
            with claimed(run_dir, Toy(lr)):
                time.sleep(0.001)
                held = json.loads((run_dir / "config.json").read_text())
                told.put("own" if held == config.to_dict(Toy(lr)) else "another's")
        except (RunDirectoryError, config.ConfigError) as error:
            told.put(type(error).__name__)

if __name__ == "__main__":
    fork, count, rounds = multiprocessing.get_context("fork"), 6, 60
    barrier, told = fork.Barrier(count), fork.Queue()
    root = Path(sys.argv[2])
    rest = [
        fork.Process(target=contend, args=(barrier, root, 0.1 * (1 + i % 2), rounds, told))
        for i in range(count)
    ]
    [p.start() for p in rest]
    print(json.dumps(collections.Counter(told.get() for _ in range(count * rounds))))
    [p.join() for p in rest]
"""


@pytest.mark.slow
def test_many_first_starts_at_once(tmp_path):
    """Whoever holds the lock holds it under its own configuration, in every one of 60 races."""
    command = [sys.executable, "-c", RACE, os.path.dirname(__file__), str(tmp_path)]
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    told = collections.Counter(json.loads(run.stdout))
    assert set(told) <= {"own", "RunLockedError", "ConfigError"}
    assert told["own"] >= 60
    assert told["RunLockedError"] + told["ConfigError"] > 60


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "run").write_text("precious")
    with pytest.raises(RunDirectoryError, match="cannot be used"), claimed(tmp_path / "run", Toy()):
        pass
    assert (tmp_path / "run").read_text() == "precious"


def test_claiming_says_nothing_new_to_a_finished_run(tmp_path):
    for _ in range(2):
        cli.claim(tmp_path, Toy())
        before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert set(before) == {"config.json", "run.json", "versions.json"}
