"""Eigenfunction localization on its smallest preset: against dense references, resumed, refused."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import linearize as lz
from configs.localization import PRESETS as LOCALIZATION
from experiments import protocol, report
from experiments.localization import energies, relation
from experiments.localization import run as localization
from experiments.localization.results import Correlation, Energy, Relation, Results
from linearize import cli, config, io
from linearize.config import CompareConfig, ConfigError
from linearize.models.heads import apply_head
from linearize.report import ResultsError
from linearize.study import Store, Study
from linearize.task_vector import TaskVector

pytestmark = pytest.mark.slow

close = np.testing.assert_allclose
DEBUG = LOCALIZATION["debug"]()
NAMES = DEBUG.data.tasks


@pytest.fixture(scope="module")
def study(finished):
    return protocol.study(DEBUG, protocol.load_tasks(DEBUG), 0, Store())


def stored(run_dir, target):
    return lz.ntk.archive.load(run_dir / "seed_0" / "pretrained" / f"{target}.safetensors")


def test_every_measure_has_its_shape(finished, results):
    S, T, n = len(DEBUG.seeds), len(NAMES), DEBUG.points
    assert json.loads((finished / "config.json").read_text()) == config.to_dict(DEBUG)
    assert {p.stem for p in (finished / "figures").glob("*.png")} == {
        "energy", "relation", "spectrum_1_toy_a_toy_b", "histogram_1_toy_a_toy_b",
    }  # fmt: skip
    assert {p.stem for p in (finished / "tables").glob("*.md")} == {
        "claims", "energies", "relation", "pairs",
    }  # fmt: skip
    assert (finished / "report.html").stat().st_size > 10_000
    spectrum = results["energy"]["pretrained"]["spectra"]["toy_a"]["toy_b"]
    assert np.shape(spectrum["weights"]) == (S, 2 * n)
    for regime in DEBUG.regimes:
        assert np.shape(results["xi"][regime]["box"]) == (S, T, T)
    assert set(results["energy"]["random"]["control"]) == set(DEBUG.random_tasks)


def test_the_kernel_is_of_the_targets_logits_on_the_named_examples(finished, study):
    saved = stored(finished, "toy_b")
    assert len(saved.ids) == DEBUG.points * len(NAMES)
    picked = [0, DEBUG.points + 3, len(saved.ids) - 1]
    head, f, params0 = protocol.head(study.objectives["toy_b"]), study.model.f, study.model.params
    rows = []
    for k in picked:
        task, row = saved.ids[k].split("/")
        split = study.split(task, "test")
        assert split.labels[int(row)] == saved.labels[k]
        image = split.inputs[int(row)][None]
        logits, jacobian = jax.vjp(lambda p, image=image: apply_head(head, f(p, image))[0], params0)
        close(saved.f0[k], logits, rtol=1e-4, atol=1e-4)
        leaves = [jax.tree.leaves(jacobian(e)) for e in jnp.eye(len(logits))]
        rows.append(np.concatenate([np.ravel(leaf) for row in leaves for leaf in row]))
    dense = np.array(rows, np.float64) @ np.array(rows, np.float64).T
    close(saved.kernel[np.ix_(picked, picked)], dense, rtol=1e-4)


def test_energies_are_those_of_a_dense_reference(finished, results):
    saved, n = stored(finished, "toy_a"), DEBUG.points
    labels = saved.labels[:n]
    y = np.zeros((2 * n, 4))
    y[:n] = (labels[:, None] == np.arange(4)) - np.bincount(labels, minlength=4) / n
    other = NAMES.index("toy_c")
    both = np.r_[:n, other * n : (other + 1) * n]
    values, vectors = np.linalg.eigh(saved.kernel[np.ix_(both, both)].astype(np.float64))
    energy = results["energy"]["pretrained"]
    for k, share in enumerate(DEBUG.shares):
        count = int(np.ceil(share * 2 * n))
        leading = vectors[:, np.argsort(-values)[:count]]
        squares = ((leading.T @ y) ** 2).sum(1)
        on_control = 2 * (leading[n:] ** 2).sum(0)
        found = energy["control"]["toy_a"]["toy_c"][0][k]
        close(found, squares @ on_control / squares.sum(), rtol=1e-6)
        captured = energy["captured"]["toy_a"]["toy_c"][0][k]
        close(captured, squares.sum() / (y**2).sum(), rtol=1e-6)
    close(energy["captured"]["toy_a"]["toy_c"][0][0], 1, rtol=1e-9)


def test_xi_is_the_share_of_predictions_that_the_other_vector_changes(finished, results, study):
    """In the linear regime, from its definition, at α = (1, 1)."""
    vectors = finished / "seed_0" / "linear"
    taus = {t: TaskVector.load(vectors / t / "task_vector.safetensors") for t in NAMES[:2]}
    params0, head = study.model.params, protocol.head(study.objectives[NAMES[0]])
    f_lin = lz.linearize(study.model.f, params0)
    own, both = taus[NAMES[0]], taus[NAMES[0]] + taus[NAMES[1]]
    images = study.split(NAMES[0], "test").inputs
    predicted = [
        np.argmax(apply_head(head, f_lin(tau.apply_to(params0), images)), -1) for tau in (own, both)
    ]
    expected = np.mean(predicted[0] != predicted[1])
    close(results["xi"]["linear"]["one"][0][1][0], expected, atol=1e-12)  # target 1 disturbs task 0


def test_relation_is_spearmans_over_unordered_pairs(results):
    energy, upper = results["energy"]["pretrained"]["control"], np.triu_indices(len(NAMES), 1)
    xi = np.asarray(results["xi"]["linear"]["box"][1])
    both = [
        energy[a][b][1][0] + energy[b][a][1][0]
        for a, b in (np.take(NAMES, p) for p in zip(*upper, strict=True))
    ]
    expected = stats.spearmanr(both, (xi + xi.T)[upper]).statistic
    first = results["relation"][0]
    assert (first["regime"], first["coefficients"], first["share"]) == ("linear", "box", 1.0)
    close(first["pairs"]["seeds"][1], expected, rtol=1e-12)


def test_claims_are_decided_by_intervals_alone():
    def judged(before: float, random: float, rho: tuple[float, float]):
        def rows(level: float):
            values = np.array([[level + 0.01 * s] for s in range(3)])
            return Energy({"a": {"b": values}, "b": {"a": values}}, {}, {})

        third = Correlation(np.zeros(3), sum(rho) / 2, *rho)
        found = Results(
            experiment="localization", preset="debug", versions={}, config={}, model={},
            seeds=(0, 1, 2), pretrained=("a", "b"), random=("b", "a"), pairs=(), points=2,
            output="trace", shares=(1.0,), xi={},
            energy={"pretrained": rows(before), "random": rows(random)},
            relation=(Relation(1.0, "linear", "box", third, third),),
        )  # fmt: skip
        return [verdict.held for verdict in relation.judge(found)]

    assert judged(0.5, 0.8, (0.1, 0.9)) == [True, True, True]
    assert judged(1.5, 0.8, (-0.9, -0.1)) == [False, False, False]
    assert judged(0.99, 0.99, (-0.5, 0.5)) == [None, None, None]


class RepeatedError(AssertionError):
    """Something was computed again."""


def refuse(*_, **__):
    raise RepeatedError


def test_a_run_that_was_killed_goes_on_from_its_parts(finished, results, tmp_path, monkeypatch):
    run_dir = tmp_path / "debug"
    shutil.copytree(finished, run_dir)
    for lost in ("results.json", "seed_0/record.json", "seed_0/pretrained/toy_c.json"):
        (run_dir / lost).unlink()
    monkeypatch.setattr(lz.ntk, "kernel", refuse)
    monkeypatch.setattr(localization, "errors", refuse)
    monkeypatch.setattr(report, "write_all", lambda run_dir: run_dir)
    localization.run(DEBUG, run_dir, "debug")
    again = json.loads((run_dir / "results.json").read_text())
    assert again | {"seconds": None} == results | {"seconds": None}
    assert again["seconds"] is None
    assert results["seconds"] > 0
    (run_dir / "seed_0/record.json").unlink()
    (run_dir / "seed_0/xi/posthoc.json").unlink()
    with pytest.raises(RepeatedError):
        localization.run(DEBUG, run_dir, "debug")


def test_vectors_of_another_run_are_used(finished, results, tmp_path, monkeypatch):
    other = tmp_path / "compare"
    shutil.copytree(finished / "seed_0", other / "seed_0")
    theirs = CompareConfig(**config.taken(CompareConfig, DEBUG))
    io.write_json(other / "config.json", config.to_dict(theirs))
    given = dataclasses.replace(
        DEBUG,
        vectors=str(other),
        seeds=(0,),
        random_tasks=(),
        model=dataclasses.replace(DEBUG.model, image_size=16),
    )
    monkeypatch.setattr(Study, "_trained", refuse)
    monkeypatch.setattr(report, "write_all", lambda run_dir: run_dir)
    localization.run(given, tmp_path / "run")
    found = json.loads((tmp_path / "run" / "results.json").read_text())
    assert found["config"]["model"]["image_size"] == DEBUG.model.image_size
    for regime in DEBUG.regimes:
        assert found["xi"][regime]["box"][0] == results["xi"][regime]["box"][0]
    with pytest.raises(ConfigError, match="task vectors of seeds"):
        localization.run(dataclasses.replace(given, seeds=(0, 5)), tmp_path / "five")
    (other / "seed_0/linear/toy_a/task_vector.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="finish the run"):
        localization.run(given, tmp_path / "missing")
    with pytest.raises(ConfigError, match=r"config\.json"):
        localization.run(dataclasses.replace(given, vectors=str(tmp_path)), tmp_path / "none")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": 81}, r"points=81: give 2 to data\.test=80"),
        ({"shares": (0.5, 1.5)}, "each in"),
        ({"shares": (0.5, 0.5)}, "name each once"),
        ({"regimes": ()}, "regimes=.*name 1 or more"),
        ({"random_tasks": ("toy_a", "toyb")}, "did you mean 'toy_b'"),
        ({"random_tasks": ("toy_a",)}, "a target needs a control"),
        ({"map": config.MapConfig(low=-2.0, high=1.5, points=4)}, "must hold α = 1"),
        ({"map": config.MapConfig(low=-1.0, high=0.5, points=4)}, "must hold α = 1"),
        ({"map": config.MapConfig(pairs=(("toy_a", "emoji"),))}, r"map\.pairs='emoji'"),
        ({"memory": 0}, "memory=0"),
        ({"seeds": ()}, "seeds"),
    ],
)  # fmt: skip
def test_a_configuration_that_cannot_be_run_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(DEBUG, **change)


def test_a_task_with_too_few_test_examples_is_named(study):
    whole = study.tasks["toy_b"]
    one_a_class = whole.test.take(np.unique(whole.test.labels, return_index=True)[1])
    tasks = {**study.tasks, "toy_b": dataclasses.replace(whole, test=one_a_class)}
    with pytest.raises(ConfigError, match="toy_b has 4 test examples"):
        energies.points(DEBUG, study.but(tasks=tasks), "toy_b")


def test_overrides_reach_the_configuration():
    words = ["debug", "--points", "8", "--output", "full", "--map.points", "3"]
    found = cli.parse("localization", LOCALIZATION, words).config
    assert (found.points, found.output, found.map.points) == (8, "full", 3)


def test_a_damaged_result_is_named(finished, tmp_path):
    values = json.loads((finished / "results.json").read_text())
    del values["energy"]["pretrained"]["control"]["toy_a"]["toy_b"]
    io.write_json(tmp_path / "results.json", values)
    with pytest.raises(ResultsError, match="energy/pretrained/control/toy_a/toy_b"):
        report.read_page(tmp_path)
