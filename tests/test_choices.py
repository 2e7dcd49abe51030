"""Names out of a set, and former names of arguments."""

import jax.numpy as jnp
import numpy as np
import pytest

import linearize as lz
from linearize.choices import hint, one_of, row
from linearize.renamed import renamed

REGIMES = ("nonlinear", "posthoc", "linear")
FORMER = (
    "approximate_kernel",
    "feature_change",
    "fine_tune_exactly",
    "gauss_newton",
    "kernel",
    "to_task_vector",
    "vector_product",
)


class RefusedError(ValueError):
    pass


@pytest.mark.parametrize(
    ("given", "end"),
    [
        ("post-hoc", r"'linear'; did you mean 'posthoc'\?$"),
        ("zzz", "'posthoc', 'linear'$"),
        (None, "=None is not one of"),
        (np.array(["linear", "posthoc"]), "is not one of"),
    ],
)
def test_a_value_that_is_no_option_is_answered_with_the_nearest(given, end):
    with pytest.raises(RefusedError, match=end):
        one_of("regime", given, REGIMES, RefusedError)


def test_a_name_that_no_row_has_is_answered_with_the_nearest_or_all():
    assert row("model", "vit", {"vit": 1}) == 1
    ends = {"vitt": r"did you mean 'vit'\?", "zzz": "there are: mlp, vit", (): r"is named \(\)"}
    for name, end in ends.items():
        with pytest.raises(KeyError, match=end):
            row("model", name, {"mlp": 0, "vit": 1}, KeyError)


def test_what_is_no_text_is_compared_as_it_is_printed():
    assert hint(16, (8, 160)) == "; did you mean '160'?"
    assert hint("x", (), "look there") == "; look there"
    assert hint("adamq", ("sgd", "adam", "adamw"), most=3) == "; did you mean 'adam' or 'adamw'?"


@pytest.mark.parametrize("name", FORMER)
def test_the_trained_leaves_have_one_name(name):
    with (
        pytest.warns(DeprecationWarning, match=f"{name}: params_filter is now named trainable"),
        pytest.raises(TypeError, match="missing"),
    ):
        getattr(lz.ntk, name)(params_filter="w")


def test_a_former_name_means_what_the_present_one_means():
    params, x = {"w": jnp.ones((2, 1)), "b": jnp.ones(1)}, np.ones((3, 2), np.float32)

    def kernel(**leaves):
        return lz.ntk.kernel(lambda p, x: jnp.sin(x @ p["w"] + p["b"][None]), params, x, **leaves)

    with pytest.warns(DeprecationWarning, match="trainable") as caught:
        former = kernel(params_filter="b")
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(former, kernel(trainable="b"))
    assert not np.array_equal(former, kernel())


@pytest.mark.parametrize("given", [{"old": 1, "new": 2}, {"new": 2, "old": 1}])
def test_both_names_at_once_are_refused(given):
    with pytest.raises(TypeError, match="old is now named new; give new alone"):
        renamed(old="new")(lambda *, new: new)(**given)


def test_a_thing_s_former_name_gives_the_thing():
    for module in (lz.edit, lz.edit.optimal):
        with pytest.warns(DeprecationWarning, match="Optimum is now named OptimalCoeff") as caught:
            former = module.Optimum
        assert caught[0].filename == __file__
        assert former is lz.edit.OptimalCoefficients
        with pytest.raises(AttributeError, match="has no attribute 'optimum'"):
            _ = module.optimum
