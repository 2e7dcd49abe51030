"""What the analyses share: the run that task vectors are taken of, and terms that are kept."""

import dataclasses
import itertools

import numpy as np
import pytest

from configs import PRESETS
from experiments import running, vectors
from experiments.merging import run as merging
from experiments.subsets import run as subsets
from linearize import config, evaluate, io
from linearize.config import ConfigError, StudyConfig
from linearize.evaluate import AffineOutputs, kept
from linearize.methods import METHODS
from linearize.task_vector import TaskVector

pytestmark = pytest.mark.slow

close = np.testing.assert_allclose
DEBUG = PRESETS["subsets"]["debug"]()
NAMES = DEBUG.data.tasks
ANALYSES = ("subsets", "coefficients", "ensembling")


class RepeatedError(AssertionError):
    """Something was computed again."""


def refuse(*_, **__):
    raise RepeatedError


@pytest.fixture(scope="module")
def small(trained):
    return trained("subsets")


def test_terms_are_computed_once(small, monkeypatch, tmp_path, caplog):
    taus = dict(zip(NAMES, small.taus("linear"), strict=True))
    place, linear, given = kept.terms_path, METHODS["linear"], small.kept()
    examples = small.study.split(NAMES[0], "validation")
    monkeypatch.setattr(kept, "terms_path", lambda *a: tmp_path / place(*a).name)
    first = given.view(linear, taus).terms(examples)
    params = small.study.model.params
    whole = evaluate.affine_outputs(
        small.study.model.f, params, list(taus.values()), examples.inputs
    )
    close(first.jvps, whole.jvps, atol=1e-5 * np.abs(whole.jvps).max())
    with monkeypatch.context() as patch:
        patch.setattr(kept, "affine_outputs", refuse)
        again = given.view(linear, taus).terms(examples)
        np.testing.assert_array_equal(again.jvps, first.jvps)
        other = {name: 2.0 * tau for name, tau in taus.items()}
        with pytest.raises(RepeatedError):
            given.view(linear, other).terms(examples)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-8])
    again = given.view(linear, taus).terms(examples)
    np.testing.assert_array_equal(again.jvps, first.jvps)
    assert "computed again" in caplog.text


def test_fewer_examples_are_the_first(small):
    fewer = vectors.first(small.study.tasks, 40, None)
    for task in NAMES:
        whole = small.study.split(task, "validation")
        np.testing.assert_array_equal(fewer[task].validation.labels, whole.labels[:40])
        np.testing.assert_array_equal(fewer[task].validation.inputs, whole.inputs[:40])
        assert len(fewer[task].test) == len(small.study.split(task, "test"))


@pytest.fixture
def theirs(tmp_path):
    """The configuration of a run of ``compare``, as that leaves it, and the run's directory."""
    found = dataclasses.replace(
        PRESETS["compare"]["debug"](), batch_size=7, trainable="kernel", seeds=(0, 1, 2)
    )
    io.write_json(tmp_path / "compare" / "config.json", config.to_dict(found))
    return found, tmp_path / "compare"


@pytest.mark.parametrize("name", ANALYSES)
def test_an_analysis_is_of_the_study_whose_vectors_it_takes(name, theirs):
    whole, run_dir = theirs
    given = dataclasses.replace(PRESETS[name]["debug"](), vectors=str(run_dir), seeds=(2, 0))
    found = vectors.resolve(given)
    shared = {field.name for field in dataclasses.fields(StudyConfig)} - {"seeds"}
    assert {"model", "data", "head", "nonlinear", "linear", "trainable"} < shared
    for field in dataclasses.fields(given):
        decides = whole if field.name in shared else given
        assert getattr(found, field.name) == getattr(decides, field.name), field.name


def test_vectors_that_are_not_there_are_named(theirs, tmp_path):
    given = dataclasses.replace(DEBUG, vectors=str(theirs[1]))
    with pytest.raises(ConfigError, match="task vectors of seeds"):
        subsets.run(dataclasses.replace(given, seeds=(0, 7)), tmp_path / "a")
    with pytest.raises(ConfigError, match=r"config\.json"):
        subsets.run(dataclasses.replace(given, vectors=str(tmp_path)), tmp_path / "b")


def test_vectors_of_a_method_that_the_run_has_not_are_named_before_anything_is_measured(
    theirs, tmp_path
):
    whole, run_dir = theirs
    given = dataclasses.replace(
        PRESETS["merging"]["debug"](), vectors=str(run_dir), seeds=(0, 2), sizes=()
    )
    for name in (*given.regimes, "tau_jp"):
        for seed, task in itertools.product(given.seeds, whole.data.tasks):
            place = run_dir / f"seed_{seed}" / name / task
            with pytest.raises(FileNotFoundError, match=rf"none in {place}; .* leave {name} out"):
                merging.run(given, tmp_path / "mine")
            place.mkdir(parents=True)
            (place / "task_vector.safetensors").touch()
    vectors.check_lent(vectors.resolve(given), merging.compared(given))
    assert not (tmp_path / "mine").exists()


def test_results_of_vectors_that_were_made_anew_are_not_gone_on_with(theirs, tmp_path):
    def lend(seed, number):
        place = theirs[1] / f"seed_{seed}" / "linear" / "a" / "task_vector.safetensors"
        TaskVector({"w": np.full(3, number, "f4")}).save(place)

    given = vectors.resolve(dataclasses.replace(DEBUG, vectors=str(theirs[1]), seeds=(0,)))
    lend(0, 1.0)
    ours = tmp_path / "ours"
    for seeds in (0,), (0,), (0, 1):
        lend(1, float(len(seeds)))  # of no seed of ours yet
        with running.claimed(ours, dataclasses.replace(given, seeds=seeds)):
            pass
    lend(0, 2.0)
    with (
        pytest.raises(ConfigError, match=r"anew since \(1 in .*, the first seed_0/linear/a/task_v"),
        running.claimed(ours, dataclasses.replace(given, seeds=(0, 1))),
    ):
        pass
    lend(0, 1.0)
    with running.claimed(ours, dataclasses.replace(given, seeds=(0, 1))):
        pass


def test_along_is_the_algebra_it_says():
    rng = np.random.default_rng(0)
    terms = AffineOutputs(rng.normal(size=(5, 2)), rng.normal(size=(3, 5, 2)))
    basis = rng.normal(size=(3, 2))
    moved = np.einsum("tg,tnc->gnc", basis, terms.jvps)
    close(terms.along(basis).jvps, moved, rtol=1e-6)
