"""A mask: what it leaves out stays exactly 0, whatever the optimizer does; all else moves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linearize import tree
from linearize.agreement import DisagreementError
from linearize.train import MeshConfig, OptimConfig, RunMismatchError, second_way, step

SHAPES = {"first/bias": (16,), "first/kernel": (8, 16), "second/kernel": (16, 4)}
MASK = {n: np.random.default_rng(0).random(s) < 0.4 for n, s in SHAPES.items()}

OPTIMIZERS = {
    "decay": OptimConfig("adamw", lr=0.01, weight_decay=0.1, decay="theta"),
    "signs": OptimConfig("lion", lr=0.01, weight_decay=0.1),
    "heavy ball": OptimConfig("sgd", lr=0.1, weight_decay=0.1, options={"momentum": 0.9}),
    "trust ratio": OptimConfig("lamb", lr=0.01, weight_decay=0.1, decay="theta"),
    "averaged iterate": OptimConfig(
        "contrib.schedule_free_adamw", lr=0.01, weight_decay=0.1, decay="theta"
    ),
    "orthogonalized": OptimConfig("contrib.muon", lr=0.01, weight_decay=0.1),
}


def nested(mask):
    return {
        "first": {"bias": mask["first/bias"], "kernel": mask["first/kernel"]},
        "second": {"kernel": mask["second/kernel"]},
    }


@pytest.mark.slow(but=["decay", "orthogonalized"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_is_masked_stays_exactly_zero_and_the_rest_moves(problem, name):
    got = problem.run(mask=nested(MASK), optim=OPTIMIZERS[name], steps=6, save_vectors_at=(3,))
    for vector in (got.tau, got.vectors[3]):
        for leaf, mask in MASK.items():
            np.testing.assert_array_equal(vector.delta[leaf][~mask], 0)
            assert (np.asarray(vector.delta[leaf])[mask] != 0).all()


@pytest.mark.slow
def test_a_mask_of_whole_leaves_is_a_pattern(problem):
    """Norms and clipping too are of what moves alone."""
    whole = {n: np.full(s, n != "first/bias") for n, s in SHAPES.items()}
    optim = OptimConfig(lr=0.01, clip=0.05)
    got = problem.run(mask=whole, optim=optim, steps=6)
    same = problem.run(trainable="kernel", optim=optim, steps=6)
    for name, leaf in same.tau.delta.items():
        np.testing.assert_allclose(got.tau.delta[name], leaf, rtol=1e-5, atol=1e-9)
    norms = [[row["grad_norm"] for row in run.history] for run in (got, same)]
    np.testing.assert_allclose(*norms, rtol=1e-5)


def test_masked_plain_descent_is_projected_descent(problem):
    sgd = OptimConfig("sgd", lr=0.1, clip=None, schedule="constant")
    got = problem.run(mask=MASK, optim=sgd, steps=1)
    free = problem.run(optim=sgd, steps=1)
    for name, mask in MASK.items():
        expected = np.where(mask, free.tau.delta[name], 0)
        np.testing.assert_allclose(got.tau.delta[name], expected, rtol=1e-6)


def test_a_mask_of_ones_changes_nothing(problem):
    ones = {n: np.ones(s) for n, s in SHAPES.items()}
    got, free = problem.run(mask=ones, steps=6), problem.run(steps=6)
    for name, leaf in free.tau.delta.items():
        np.testing.assert_allclose(got.tau.delta[name], leaf, rtol=1e-6, atol=1e-9)


def test_a_mask_decides_a_run(problem, tmp_path):
    whole = problem.run(mask=MASK, steps=6)
    problem.run(mask=MASK, run_dir=tmp_path / "run", steps=6)
    as_numbers = nested({n: m.astype(np.float32) for n, m in MASK.items()})
    assert problem.run(mask=as_numbers, run_dir=tmp_path / "run", steps=6).reused
    other = {**MASK, "first/bias": ~MASK["first/bias"]}
    for mask in (other, None):
        with pytest.raises(RunMismatchError, match="mask"):
            problem.run(mask=mask, run_dir=tmp_path / "run", steps=6)
    assert whole.tau.meta["mask"] != problem.run(mask=other, steps=6).tau.meta["mask"]


@pytest.mark.slow
def test_masks_are_arguments_of_one_program_a_bool_an_entry(problem, monkeypatch):
    from linearize.train import loop

    seen, prepare = [], loop._Run._prepare

    def look(self):
        prepare(self)
        seen.append((self.fixed["mask"], self.programs))

    monkeypatch.setattr(loop._Run, "_prepare", look)
    step.programs.cache_clear()
    for mask in (MASK, {n: ~m for n, m in MASK.items()}):
        problem.run(mask=mask, steps=4)
    (mask, first), (_, second) = seen
    assert first is second
    assert first.step._cache_size() == 1
    assert sum(leaf.nbytes for leaf in mask.values()) == sum(m.size for m in MASK.values())


@pytest.mark.slow
def test_on_a_mesh(problem, monkeypatch):
    sgd = OptimConfig("sgd", lr=0.1, clip=None)
    alone = problem.run(mask=MASK, steps=6, optim=sgd)
    got = problem.run(mask=MASK, steps=6, optim=sgd, mesh=MeshConfig.fsdp())
    for name, mask in MASK.items():
        np.testing.assert_allclose(got.tau.delta[name], alone.tau.delta[name], rtol=1e-4, atol=1e-7)
        np.testing.assert_array_equal(got.tau.delta[name][~mask], 0)


@pytest.mark.slow
def test_a_program_that_moves_what_is_masked_is_found(problem, monkeypatch):
    right = step.masked
    monkeypatch.setattr(
        step,
        "masked",
        lambda flat, mask: (
            right(flat, mask)
            if mask is None
            else {n: x + 1e-9 for n, x in right(flat, mask).items()}
        ),
    )
    step.programs.cache_clear()
    with pytest.raises(DisagreementError, match="not 0 outside the mask"):
        problem.run(mask=MASK)
    step.programs.cache_clear()


def test_what_is_outside_is_counted():
    tau = {"a": jnp.array([1.0, 0.0, jnp.nan]), "b": jnp.array([[1j, 0]])}
    mask = {"a": jnp.array([True, False, False]), "b": jnp.array([[False, True]])}
    assert int(second_way.outside(tau, mask)) == 2
    kept = step.masked(tau, mask)
    assert jax.tree.map(lambda x: x.tolist(), kept) == {"a": [1.0, 0.0, 0.0], "b": [[0, 0]]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: {"first/bias": m["first/bias"]}, r"(?s)first/kernel: missing.*second/kernel"),
        (lambda m: {**m, "third": np.ones(2)}, "third: is not trained; leave it out"),
        (
            lambda m: {**m, "first/bias": np.ones(3)},
            r"first/bias: shape \(3,\); the leaf has \(16,",
        ),
        (lambda m: {**m, "first/bias": np.full(16, 0.5)}, "first/bias: 16 entries are neither"),
        (lambda m: {**m, "first/bias": np.full(16, np.nan)}, "neither 0 nor 1, such as nan"),
        (lambda m: {**m, "first/bias": np.full(16, "x")}, "first/bias: dtype <U1"),
        (lambda m: {n: np.zeros(s) for n, s in SHAPES.items()}, "mask is 0 everywhere"),
        (lambda m: np.ones(3), "is not trained"),
    ],
)
def test_a_mask_that_does_not_fit(problem, change, message):
    with pytest.raises(ValueError, match=message):
        problem.run(mask=change(dict(MASK)))


def test_a_mask_names_the_trained_leaves(problem):
    kernels = {n: m for n, m in MASK.items() if "kernel" in n}
    got = problem.run(mask=kernels, trainable="kernel", steps=4)
    assert set(got.tau.delta) == set(kernels)
    with pytest.raises(ValueError, match="first/bias: is not trained"):
        problem.run(mask=MASK, trainable="kernel")
    assert tree.names(problem.params0) == tuple(SHAPES)
