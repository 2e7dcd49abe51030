"""Names, arithmetic, and errors that name the key path."""

import gc
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import linearize as lz
from linearize import tree
from linearize.task_vector import TaskVector


@pytest.fixture
def params():
    return {
        "blocks": [{"kernel": jnp.arange(6.0).reshape(2, 3)}, {"kernel": jnp.ones((3, 2))}],
        "norm": (jnp.ones(2, jnp.bfloat16),),
        "step": jnp.array(3),
        "rng": jax.random.key(0),
    }


class TestNames:
    def test_nested_flat_and_vector_agree(self, params):
        names = ("blocks/0/kernel", "blocks/1/kernel", "norm/0", "rng", "step")
        assert tree.names(params) == names
        assert tree.names(tree.flatten(params)) == names
        assert tree.names(TaskVector(tree.flatten(params))) == names

    def test_registered_dataclasses_are_named_by_field(self):
        @jax.tree_util.register_dataclass
        @__import__("dataclasses").dataclass
        class Head:
            kernel: jax.Array

        assert tree.names({"head": Head(jnp.ones(2))}) == ("head/kernel",)

    def test_select(self, params):
        assert tree.select(params) == ("blocks/0/kernel", "blocks/1/kernel", "norm/0")
        assert tree.select(params, r"blocks/1") == ("blocks/1/kernel",)
        assert tree.select(params, ["^norm", "0/kernel"]) == ("blocks/0/kernel", "norm/0")

    def test_a_pattern_that_is_none(self, params):
        with pytest.raises(ValueError, match=r"pattern=\['norm', '\('\] is no regular expression"):
            tree.select(params, ["norm", "("])

    @pytest.mark.parametrize("pattern", ["attention", "step", ["rng", "x"]])
    def test_select_of_nothing_shows_names(self, params, pattern):
        with pytest.raises(ValueError, match=r"picks no trainable leaf.*blocks/0/kernel"):
            tree.select(params, pattern)

    def test_update_keeps_structure_and_other_leaves(self, params):
        new = tree.update(params, {"norm/0": jnp.zeros(2)})
        assert jax.tree.structure(new) == jax.tree.structure(params)
        assert new["blocks"][0]["kernel"] is params["blocks"][0]["kernel"]
        np.testing.assert_array_equal(new["norm"][0], np.zeros(2))


class TestArithmetic:
    def test_add_then_subtract(self, params):
        delta = {"blocks/0/kernel": jnp.full((2, 3), 0.5), "norm/0": jnp.full(2, 0.25)}
        moved = tree.add(params, delta, scale=2.0)
        assert moved["norm"][0].dtype == jnp.bfloat16
        back = tree.subtract(moved, params)
        assert all(d.dtype == jnp.float32 for d in back.values())
        np.testing.assert_array_equal(back["blocks/0/kernel"], np.ones((2, 3)))
        np.testing.assert_array_equal(back["norm/0"], np.full(2, 0.5))
        np.testing.assert_array_equal(back["blocks/1/kernel"], np.zeros((3, 2)))
        assert set(back) == set(tree.select(params))

    def test_sum_is_taken_in_float32(self):
        """1 + 2^-8 · 3 rounds up in bfloat16; a scale taken in bfloat16 first would not."""
        leaf, delta = jnp.ones(1, jnp.bfloat16), jnp.array([1.001])
        out = tree.add({"w": leaf}, {"w": delta}, scale=0.01171)
        expected = jnp.asarray(np.float32(1) + np.float32(0.01171) * np.float32(1.001))
        assert out["w"][0] == expected.astype(jnp.bfloat16)

    def test_norm_and_dot(self):
        a, b = {"x": jnp.array([3.0, 0.0])}, {"x": jnp.array([1.0, 2.0])}
        assert tree.dot(a, b) == 3
        assert tree.norm({"x": jnp.array([3.0]), "y": jnp.array([[4.0]])}) == 5
        assert tree.norm({"z": jnp.array([3 + 4j])}) == 5

    def test_dot_of_bfloat16_is_summed_in_float32(self):
        ones = {"w": jnp.ones(1000, jnp.bfloat16)}
        assert tree.dot(ones, ones) == 1000
        assert tree.dot(ones, ones).dtype == jnp.float32

    def test_norm_has_a_gradient_at_zero(self):
        gradient = jax.grad(lambda x: tree.norm({"x": x}))
        np.testing.assert_array_equal(gradient(jnp.zeros(3)), np.zeros(3))
        np.testing.assert_allclose(gradient(jnp.array([3.0, 4.0])), [0.6, 0.8])

    def test_dot_of_other_names(self):
        with pytest.raises(tree.StructureMismatch, match="missing: x"):
            tree.dot({"x": jnp.ones(2)}, {"y": jnp.ones(2)})


class TestErrors:
    def test_one_error_lists_everything(self, params):
        flat = tree.flatten(params)
        wrong = {**flat, "blocks/0/kernel": jnp.ones((3, 3)), "nrm/0": flat["norm/0"]}
        del wrong["norm/0"], wrong["step"]
        with pytest.raises(tree.StructureMismatch) as caught:
            tree.check_match(params, wrong, what="checkpoint")
        message = str(caught.value)
        for part in (
            "checkpoint",
            "4 problem(s)",
            "mis-shaped: blocks/0/kernel is (3, 3), expected (2, 3)",
            "extra: nrm/0; did you mean 'norm/0'?",
            "missing: norm/0",
            "missing: step",
        ):
            assert part in message
        assert tree.differences(params, {}, subset=True) == []

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, jnp.bfloat16])
    def test_non_finite_leaves_are_named(self, params, dtype):
        tree.check_finite(params)
        bad = np.ones((2, 2)).astype(dtype)
        bad[0, 1] = np.nan
        bad[1, 1] = -np.inf
        with pytest.raises(tree.NonFiniteError, match=r"weights.*\n  bad/w: 2 of 4$"):
            tree.check_finite({**params, "bad": {"w": bad}}, what="weights")


class TestFingerprint:
    def test_depends_on_values_names_dtypes_and_shapes(self):
        base = {"a": np.zeros((2, 3), np.float32)}
        variants = [
            base,
            {"b": base["a"]},
            {"a": base["a"].reshape(3, 2)},
            {"a": base["a"].astype(jnp.bfloat16)},
            {"a": base["a"].astype(np.int32)},
            {"a": np.nextafter(base["a"], 1)},
            {"a": -base["a"]},
            {"a": base["a"], "b": base["a"]},
        ]
        assert len({tree.fingerprint(v) for v in variants}) == len(variants)

    def test_same_for_numpy_jax_nested_and_flat(self, params):
        expected = tree.fingerprint(params)
        assert tree.fingerprint(tree.flatten(params)) == expected
        plain = {n: np.asarray(v) for n, v in tree.flatten(params).items() if n != "rng"}
        assert tree.fingerprint({**plain, "rng": params["rng"]}) == expected
        assert tree.fingerprint(jax.tree.map(lambda a: a.copy(), params)) == expected

    def test_scalars_and_vectors_of_one_differ(self):
        assert tree.fingerprint({"a": jnp.ones(())}) != tree.fingerprint({"a": jnp.ones(1)})

    def test_changed_numpy_array_is_read_again(self):
        leaf = np.zeros(3)
        before = tree.fingerprint({"a": leaf})
        leaf[0] = 1
        assert tree.fingerprint({"a": leaf}) != before

    def test_forgets_arrays_that_died(self):
        gc.collect()
        before = len(tree._DIGESTS)
        leaves = [jnp.full(3, i) for i in range(50)]
        digests = {tree.fingerprint({"a": leaf}) for leaf in leaves}
        assert len(digests) == 50
        del leaves
        gc.collect()
        assert len(tree._DIGESTS) == before

    def test_not_under_jit(self):
        with pytest.raises(TypeError, match="a is traced"):
            jax.jit(lambda a: tree.fingerprint({"a": a}))(jnp.ones(2))


def test_norm_of_nan_is_nan_and_of_zero_is_zero():
    assert np.isnan(tree.norm({"w": jnp.array([1.0, jnp.nan])}))
    assert np.isinf(tree.norm({"w": jnp.array([jnp.inf])}))
    assert tree.norm({"w": jnp.zeros(3)}) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("other", [0.0, 1.0, np.nan])
def test_a_cosine_with_what_is_not_finite_is_nan_and_not_a_right_angle(value, other):
    given, beside = {"w": jnp.array([1.0, value])}, {"w": jnp.full(2, other)}
    assert np.isnan(tree.cosine(given, beside))
    assert np.isnan(tree.cosine(beside, given))
    assert tree.cosine({"w": jnp.zeros(2)}, {"w": jnp.ones(2)}) == 0


class Pair(NamedTuple):
    a: object
    b: object


class TestOneName:
    @pytest.mark.parametrize(
        "params",
        [
            {"a": {"b": np.zeros(2)}, "a/b": np.ones(2)},
            {"a": [np.zeros(2)], "a/0": np.ones(2)},
            {"x": Pair({"k": 0.0}, 1.0), "x/a/k": 2.0},
            {"": {"a": 1.0}, "/a": 2.0},
        ],
    )
    def test_two_leaves_of_one_name_are_refused_everywhere(self, params):
        for use in (
            tree.flatten, tree.select, tree.zeros, tree.norm, tree.fingerprint, tree.check_finite,
            lambda p: tree.update(p, {}), lambda p: lz.linearize(lambda q: q, p)(p),
            lambda p: lz.TaskVector.between(p, p),
        ):  # fmt: skip
            with pytest.raises(tree.StructureMismatch, match="some have one name"):
                use(params)

    def test_the_message_shows_both_places(self):
        with pytest.raises(tree.StructureMismatch, match=r"a/b: \['a'\]\['b'\] and \['a/b'\]"):
            tree.flatten({"a": {"b": 1.0}, "a/b": 2.0})

    def test_names_with_a_slash_stay_welcome(self):
        assert tree.names({"a/b": 1.0, "a": {"c": 2.0}}) == ("a/c", "a/b")


class TestSizes:
    @pytest.mark.parametrize("scale", [1e-35, 1e-30, 1e-20, 1.0, 1e19, 1e30, 3e37])
    def test_norms_and_cosines_neither_vanish_nor_overflow(self, scale):
        rng = np.random.default_rng(0)
        x, y = (rng.normal(size=6).astype(np.float32) for _ in range(2))
        size = np.float32(scale)
        split = {"a": size * x[:2], "b": {"c": size * x[2:]}}
        exact = np.linalg.norm((size * x).astype(np.float64))
        np.testing.assert_allclose(float(tree.norm(split)), exact, rtol=3e-7)
        other = {"a": y[:2], "b": {"c": y[2:]}}
        angle = x.astype(float) @ y / np.linalg.norm(x.astype(float)) / np.linalg.norm(y)
        np.testing.assert_allclose(float(tree.cosine(split, other)), angle, rtol=2e-5, atol=2e-7)
        gradient = jax.grad(tree.norm)(split)
        np.testing.assert_allclose(gradient["a"], size * x[:2] / exact, rtol=1e-6)

    def test_ordinary_norms_are_the_plain_root_of_squares_to_the_last_bit(self):
        x = np.random.default_rng(1).normal(size=(50, 7)).astype(np.float32)
        for row in x * np.float32(10.0) ** np.arange(-12, 13, 0.5, dtype=np.float32)[:, None]:
            plain = jnp.sqrt(jnp.vdot(row, row))
            assert float(tree.norm(row)) == float(plain)

    def test_what_is_not_finite_stays_so(self):
        assert float(tree.norm({"a": jnp.array([1.0, jnp.inf])})) == np.inf
        assert np.isnan(float(tree.norm({"a": jnp.array([1.0, jnp.nan])})))
        assert float(tree.norm({"a": jnp.zeros(2)})) == 0

    def test_keys_have_no_size(self):
        params = {"w": jnp.array([3.0, 4.0]), "key": jax.random.key(0), "step": jnp.array(12)}
        assert float(tree.norm(params)) == 13
        assert float(tree.dot(params, params)) == 169
        assert float(tree.cosine(params, params)) == pytest.approx(1)
