"""Task vectors as values: their algebra, their base, their files."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from linearize import TaskVector, affine_terms, io, tangent, tree


def theta(seed):
    a, b = jax.random.normal(jax.random.key(seed), (2, 6))
    return {
        "attn": {"kernel": a.reshape(2, 3)},
        "mlp": [{"bias": b[:2].astype(jnp.bfloat16)}, {"kernel": b[2:]}],
        "step": jnp.array(seed),
    }


BASE = theta(0)


@pytest.fixture
def a():
    return TaskVector.between(BASE, theta(1), meta={"task": "a", "regime": "linear"})


@pytest.fixture
def b():
    return TaskVector.between(BASE, theta(2), meta={"task": "b", "regime": "linear"})


def assert_same(one, two):
    assert sorted(one.delta) == sorted(two.delta)
    for n, d in one.delta.items():
        np.testing.assert_allclose(d, two.delta[n], rtol=1e-6, atol=1e-7)


class TestBetween:
    def test_holds_trainable_leaves_in_float32(self, a):
        assert list(a.delta) == ["attn/kernel", "mlp/0/bias", "mlp/1/kernel"]
        assert {d.dtype for d in a.delta.values()} == {jnp.dtype("float32")}
        np.testing.assert_array_equal(
            a.delta["attn/kernel"], theta(1)["attn"]["kernel"] - BASE["attn"]["kernel"]
        )
        assert a.base == tree.fingerprint(BASE)

    def test_some_leaves(self):
        assert list(TaskVector.between(BASE, theta(1), trainable="mlp").delta) == [
            "mlp/0/bias",
            "mlp/1/kernel",
        ]

    def test_other_structure(self):
        with pytest.raises(tree.StructureMismatch, match="missing: step"):
            TaskVector.between(BASE, {k: v for k, v in theta(1).items() if k != "step"})

    def test_not_a_number_is_named(self):
        broken = theta(1)
        broken["attn"]["kernel"] = broken["attn"]["kernel"].at[0, 0].set(jnp.nan)
        with pytest.raises(tree.NonFiniteError, match=r"params holds .*\n *attn/kernel: 1 of 6"):
            TaskVector.between(BASE, broken)
        with pytest.raises(tree.NonFiniteError, match="params0 holds"):
            TaskVector.between(broken, theta(1))

    def test_apply_is_the_inverse(self, a):
        edited = a.apply_to(BASE)
        for n, leaf in tree.flatten(edited).items():
            expected = tree.flatten(BASE if n == "step" else theta(1))[n]
            assert leaf.dtype == expected.dtype
            np.testing.assert_allclose(
                np.asarray(leaf, np.float64), np.asarray(expected, np.float64), atol=1e-6
            )
        assert jax.tree.structure(edited) == jax.tree.structure(BASE)


class TestAlgebra:
    def test_vector_space(self, a, b):
        assert_same(a + b, b + a)
        assert_same((a + b) - b, a)
        assert_same(-a, -1 * a)
        assert_same(a + -a, 0 * a)
        assert_same(2 * (a + b), a * 2 + b * 2)
        assert_same((a / 4) * 4, a)
        assert_same(sum([a, b, a]), a + b + a)
        assert_same(0 + a, a)
        assert_same(a - a, 0 * a)
        np.testing.assert_array_equal(
            (0.5 * a - b).delta["mlp/1/kernel"],
            0.5 * a.delta["mlp/1/kernel"] - b.delta["mlp/1/kernel"],
        )

    @pytest.mark.parametrize(
        "scalar", [2, 2.0, np.float32(2), np.float64(2), np.int64(2), np.array(2.0), jnp.array(2.0)]
    )
    def test_every_scalar_on_either_side(self, a, scalar):
        for scaled in (scalar * a, a * scalar):
            assert isinstance(scaled, TaskVector)
            assert_same(scaled, a + a)
            assert scaled.delta["attn/kernel"].dtype == jnp.float32
        assert_same(a / scalar, a * 0.5)

    @pytest.mark.parametrize("other", [1, "x", None, np.ones(3), jnp.ones(3)])
    def test_what_is_no_vector_is_refused(self, a, other):
        for operation in (lambda: a + other, lambda: a - other, lambda: other + a):
            with pytest.raises(TypeError):
                operation()

    @pytest.mark.parametrize("other", ["x", None, np.ones(3), jnp.ones(3), [2.0]])
    def test_what_is_no_scalar_is_refused(self, a, other):
        for operation in (lambda: a * other, lambda: other * a, lambda: a / other, lambda: a * a):
            with pytest.raises(TypeError):
                operation()

    def test_geometry(self, a, b):
        flat = [
            np.concatenate([np.ravel(v.delta[n]).astype(np.float64) for n in a.delta])
            for v in (a, b)
        ]
        np.testing.assert_allclose(a.dot(b), flat[0] @ flat[1], rtol=1e-5)
        np.testing.assert_allclose(a.norm(), np.linalg.norm(flat[0]), rtol=1e-6)
        cosine = flat[0] @ flat[1] / np.linalg.norm(flat[0]) / np.linalg.norm(flat[1])
        np.testing.assert_allclose(a.cosine(b), cosine, rtol=1e-5)
        np.testing.assert_allclose(a.cosine(-3 * a), -1, rtol=1e-6)
        assert set(a.norms()) == set(a.delta)
        np.testing.assert_allclose(a.norm() ** 2, sum(n**2 for n in a.norms().values()), rtol=1e-6)

    def test_zero_vectors_have_no_nan(self, a):
        zero = 0 * a
        assert zero.norm() == 0
        assert zero.cosine(a) == zero.cosine(zero) == 0
        for f in (lambda v: v.norm(), lambda v: v.cosine(a), lambda v: v.cosine(v)):
            gradient = jax.grad(f)(zero)
            assert all(np.isfinite(g).all() for g in gradient.delta.values())

    def test_meta_of_a_sum_is_what_both_agree_on(self, a, b):
        assert (a + b).meta == {"regime": "linear"}
        assert (0.5 * a).meta == a.meta

    def test_select(self, a):
        assert list(a.select("mlp").delta) == ["mlp/0/bias", "mlp/1/kernel"]
        assert list(a.select(["attn", "bias$"]).delta) == ["attn/kernel", "mlp/0/bias"]
        assert a.select("mlp").base == a.base
        with pytest.raises(ValueError, match="pattern='head' picks no"):
            a.select("head")


class TestMismatch:
    def test_one_error_lists_base_names_and_shapes(self, a):
        delta = {"attn/kernel": jnp.ones((3, 3)), "mlp/0/bais": jnp.ones(2)}
        other = TaskVector({**delta, "mlp/1/kernel": a.delta["mlp/1/kernel"]}, base="f" * 64)
        for operation in (a.__add__, a.__sub__, a.dot, a.cosine):
            with pytest.raises(tree.StructureMismatch) as caught:
                operation(other)
            message = str(caught.value)
            for part in (
                "4 problem(s)",
                "another base model: fingerprint ffffffffffffffff",
                "mis-shaped: attn/kernel is (3, 3), expected (2, 3)",
                "extra: mlp/0/bais; did you mean 'mlp/0/bias'?",
                "missing: mlp/0/bias",
            ):
                assert part in message

    def test_another_base_alone(self, a):
        other = TaskVector.between(theta(5), theta(6))
        with pytest.raises(tree.StructureMismatch, match="another base model"):
            a + other
        with pytest.raises(tree.StructureMismatch, match="another base model"):
            sum([a, other])

    def test_unknown_base_joins_any(self, a):
        anonymous = TaskVector(a.delta)
        assert (anonymous + a).base == (a + anonymous).base == a.base

    def test_apply_to_another_base(self, a):
        with pytest.raises(
            tree.StructureMismatch, match=r"check_base=False[^\n]*\n  another base model"
        ):
            a.apply_to(theta(5))
        applied = a.apply_to(theta(5), check_base=False)
        np.testing.assert_allclose(
            applied["mlp"][1]["kernel"], theta(5)["mlp"][1]["kernel"] + a.delta["mlp/1/kernel"]
        )

    def test_apply_to_other_names(self, a):
        with pytest.raises(tree.StructureMismatch, match="extra: attn/kernel"):
            a.apply_to({"mlp": BASE["mlp"]}, check_base=False)


@pytest.mark.parametrize("kind", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("lazy", [False, True])
def test_sums_and_multiples_of_half_precision_are_those_of_the_same_numbers(kind, lazy, tmp_path):
    """Of 8 bits, 256 + 1 + 1 would be 256, and 1 + 1 + 256 would be 258."""
    drawn = np.random.default_rng(0).normal(size=(3, 64))
    given = [jnp.asarray(d, kind) for d in (*(np.full(1, s) for s in (256.0, 1.0, 1.0)), *drawn)]
    for halves in (given[:3], given[:3][::-1], given[3:]):
        taus = [TaskVector({"w": each}) for each in halves]
        if lazy:
            paths = [tau.save(tmp_path / str(i)) for i, tau in enumerate(taus)]
            taus = list(map(TaskVector.open, paths))
        a, b, c = (np.asarray(each, np.float64) for each in halves)
        for found, expected in (
            (sum(taus), a + b + c),
            (taus[0] - taus[1], a - b),
            (0.3 * taus[0] + taus[2] / 3, 0.3 * a + c / 3),
        ):
            assert found.delta["w"].dtype == jnp.float32
            error = np.abs(np.asarray(found.delta["w"]) - expected)
            assert (error <= 4 * np.finfo(np.float32).eps * (abs(a) + abs(b) + abs(c))).all()
        assert (-taus[0]).delta["w"].dtype == kind


class TestTransforms:
    def test_names_are_key_paths(self, a):
        assert tree.names(a) == ("attn/kernel", "mlp/0/bias", "mlp/1/kernel")

    def test_order_of_names_does_not_matter(self, a):
        backwards = TaskVector(dict(reversed(a.delta.items())), a.base, a.meta)
        assert jax.tree.structure(backwards) == jax.tree.structure(a)
        assert_same(jax.jit(lambda u, v: u + v)(a, backwards), 2 * a)

    def test_jit_returns_vectors(self, a, b):
        traces = []

        @jax.jit
        def mix(u, v, scale):
            traces.append(1)
            return u + scale * v

        out = mix(a, b, 0.5)
        assert_same(out, a + 0.5 * b)
        assert out.base == a.base
        assert out.meta == {"regime": "linear"}
        mix(2 * a, b, 0.25)
        assert len(traces) == 1

    def test_between_and_apply_under_jit(self, a):
        out = jax.jit(TaskVector.between)(BASE, theta(1))
        assert_same(out, a)
        assert out.base == ""
        applied = jax.jit(lambda v, p, s: v.apply_to(p, s))(a, BASE, 2.0)
        jax.tree.map(np.testing.assert_array_equal, applied, a.apply_to(BASE, 2.0))

    def test_vmap_over_coefficients(self, a):
        scales = jnp.array([0.0, 1.0, -2.0])
        stacked = jax.vmap(lambda s: a.apply_to(BASE, s))(scales)
        for i, s in enumerate(scales):
            jax.tree.map(
                np.testing.assert_array_equal,
                jax.tree.map(lambda x, i=i: x[i], stacked),
                a.apply_to(BASE, s),
            )

    def test_grad_and_scan(self, a, b):
        gradient = jax.grad(lambda v: 0.5 * v.dot(v))(a)
        assert isinstance(gradient, TaskVector)
        assert_same(gradient, a)
        last, norms = jax.lax.scan(lambda v, _: (0.5 * v, v.norm()), a, length=3)
        assert_same(last, a / 8)
        np.testing.assert_allclose(norms, a.norm() / 2.0 ** np.arange(3), rtol=1e-6)

    def test_the_expansion_takes_vectors(self, a, b):
        f = lambda p, x: jnp.sin(p["attn"]["kernel"] @ x) + p["mlp"][1]["kernel"].sum()  # noqa: E731
        x = jnp.ones(3)
        f0, jvps = affine_terms(f, BASE, [a, b], x)
        np.testing.assert_allclose(
            f0 + 0.5 * jvps[0] - jvps[1], tangent(f)(BASE, 0.5 * a - b, x), rtol=1e-5, atol=1e-5
        )


class TestFiles:
    def test_round_trip(self, a, tmp_path):
        config = {"rate": 1e-5, "steps": np.int64(10), "path": tmp_path}
        vector = TaskVector(a.delta, a.base, {**a.meta, "config": config})
        loaded = TaskVector.load(vector.save(tmp_path / "a.safetensors"))
        assert loaded.base == a.base
        assert loaded.meta["task"] == "a"
        assert loaded.meta["config"] == {"rate": 1e-5, "steps": 10, "path": str(tmp_path)}
        assert loaded.meta["versions"]["jax"] == jax.__version__
        assert list(loaded.delta) == sorted(a.delta)
        for n, d in a.delta.items():
            assert loaded.delta[n].dtype == d.dtype
            np.testing.assert_array_equal(loaded.delta[n], d)
        loaded.apply_to(BASE)  # the base is recognised again

    def test_bfloat16_round_trips(self, a, tmp_path):
        small = jax.tree.map(lambda d: d.astype(jnp.bfloat16), a)
        loaded = TaskVector.load(small.save(tmp_path / "a"))
        for n, d in small.delta.items():
            assert loaded.delta[n].dtype == jnp.bfloat16
            np.testing.assert_array_equal(loaded.delta[n], d)

    def test_is_keyed_by_parameter_name_for_all_readers(self, a, tmp_path):
        path = a.save(tmp_path / "a.safetensors")
        assert set(safetensors.numpy.load_file(path)) == set(a.delta)
        header = path.read_bytes()[8:]
        notes = json.JSONDecoder().raw_decode(header.decode("latin-1"))[0]["__metadata__"]
        assert notes["base"] == a.base
        assert json.loads(notes["meta"])["regime"] == "linear"

    def test_damage_is_found(self, a, tmp_path):
        path = a.save(tmp_path / "a")
        whole = path.read_bytes()
        for damaged in (whole[:-5], whole[:40], b"", whole[:-9] + b"\1" + whole[-8:]):
            path.write_bytes(damaged)
            with pytest.raises(io.CorruptFileError, match="delete it"):
                TaskVector.load(path)

    def test_weights_are_no_vector(self, tmp_path):
        path = io.save_tree(tmp_path / "weights", BASE)
        with pytest.raises(
            io.CorruptFileError, match=r"holds arrays but no task vector.*models.task_vector"
        ):
            TaskVector.load(path)

    def test_non_finite_vectors_are_not_written(self, a, tmp_path):
        with pytest.raises(tree.NonFiniteError, match="attn/kernel"):
            (a * np.nan).save(tmp_path / "a")
        assert list(tmp_path.iterdir()) == []

    def test_vector_of_another_base_is_refused_after_loading(self, a, tmp_path):
        loaded = TaskVector.load(a.save(tmp_path / "a"))
        with pytest.raises(tree.StructureMismatch, match="another base model"):
            loaded.apply_to(theta(9))


def test_repr_is_short(a):
    assert repr(a).startswith("TaskVector(3 leaves, 12 numbers, base ")
    assert "task='a', regime='linear'" in repr(a)


class TestSizes:
    def test_norms_and_cosines_of_any_size(self):
        tiny, huge = (TaskVector({"a": jnp.array([3 * s, 4 * s])}) for s in (1e-30, 1e25))
        assert float(tiny.norm()) == pytest.approx(5e-30)
        assert float(huge.norms()["a"]) == pytest.approx(5e25)
        assert float(tiny.cosine(huge)) == pytest.approx(1)
        assert float((0 * tiny).cosine(huge)) == 0

    def test_what_grows_beyond_float32_is_refused(self, tmp_path):
        params = {"w": jnp.ones(2)}
        tau = TaskVector({"w": jnp.array([1.0, 1e30])})
        with pytest.raises(tree.NonFiniteError, match=r"scale \* τ.*\n.*w: 1 of 2"):
            tau.apply_to(params, scale=1e20)
        with pytest.raises(tree.NonFiniteError, match="w: 1 of 2"):
            TaskVector({"w": np.array([1.0, 1e39])}).apply_to(params)
        with pytest.raises(tree.NonFiniteError):
            (1e20 * tau).save(tmp_path / "tau.safetensors")
        with pytest.raises(tree.NonFiniteError, match="their difference"):
            TaskVector.between({"w": jnp.full(1, -3e38)}, {"w": jnp.full(1, 3e38)})
        moved = jax.jit(lambda p: tau.apply_to(p, scale=1e20))(params)  # a traced sum is let be
        assert np.isinf(moved["w"]).any()
