"""Kernel behaviour against width on its smallest preset, and its parts against closed forms."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest

import linearize as lz
from configs.width import PRESETS as WIDTH
from experiments import report
from experiments.width import run as width
from experiments.width import scaling
from experiments.width.results import Measured, Slopes
from linearize.config import ConfigError
from linearize.examples import Examples
from linearize.report import ResultsError, schema

pytestmark = pytest.mark.slow

DEBUG = WIDTH["debug"]()
close = np.testing.assert_allclose


@pytest.fixture(scope="module")
def examples():
    return width.load(DEBUG)


@pytest.fixture(scope="module")
def finished(debug_run):
    return debug_run("width")


def results_of(run_dir):
    return json.loads((run_dir / "results.json").read_text())


class TestRun:
    def test_every_measure_has_its_shape(self, finished):
        results = results_of(finished)
        S, W, T = len(DEBUG.seeds), len(DEBUG.widths), len(DEBUG.steps)
        for name in ("drift", "gap", "gap_at_theta", "input", "hidden", "output", "distance"):
            assert np.shape(results["measured"][name]) == (S, W, T)
            assert np.min(results["measured"][name]) > 0
        for name in ("ntk_error", "nngp_error"):
            assert np.shape(results["measured"][name]) == (DEBUG.draws, W)
        assert {p.stem for p in (finished / "figures").glob("*.png")} == {"scaling", "in_time"}
        assert {p.stem for p in (finished / "tables").glob("*.md")} == {
            *("claims", "slopes", "by_width", "learning"),
        }
        assert (finished / "report.html").stat().st_size > 10_000

    def test_the_table_shows_the_slopes_of_the_measurements(self, finished):
        results = results_of(finished)
        ratio = np.divide(*np.max(results["measured"]["drift"], -1).T)
        expected = f"{-np.log2(ratio).mean():.3f}".replace("-", "−")
        table = (finished / "tables" / "slopes.md").read_text()
        assert f"| Drift of the NTK | ≤ −1/2, near −1 | {expected} ±" in table

    def test_both_models_learn_from_the_same_start(self, finished):
        measured = results_of(finished)["measured"]
        for f in ("f", "f_lin"):
            loss = np.asarray(measured[f]["loss"])
            assert (loss[..., -1] < loss[..., 0]).all()
            assert (loss[..., 0] < 1).all()

    def test_largest_values_along_training_are_fitted(self, finished):
        record = results_of(finished)["measured"]
        for values in record["drift"]:
            values[0][0] = 7.0
        measured = schema.read(Measured, record)
        assert list(measured.largest["drift"][:, 0]) == [7.0] * len(DEBUG.seeds)
        np.testing.assert_array_equal(measured.largest["ntk_error"], record["ntk_error"])
        without = {name: value for name, value in record.items() if name != "hidden"}
        assert "hidden" not in schema.read(Measured, without).largest

    @pytest.mark.parametrize(
        ("where", "message"),
        [
            ("measured/drift", "measured/drift has shape"),
            ("measured/f/accuracy", "measured/f/accuracy has shape"),
            ("slopes/ntk_error/all", "slopes/ntk_error/all has shape"),
            ("slopes/gap", "slopes/gap/fit has 0 entries, not 2"),
        ],
    )
    def test_a_result_that_does_not_fit_is_named(self, finished, tmp_path, where, message):
        results = results_of(finished)
        *outer, name = where.split("/")
        inner = functools.reduce(dict.__getitem__, outer, results)
        if isinstance(inner[name], list):
            inner[name] = inner[name][:1]
        else:
            del inner[name]
        (tmp_path / "results.json").write_text(json.dumps(results))
        with pytest.raises(ResultsError, match=message):
            report.read_page(tmp_path)


class TestParts:
    def test_training_in_double_precision_is_the_closed_form(self, examples):
        """The loop on f_lin, whose loss is a mean, against gradient descent on the summed loss."""
        setting = dataclasses.replace(DEBUG, depth=1, bias_std=None, float64=True)
        with jax.enable_x64(True):
            f, params0 = width.network(setting, examples, 32, seed=0)
            rate = width.learning_rate(setting, examples, 32)
            f_lin = lz.linearize(f, params0)
            taus = width.train(setting, f_lin, params0, examples, rate)
            K = width.kernel(f, params0, examples.x)
            f0 = width.outputs(f, params0, examples)
            N = examples.train
            dual = lz.ntk.gradient_descent(
                K[:N, :N], f0[:N], examples.y[:N], rate, np.asarray(DEBUG.steps)
            )
            predicted = lz.ntk.predict(dual, K[:, :N], f0)
            for step, expected in zip(DEBUG.steps, predicted, strict=True):
                trained = taus[step].apply_to(params0, scale=1.0)
                assert trained["input"]["kernel"].dtype == np.float64
                close(f_lin(trained, examples.x), expected, rtol=1e-9, atol=1e-11)
            assert np.abs(predicted[-1] - f0).max() > 0.1

    @pytest.mark.parametrize("parametrization", ["ntk", "standard"])
    def test_the_last_layer_gives_the_nngp_kernel(self, examples, parametrization):
        """σ_w²/n h hᵀ + σ_b² of the last hidden activations h, computed without JAX."""
        setting = dataclasses.replace(DEBUG, depth=1, parametrization=parametrization)
        f, params = width.network(setting, examples, 32, seed=0)
        features = width.last_layer(f, params, examples) / examples.y.shape[1]
        layer = {k: np.asarray(v, np.float64) for k, v in params["input"].items()}
        x = examples.x[: examples.train].astype(np.float64)
        w, b = setting.weight_std / x.shape[1] ** 0.5, setting.bias_std
        w, b = (w, b) if parametrization == "ntk" else (1.0, 1.0)
        h = np.maximum(w * x @ layer["kernel"] + b * layer["bias"], 0)
        expected = setting.weight_std**2 / 32 * h @ h.T + setting.bias_std**2
        close(width.nngp(setting, 32, features), expected, rtol=1e-5)

    def test_a_learning_rate_beyond_a_narrow_network_is_explained(self, examples):
        with pytest.raises(ConfigError, match=r"rate=0\.95: too large for width 32 with seed 0"):
            width.at_width(dataclasses.replace(DEBUG, rate=0.95), examples, 32, seed=0)

    def test_inputs_are_centred_and_of_one_norm(self):
        images = np.random.default_rng(0).integers(0, 255, (3, 4, 4, 3)).astype(np.uint8)
        images[1] = 7
        x = width.vectors(Examples(images), scale=0.5)
        close(x.mean(1), 0, atol=1e-6)
        close((x**2).sum(1), [4, 0, 4], rtol=1e-5)
        grey = images[2].mean(-1).ravel()
        assert np.corrcoef(x[2], grey)[0, 1] == pytest.approx(1, abs=1e-6)

    def test_targets_are_one_hot_around_zero(self, examples):
        C = examples.y.shape[1]
        close(examples.y.sum(1), 0, atol=1e-6)
        close(np.take_along_axis(examples.y, examples.labels[:, None], 1), 1 - 1 / C, rtol=1e-6)


class TestScaling:
    WIDTHS = (16, 64, 256, 1024)

    def measured(self, exponent, noise=0.0, seeds=5):
        rng = np.random.default_rng(0)
        power = np.power(np.array(self.WIDTHS, float), exponent)
        tilt = np.log(self.WIDTHS) * noise * rng.normal(size=(seeds, 1))
        return power * np.exp(tilt)

    @staticmethod
    def slopes(values):
        return Slopes(np.array(values), np.array(values))

    def test_powers_have_their_exponent(self):
        values = {"drift": self.measured(-0.7), "ntk_error": self.measured(-0.5)}
        found = scaling.slopes(values, self.WIDTHS, fit_from=64)
        assert list(found) == ["drift", "ntk_error"]
        close(found["drift"]["fit"], -0.7)
        close(found["ntk_error"]["all"], -0.5)

    def test_only_fitted_widths_enter(self):
        bent = self.measured(-1.0)
        bent[:, 0] *= 100
        found = scaling.slopes({"gap": bent}, self.WIDTHS, fit_from=64)["gap"]
        close(found["fit"], -1.0)
        assert max(found["all"]) < -1.1

    @pytest.mark.parametrize(
        ("quantity", "slopes", "held"),
        [
            ("gap", [-0.9, -0.8, -1.0], True),
            ("gap", [-0.3, -0.31, -0.29], False),
            ("gap", [-0.9, -0.1, -0.6], None),
            ("gap", [-0.9], None),
            ("ntk_error", [-0.5, -0.52, -0.48], True),
            ("ntk_error", [-0.9, -0.88, -0.92], False),
            ("ntk_error", [-0.9, -0.1, -0.5], None),
            ("ntk_error", [-0.5], None),
            ("distance", [0.0, 0.01, -0.01], True),
            ("distance", [-0.5, -0.51, -0.49], True),
            ("distance", [0.5, 0.51, 0.49], False),
        ],
    )
    def test_claims_are_decided_by_intervals_alone(self, quantity, slopes, held):
        found = scaling.judge({quantity: self.slopes(slopes)}, "ntk")
        assert [verdict.held for verdict in found] == [held]

    def test_claims_about_one_parametrization_stay_there(self):
        slopes = {law.quantity: self.slopes([-1.0, -1.0]) for law in scaling.LAWS}
        assert len(scaling.judge(slopes, "ntk")) == len(scaling.LAWS)
        kept = sum(not law.ntk_only for law in scaling.LAWS)
        assert len(scaling.judge(slopes, "standard")) == kept


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": (64, 32)}, "widths=.*ascending"),
        ({"widths": ()}, "widths="),
        ({"steps": (0, 4)}, r"steps\[0\]=0"),
        ({"fit_from": 64}, "fit_from=64"),
        ({"rate": 1.0}, "rate=1.0"),
        ({"scale": 0.0}, "scale=0.0"),
        ({"seeds": (1, 1)}, "seeds="),
        ({"bias_std": 0.0}, "bias_std=0.0"),
        ({"parametrization": "mup"}, "parametrization='mup'"),
        ({"depth": 0}, "depth=0"),
    ],
)
def test_configurations_that_cannot_run_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(DEBUG, **change)
