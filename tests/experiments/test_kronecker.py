"""The quality of the factorisation on the smallest preset, against dense derivatives."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from configs.kronecker import PRESETS
from experiments import protocol
from experiments.kronecker import results as results_of
from experiments.kronecker import run
from linearize import tree
from linearize.config import ConfigError
from linearize.study import Store
from linearize.task_vector import TaskVector

close = np.testing.assert_allclose
DEBUG = PRESETS["debug"]()
NAMES = DEBUG.setting.data.tasks
LONGER = dataclasses.replace(
    DEBUG.setting,
    methods=("tak",),
    training={"tak": dataclasses.replace(DEBUG.setting.linear, steps=30)},
)


@pytest.mark.slow
def test_exact_numbers_are_those_of_dense_jacobians(finished, results):
    assert results["along"] == [5, 10, DEBUG.setting.linear.steps]
    tasks, store = protocol.load_tasks(DEBUG.setting), Store.of(finished / "seed_0")
    study, layers = protocol.study(DEBUG.setting, tasks, 0, store), results["layers"]
    x = study.split(NAMES[1], "test").take(slice(DEBUG.exact)).inputs
    params = study.model.params

    def features(params):
        y = study.model.f(params, x)
        return y / jnp.linalg.norm(y, axis=-1, keepdims=True)

    jac = tree.flatten(jax.jacrev(features)(params))
    path = finished / "seed_0" / "tak" / NAMES[0] / "vectors" / "step_10.safetensors"
    tau = TaskVector.load(path).delta
    moved = {
        n: np.einsum("ncp,p->nc", np.asarray(jac[n]).reshape(len(x), -1, t.size), np.ravel(t))
        for n, t in tau.items()
    }
    found = results["methods"]["tak"]
    close(found["whole"][0][1][1][0], (sum(moved.values()) ** 2).sum(-1).mean(), rtol=1e-3)
    for label, value in zip(layers, found["exact"][0][1][1][0], strict=True):
        bias = label.replace("kernel", "bias")
        own = moved[label] + (moved[bias] if bias not in layers and bias in moved else 0)
        close(value, (own**2).sum(-1).mean(), rtol=1e-3)
    assert len(layers) == len(found["estimates"]["1"][0][0][0][0])


@pytest.mark.slow
def test_a_method_that_trains_with_the_control_task_has_it(tmp_path):
    setting = dataclasses.replace(DEBUG.setting, seeds=(0,))
    run.run(dataclasses.replace(DEBUG, setting=setting, methods=("tak_with_control",)), tmp_path)
    record = json.loads((tmp_path / "results.json").read_text())
    assert np.shape(record["methods"]["tak_with_control"]["whole"])[-2:] == (len(NAMES),) * 2


def test_layers_that_are_frozen_are_left_out_of_relations():
    rng = np.random.default_rng(0)
    exact, estimate = rng.uniform(1, 2, (2, 2, 1, 3, 3, 4))
    whole, merged = exact.sum(-1), rng.uniform(1, 2, (2, 1, 3))
    over = results_of.OverTasks(0.5, 0.0, 1.0)

    def method(exact, estimate):
        return results_of.Method(exact, whole, {"1": estimate}, merged, over)

    still = [np.insert(x, 2, 0.0, axis=-1) for x in (exact, estimate)]
    without, frozen = method(exact, estimate), method(*still)
    assert frozen.moves.tolist() == [True, True, False, True, True]
    for kind in ("pairs", "layers", "within"):
        for ranks in (True, False):
            close(frozen.correlation(kind, ranks=ranks), without.correlation(kind, ranks=ranks))
    close(frozen.log_ratio(), without.log_ratio())
    close(frozen.log_layers(), without.log_layers())


def test_rank_correlations_share_the_ranks_of_equal_numbers():
    rng = np.random.default_rng(0)
    a, b = rng.integers(1, 4, (2, 3, 12)).astype(float)
    found = results_of.correlation(a, b, ranks=True)
    close(found, [stats.spearmanr(*rows).statistic for rows in zip(a, b, strict=True)])
    assert np.isnan(results_of.correlation(np.ones((1, 12)), b[:1], ranks=True))


def test_a_method_s_own_recipe_keeps_its_vectors_too():
    same = dataclasses.replace(LONGER, training={"tak": DEBUG.setting.linear})
    kept = run.keeping(dataclasses.replace(DEBUG, setting=same))
    assert kept.linear.save_vectors_at == kept.training["tak"].save_vectors_at == DEBUG.steps


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": ()}, "steps"),
        ({"steps": (5, 20)}, r"must end before setting\.linear\.steps=20"),
        ({"probes": (8, 1)}, "probes.*ascending"),
        ({"methods": ("nonlinear",)}, "trained in the tangent space"),
        ({"methods": ("tak", "takk")}, "trained in the tangent space"),
        ({"methods": ("linear", "exact")}, "step by step"),
        ({"setting": dataclasses.replace(DEBUG.setting, epochs={NAMES[0]: 3.0})}, "give steps"),
        ({"setting": LONGER}, r"setting\.training\.tak\.steps=30: all train for .*steps=20"),
    ],
)
def test_a_configuration_that_cannot_be_run_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(DEBUG, **change)
