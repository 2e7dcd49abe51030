"""A run directory answers for its own run alone, file by file."""

import json
import logging
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from jax.tree_util import Partial

from linearize import TaskVector, io
from linearize.identity import UnidentifiedError
from linearize.train import RunMismatchError, cross_entropy, loop
from linearize.train.rundir import data_fingerprint


def halved(outputs, batch):
    return 0.5 * cross_entropy(outputs, batch["labels"])


def doubled(outputs, batch):
    return 2.0 * cross_entropy(outputs, batch["labels"])


def jitter(size):
    def augment(key, batch):
        moved = batch["inputs"] + size * jax.random.normal(key, batch["inputs"].shape)
        return {**batch, "inputs": moved}

    return augment


def shown(dim, bright):
    """``inputs`` is the brighter one or the other, by its place in the order of names."""

    def augment(key, batch):
        x = batch["inputs"]
        return {dim: x, bright: 2 * x, "labels": batch["labels"]}

    return augment


def short(problem, run_dir, **overrides):
    return problem.run(run_dir=run_dir, **{"steps": 6, "checkpoint_every": 2, **overrides})


OTHER_FUNCTIONS = {
    "loss": ({"loss": halved}, {"loss": doubled}),
    "loss for none": ({}, {"loss": halved}),
    "readout": ({"readout": lambda z: 2 * z}, {"readout": lambda z: 3 * z}),
    "augment": ({"augment": jitter(0.1)}, {"augment": jitter(0.2)}),
    "augment by names": (
        {"augment": shown("dim", "inputs")},
        {"augment": shown("inputs", "k")},
    ),
    "augment for none": ({}, {"augment": jitter(0.2)}),
}


@pytest.mark.parametrize("case", OTHER_FUNCTIONS)
def test_another_function_is_another_run(problem, run_dir, case):
    first, second = OTHER_FUNCTIONS[case]
    short(problem, run_dir, **first)
    assert short(problem, run_dir, **first).reused
    with pytest.raises(RunMismatchError, match=rf"functions\.{case.split()[0]}: there"):
        short(problem, run_dir, **second)


def test_another_f_of_the_same_parameters_is_another_run(problem, run_dir):
    short(problem, run_dir)
    other = type(problem)(lambda p, x: problem.f(p, 2 * x), problem.params0, problem.data)
    with pytest.raises(RunMismatchError, match=r"functions\.f: there 'program"):
        short(other, run_dir)


def test_a_callback_is_refused_with_the_remedy(problem, run_dir):
    def loss(outputs, batch):
        like = jax.ShapeDtypeStruct(batch["labels"].shape, jnp.float32)
        weights = jax.pure_callback(lambda y: np.ones(y.shape, np.float32), like, batch["labels"])
        return weights * cross_entropy(outputs, batch["labels"])

    with pytest.raises(UnidentifiedError, match=r"loss cannot be told.*`fingerprint`.*run_dir out"):
        short(problem, run_dir, loss=loss)
    assert not run_dir.exists()
    loss.fingerprint = "weighted, 1"
    short(problem, run_dir, loss=loss)
    assert short(problem, run_dir, loss=loss).reused
    loss.fingerprint = "weighted, 2"
    with pytest.raises(RunMismatchError, match="there 'weighted, 1', now 'weighted, 2'"):
        short(problem, run_dir, loss=loss)


class Stopped(BaseException):
    """Stands for a process that dies."""


@pytest.fixture(scope="module")
def runs(problem, tmp_path_factory) -> Path:
    """A finished run and one that died with a checkpoint, of each of two seeds."""
    folder, advance = tmp_path_factory.mktemp("runs"), loop._Run._advance

    def dying(self, at):
        if at >= 5:
            raise Stopped
        return advance(self, at)

    for seed in (0, 1):
        short(problem, folder / f"done_{seed}", seed=seed, save_vectors_at=(3,))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop._Run, "_advance", dying)
            with pytest.raises(Stopped):
                short(problem, folder / f"cut_{seed}", seed=seed, save_vectors_at=(3,))
    return folder


FILES = {
    "done": ("done.json", "metrics.jsonl", "task_vector.safetensors", "vectors"),
    "cut": ("metrics.jsonl", "vectors", "checkpoints"),
}
EACH = [(kind, file) for kind, files in FILES.items() for file in files]


def take(source: Path, target: Path) -> None:
    """Put a file or a folder in another's place."""
    if source.is_dir():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)


@pytest.mark.parametrize(("kind", "file"), EACH)
def test_a_file_of_another_run_is_refused(problem, runs, run_dir, kind, file):
    take(runs / f"{kind}_0", run_dir)
    take(runs / f"{kind}_1" / file, run_dir / file)
    with pytest.raises(RunMismatchError, match=f"{file}.* is another run's; move that file away"):
        short(problem, run_dir, seed=0, save_vectors_at=(3,))


@pytest.mark.parametrize("kind", FILES)
def test_without_its_config_a_directory_answers_for_its_own_run_alone(problem, runs, run_dir, kind):
    take(runs / f"{kind}_0", run_dir)
    described = (run_dir / "config.json").read_text()
    (run_dir / "config.json").unlink()
    with pytest.raises(RunMismatchError, match=r"config\.json is missing, and .* another run's"):
        short(problem, run_dir, seed=1, save_vectors_at=(3,))
    got = short(problem, run_dir, seed=0, save_vectors_at=(3,))
    assert got.resumed_from == {"done": 6, "cut": 4}[kind]
    assert (run_dir / "config.json").read_text() == described


@pytest.mark.parametrize(("kind", "file"), EACH)
def test_without_its_config_each_file_alone_is_refused(problem, runs, run_dir, kind, file):
    run_dir.mkdir()
    take(runs / f"{kind}_0" / file, run_dir / file)
    with pytest.raises(RunMismatchError, match=r"config\.json is missing"):
        short(problem, run_dir, seed=1, save_vectors_at=(3,))


def test_a_config_that_was_edited_is_refused(problem, runs, run_dir):
    """Though it now says what is asked for."""
    take(runs / "done_0", run_dir)
    text = (run_dir / "config.json").read_text()
    (run_dir / "config.json").write_text(text.replace('"seed": 0', '"seed": 1'))
    with pytest.raises(RunMismatchError, match="is damaged or is no run's"):
        short(problem, run_dir, seed=1, save_vectors_at=(3,))


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [("done.json", '"steps": 6', '"steps": 60'), ("metrics.jsonl", '"loss": ', '"loss": 9')],
)
def test_what_was_edited_in_a_finished_run_is_not_believed(
    problem, runs, run_dir, caplog, file, old, new
):
    take(runs / "done_0", run_dir)
    whole = short(problem, run_dir, seed=0, save_vectors_at=(3,))
    text = (run_dir / file).read_text()
    assert old in text
    (run_dir / file).write_text(text.replace(old, new))
    again = short(problem, run_dir, seed=0, save_vectors_at=(3,))
    assert whole.reused
    assert not again.reused
    assert f"{file} was changed after" in caplog.text
    assert [row["loss"] for row in again.history] == [row["loss"] for row in whole.history]
    assert short(problem, run_dir, seed=0, save_vectors_at=(3,)).steps == 6


def earlier(run_dir: Path, loss: str = "cross_entropy") -> None:
    """Make of a directory what the version before the hashes left."""
    for name in ("config.json", "done.json", *run_dir.glob("checkpoints/*/sha256.json")):
        if (path := run_dir / name).exists():
            value = json.loads(path.read_text())
            value.pop("run")
            value.get("identity", {}).pop("functions", None)
            if path.name == "done.json":
                value = {k: v for k, v in value.items() if k not in ("metrics", "sha256")}
            if "identity" in value:
                value["identity"]["loss"] = loss
            io.write_json(path, value)
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    rows = [{k: v for k, v in json.loads(line).items() if k != "run"} for line in lines]
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for path in [*run_dir.glob("*.safetensors"), *run_dir.glob("vectors/*")]:
        vector = TaskVector.load(path)
        vector.meta.pop("run")
        vector.save(path)


@pytest.mark.parametrize("kind", FILES)
def test_directories_of_the_earlier_version_are_read(problem, runs, run_dir, caplog, kind):
    take(runs / f"{kind}_0", run_dir)
    earlier(run_dir)
    with caplog.at_level(logging.WARNING, "linearize"):
        got = short(problem, run_dir, seed=0, save_vectors_at=(3,))
    assert got.resumed_from == {"done": 6, "cut": 4}[kind]
    assert "did not note which function was trained" in caplog.text
    whole = TaskVector.load(runs / "done_0" / "task_vector.safetensors")
    for name, delta in whole.delta.items():
        np.testing.assert_array_equal(got.tau.delta[name], delta)
    assert short(problem, run_dir, seed=0, save_vectors_at=(3,)).reused
    with pytest.raises(RunMismatchError, match="seed: there 0, now 1"):
        short(problem, run_dir, seed=1, save_vectors_at=(3,))


def test_an_own_loss_of_the_earlier_version_is_refused(problem, run_dir):
    short(problem, run_dir, loss=halved)
    earlier(run_dir, "own")
    with pytest.raises(
        RunMismatchError, match=r"did not note which loss.*move this one away to train"
    ):
        short(problem, run_dir, loss=halved)


def test_a_file_of_the_earlier_version_in_a_run_of_this_one_is_refused(problem, runs, run_dir):
    take(runs / "done_0", run_dir)
    described = (run_dir / "config.json").read_text()
    earlier(run_dir)
    (run_dir / "config.json").write_text(described)
    with pytest.raises(RunMismatchError, match=r"done\.json does not say which run it is of"):
        short(problem, run_dir, seed=0, save_vectors_at=(3,))


def test_programs_of_two_versions_of_jax_are_not_compared(problem, runs, run_dir, monkeypatch):
    """The message says so where nothing else differs, and only there."""
    take(runs / "done_0", run_dir)
    versions = {**io.versions(), "jax": "99.0"}
    monkeypatch.setattr(io, "versions", lambda: versions)
    options = {"seed": 0, "save_vectors_at": (3,)}
    assert short(problem, run_dir, **options).reused
    other = type(problem)(lambda p, x: problem.f(p, 2 * x), problem.params0, problem.data)
    with pytest.raises(RunMismatchError, match=r"and 99\.0 cannot be compared"):
        short(other, run_dir, **options)
    with pytest.raises(RunMismatchError) as caught:
        short(other, run_dir, **{**options, "seed": 1})
    assert "cannot be compared" not in str(caught.value)


class Large(np.ndarray):
    """Gives itself out for more than memory holds."""

    nbytes = 1 << 40


def test_every_byte_of_the_data_counts():
    inputs = np.zeros((20_000, 2), np.float32).view(Large)
    data = {"inputs": inputs, "labels": np.zeros(20_000, np.int32)}
    before = data_fingerprint(data)
    data["inputs"][12_345, 1] = 1e-30
    assert data_fingerprint(data) != before


def test_arrays_of_a_partial_are_told_apart_by_their_values(problem, run_dir):
    def scale(factor, outputs):
        return factor * outputs

    short(problem, run_dir, readout=Partial(scale, jnp.float32(1.0)))
    with pytest.raises(RunMismatchError, match="arrays: there"):
        short(problem, run_dir, readout=Partial(scale, jnp.float32(2.0)))


def test_the_result_s_file_names_the_run(runs):
    file = runs / "done_0" / "task_vector.safetensors"
    assert safetensors.numpy.load(file.read_bytes())
    run = json.loads((runs / "done_0" / "config.json").read_text())["run"]
    assert TaskVector.load(file).meta["run"] == run


def test_a_finished_run_is_read_once(problem, run_dir, monkeypatch):
    short(problem, run_dir)
    read = []
    load = TaskVector.load
    monkeypatch.setattr(TaskVector, "load", lambda path: read.append(path) or load(path))
    assert short(problem, run_dir).reused
    assert read == [run_dir / "task_vector.safetensors"]
