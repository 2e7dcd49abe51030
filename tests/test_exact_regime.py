"""Exact linear fine-tuning as a regime of the main job, on a tiny network."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import linearize as lz
from configs import COMPARE
from experiments import compare, exact, protocol
from linearize import config, ntk
from linearize.models.heads import apply_head
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


@pytest.fixture(scope="module")
def setting(finished):
    return protocol.prepare(small(), protocol.load_tasks(small(), control=True), seed=0)


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
def test_the_losses_are_those_of_the_regimes(finished, setting):
    run_dir, results = finished
    f_lin = lz.linearize(setting.f, setting.params0)
    for t, task in enumerate(setting.names):
        split = setting.split(task, "train")
        for regime, f in (("nonlinear", setting.f), ("linear", f_lin), ("exact", f_lin)):
            path = run_dir / f"seed_0/{regime}/{task}/task_vector.safetensors"
            params = TaskVector.load(path).apply_to(setting.params0)
            logits = apply_head(setting.heads[task], f(params, split.inputs))
            scores = jax.nn.log_softmax(logits)[jnp.arange(len(split.labels)), split.labels]
            got = results["training"][regime]["loss"][0][t]
            assert got == pytest.approx(-float(scores.mean()), abs=2e-5)


@pytest.mark.slow
def test_a_finished_vector_is_reused_and_an_unfinished_one_is_not(
    finished, setting, tmp_path, monkeypatch
):
    run_dir, _ = finished

    def solved(*_, **__):
        raise InterruptedError("solved again")

    monkeypatch.setattr(ntk, "fine_tune_exactly", solved)
    where, options = run_dir / "seed_0/exact/toy_a", setting.config.exact
    before = TaskVector.load(where / "task_vector.safetensors")
    again = exact.fine_tune(setting, options, "toy_a", where)
    assert all((again.delta[n] == before.delta[n]).all() for n in before.delta)
    with pytest.raises(InterruptedError):
        exact.fine_tune(setting, options, "toy_a", tmp_path)
    assert not (tmp_path / "done.json").exists()
    with pytest.raises(InterruptedError):
        exact.fine_tune(setting, options, "toy_a", tmp_path)
    with pytest.raises(RunMismatchError, match="l2"):
        exact.fine_tune(setting, dataclasses.replace(options, l2=1.0), "toy_a", where)


@pytest.mark.parametrize(
    ("change", "says"), [({"l2": 0.0}, r"exact\.l2"), ({"max_iterations": 0}, "max_iterations")]
)
def test_options_without_an_optimum_are_refused(change, says):
    with pytest.raises(config.ConfigError, match=says):
        config.ExactConfig(**change)
