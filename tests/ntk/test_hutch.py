"""Estimates of trace, Frobenius norm, effective rank and alignment against dense kernels."""

import numpy as np
import pytest

from linearize.ntk import (
    alignment,
    alignment_estimate,
    effective_rank,
    moments,
    participation_ratio,
    rank_estimate,
    target_alignment,
    vector_product,
)

N = 24
TURN = np.linalg.qr(np.random.default_rng(0).normal(size=(N, N)))[0]
SPECTRUM = 4.0 / np.arange(1, N + 1) ** 2
K = (TURN * SPECTRUM) @ TURN.T
OTHER = K + 0.3 * np.outer(TURN[:, 3], TURN[:, 3])


def times(kernel):
    return lambda v: kernel @ v


FLAT = (TURN * SPECTRUM**0.25) @ TURN.T


def dense(kernel):
    return {
        "trace": np.trace(kernel),
        "frobenius": np.linalg.norm(kernel),
        "participation_ratio": participation_ratio(np.linalg.eigvalsh(kernel)),
        "alignment": alignment(kernel, OTHER, False),
    }


def estimates(kernel, **how):
    found = moments(times(kernel), (N,), **how)
    near = alignment_estimate(times(kernel), times(OTHER), (N,), centered=False, **how)
    return {**vars(found), "alignment": near}


def check(runs, name, value):
    """95 % intervals of 100 seeds: ten may miss, and their widths are right in the mean square."""
    within = [low <= value <= high for low, high in (r.interval() for r in runs)]
    assert sum(within) >= 90, name
    spread = np.std([run.value for run in runs])
    stated = np.sqrt(np.mean([run.standard_error**2 for run in runs]))
    assert stated == pytest.approx(spread, rel=0.35), name


@pytest.mark.slow(but=["8"])
@pytest.mark.parametrize("sketch", [0, 8])
def test_intervals_cover_the_dense_values(sketch):
    """Of a flat spectrum: a leading eigenvalue makes samples far from normal."""
    runs = [estimates(FLAT, sketch=sketch, probes=24, seed=seed) for seed in range(100)]
    for name, value in dense(FLAT).items():
        check([run[name] for run in runs], name, value)


@pytest.mark.slow
def test_intervals_cover_the_effective_rank():
    runs = [rank_estimate(times(FLAT), (N,), probes=12, steps=N, seed=seed) for seed in range(100)]
    check(runs, "rank", effective_rank(SPECTRUM**0.25))


def test_a_sketch_takes_most_of_the_error():
    """At the same number of products, for eigenvalues that fall off."""
    ways = ({"sketch": 0, "probes": 20}, {"sketch": 6, "probes": 8})
    plain, sketched = ([estimates(K, **way, seed=i) for i in range(30)] for way in ways)
    for name, value in dense(K).items():
        errors = [np.mean([abs(run[name].value - value) for run in x]) for x in (plain, sketched)]
        assert errors[1] < 0.5 * errors[0], name


def test_a_kernel_within_the_sketch_is_exact():
    low = (TURN[:, :3] * [3.0, 2.0, 1.0]) @ TURN[:, :3].T
    found = moments(times(low), (N,), probes=2, sketch=3)
    assert found.trace.value == pytest.approx(6, rel=1e-12)
    assert found.frobenius.value == pytest.approx(14**0.5, rel=1e-12)
    assert found.participation_ratio.interval() == pytest.approx([36 / 14] * 2, rel=1e-9)
    near = alignment_estimate(
        times(low), times(np.eye(N)), (N,), centered=False, probes=4, sketch=N
    )
    assert near.value == pytest.approx(6 / (14 * N) ** 0.5, rel=1e-12)
    assert near.standard_error < 1e-12


@pytest.mark.parametrize("centered", [True, False])
def test_targets_beside_trace_and_full_kernels(centered):
    targets = np.random.default_rng(1).normal(size=(N, 2))
    made = alignment_estimate(
        times(K), lambda v: targets @ (targets.T @ v), (N,), centered=centered, sketch=2 * N
    )
    assert made.value == pytest.approx(target_alignment(K, targets, centered), rel=1e-9)
    full = np.einsum("nm,cd->nmcd", K, [[2.0, 0.5], [0.5, 1.0]])
    made = alignment_estimate(
        lambda v: np.einsum("nmcd,md->nc", full, v),
        lambda v: targets * np.vdot(targets, v),
        (N, 2),
        centered=centered,
        sketch=4 * N,
    )
    assert made.value == pytest.approx(target_alignment(full, targets, centered), rel=1e-9)


def test_few_steps_overestimate_the_rank():
    ranks = [rank_estimate(times(FLAT), (N,), steps=s, probes=16) for s in (2, 4, 8, N)]
    values = [rank.value for rank in ranks]
    assert values == sorted(values, reverse=True)
    assert values[2] == pytest.approx(values[3], rel=1e-2)
    assert abs(values[3] - effective_rank(SPECTRUM**0.25)) < 4 * ranks[3].standard_error


@pytest.mark.slow
def test_of_a_neural_tangent_kernel():
    """F = x W has K = X Xᵀ ⊗ I, whose moments are those of X Xᵀ, C times."""
    x = np.random.default_rng(2).normal(size=(9, 4)).astype(np.float32)
    product = vector_product(lambda p, x: x @ p["w"], {"w": np.zeros((4, 3), np.float32)}, x)
    found = moments(product, (9, 3), probes=4, sketch=12)
    gram = np.float64(x) @ x.T
    assert found.trace.value == pytest.approx(3 * np.trace(gram), rel=1e-5)
    assert found.frobenius.value == pytest.approx(3**0.5 * np.linalg.norm(gram), rel=1e-5)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: moments(times(K), (N,), probes=1), "probes=1"),
        (lambda: moments(times(K), (N,), sketch=-1), "sketch=-1"),
        (lambda: moments(times(np.triu(K)), (N,)), "not symmetric"),
        (lambda: moments(times(0 * K), (N,)), "zero"),
        (lambda: alignment_estimate(times(K), times(0 * K), (N,)), "zero, once centred"),
        (lambda: alignment_estimate(times(K), times(np.ones((N, N))), (N,)), "once centred"),
        (lambda: rank_estimate(times(-K), (N,)), "negative eigenvalue"),
        (lambda: rank_estimate(times(K), (N,), steps=0), "steps=0"),
        (lambda: moments(times(K), (N,)).trace.interval(1.0), "level=1.0"),
    ],
)
def test_bad_input(call, says):
    with pytest.raises(ValueError, match=says):
        call()
