"""Exact linear fine-tuning as a regime of the main job, on a tiny network."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import linearize as lz
from configs.compare import PRESETS as COMPARE
from experiments import protocol
from experiments.compare import run as compare
from linearize import config, ntk
from linearize.methods.exact import fine_tune_exactly
from linearize.models.heads import apply_head
from linearize.study import Store
from linearize.task_vector import TaskVector
from linearize.train import RunMismatchError

L2, TOLERANCE = 1e-2, 1e-4


def small() -> config.CompareConfig:
    debug = COMPARE["debug"]()
    return dataclasses.replace(
        debug,
        data=dataclasses.replace(debug.data, train=100, validation=40, test=40),
        head=config.HeadConfig(shots=5, normalize=False),
        exact=config.ExactConfig(l2=L2, tolerance=TOLERANCE, solver="gauss_newton"),
        map=dataclasses.replace(debug.map, points=3, n_eval=10),
        baselines=(),
        seeds=(0,),
        random_init=False,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "exact"
    compare.run(small(), run_dir, "exact")
    return run_dir, json.loads((run_dir / "results.json").read_text())


def study(where, **changes):
    told = dataclasses.replace(small(), exact=dataclasses.replace(small().exact, **changes))
    return protocol.study(told, protocol.load_tasks(told, control=True), 0, Store.of(where))


@pytest.mark.slow
def test_it_is_one_more_method_everywhere(finished):
    run_dir, results = finished
    for table in ("single", "addition", "negation", "cosine", "training"):
        assert "exact" in results[table]
    assert np.shape(results["maps"][0]["total"]["exact"]) == (1, 3, 3)
    assert "Exact linear" in (run_dir / "report.html").read_text()
    assert "| Exact linear |" in (run_dir / "tables" / "training.md").read_text()
    tau = TaskVector.load(run_dir / "seed_0/exact/toy_a/task_vector.safetensors")
    other = TaskVector.load(run_dir / "seed_0/linear/toy_a/task_vector.safetensors")
    assert (tau.meta["regime"], tau.meta["task"]) == ("linear", "toy_a")
    assert set(tau.delta) == set(other.delta)
    cosine = results["training"]["linear"]["cosine"][0][0]
    assert cosine == pytest.approx(float(tau.cosine(other)), abs=1e-6)


@pytest.mark.slow
def test_adamw_is_above_the_optimum_by_no_more_than_its_gradient_allows(finished):
    _, results = finished
    adamw, optimum = (results["training"][r] for r in ("linear", "exact"))
    rounding = 1e-6
    gap = np.subtract(adamw["objective"], optimum["objective"])
    assert (np.square(optimum["gradient_norm"]) / (2 * L2) <= TOLERANCE).all()
    assert (gap >= -TOLERANCE - rounding).all()
    assert (gap <= np.square(adamw["gradient_norm"]) / (2 * L2) + rounding).all()


@pytest.mark.slow
def test_the_losses_are_those_of_the_regimes(finished):
    run_dir, results = finished
    there = study(run_dir / "seed_0")
    model = there.model
    f_lin = lz.linearize(model.f, model.params)
    for t, task in enumerate(there.names):
        examples = there.split(task, "train")
        for regime, f in (("nonlinear", model.f), ("linear", f_lin), ("exact", f_lin)):
            path = run_dir / f"seed_0/{regime}/{task}/task_vector.safetensors"
            params = TaskVector.load(path).apply_to(model.params)
            logits = apply_head(there.objectives[task].readout, f(params, examples.inputs))
            scores = jax.nn.log_softmax(logits)[jnp.arange(len(examples)), examples.labels]
            got = results["training"][regime]["loss"][0][t]
            assert got == pytest.approx(-float(scores.mean()), abs=2e-5)


@pytest.mark.slow
def test_a_finished_vector_is_reused_and_an_unfinished_one_is_not(finished, tmp_path, monkeypatch):
    run_dir, _ = finished

    def solved(*_, **__):
        raise InterruptedError("solved again")

    monkeypatch.setattr(ntk, "fine_tune_exactly", solved)
    where = run_dir / "seed_0"
    before = TaskVector.load(where / "exact/toy_a/task_vector.safetensors")
    again = fine_tune_exactly(study(where), "toy_a")
    assert all((again.delta[n] == before.delta[n]).all() for n in before.delta)
    for _ in range(2):
        with pytest.raises(InterruptedError):
            fine_tune_exactly(study(tmp_path), "toy_a")
        assert not (tmp_path / "exact/toy_a/done.json").exists()
    with pytest.raises(RunMismatchError, match="l2"):
        fine_tune_exactly(study(where, l2=1.0), "toy_a")


@pytest.mark.parametrize(
    ("change", "says"), [({"l2": 0.0}, r"exact\.l2"), ({"max_iterations": 0}, "max_iterations")]
)
def test_options_without_an_optimum_are_refused(change, says):
    with pytest.raises(config.ConfigError, match=says):
        config.ExactConfig(**change)
