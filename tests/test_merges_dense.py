"""Merges against dense linear algebra in float64, leaf by leaf, and what no merge may depend on.

References are of the formulas, in torch's convention: W of outputs by inputs.
"""

from dataclasses import replace
from functools import partial
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import linearize as lz
from linearize import comparison
from linearize.data import Task
from linearize.examples import Examples
from linearize.merge import MERGES, SUM
from linearize.merge.consensus import consensus
from linearize.merge.dare import dropped
from linearize.merge.iso_cts import iso_cts
from linearize.merge.lines import lines
from linearize.merge.metagpt import metagpt
from linearize.merge.ties import ties
from linearize.merge.tsv_m import tsv_m
from linearize.merge.wudi import wudi
from linearize.methods import LINEAR, Method
from linearize.models import layers
from linearize.objectives import Squared
from linearize.study import Study
from linearize.task_vector import TaskVector
from linearize.tree import NonFiniteError, StructureMismatch

T = 3
SHAPES = {
    "wide/kernel": (4, 9),
    "tall/kernel": (11, 5),
    "conv/kernel": (2, 3, 2, 7),
    "token_embedding": (13, 4),
    "blocks/mlp/kernel": (3, 6, 5),
    "blocks/mlp/bias": (3, 5),
    "bias": (6,),
    "scale": (),
    "class_token": (1, 6),
}
MATRICES = {
    "wide/kernel": [(4, 9)],
    "tall/kernel": [(11, 5)],
    "conv/kernel": [(12, 7)],
    "token_embedding": [(13, 4)],
    "blocks/mlp/kernel": [(6, 5)] * 3,
}
"""Written down, not asked of the library: the shapes of each leaf's matrices."""
ONE_EACH = [m for m in MERGES.values() if m.name not in ("sum", "random") and m.statistics is None]
FIXED = [m for m in ONE_EACH if not m.name.startswith("dare")]


def drawn(seed, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}


def vectors(deltas):
    return {
        f"task {i}": TaskVector({n: jnp.asarray(d) for n, d in each.items()})
        for i, each in enumerate(deltas)
    }


DELTAS = [drawn(i) for i in range(T)]
TAUS = vectors(DELTAS)


@pytest.mark.parametrize(
    ("numbered", "said"),
    [
        ("block_(", "is no regular expression"),
        (r"block_\d+", r"finds 'block_0' of block_0/w; .* such as block_\(\\d\+\)"),
        (r"(block)_", "finds 'block' of block_0/w"),
    ],
)
def test_layers_are_numbered_by_an_expression_s_first_group(numbered, said):
    tau = TaskVector({f"block_{i}/w": np.ones(1) for i in range(3)})
    with pytest.raises(ValueError, match=said):
        lines({"a": tau}, numbered=numbered)


@pytest.mark.parametrize("kind", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("name", ["tsv_m", "iso_c", "iso_cts", "knots", "wudi"])
def test_half_precision_merges_as_the_same_numbers_in_float32(name, kind):
    """Of 1,024 rows √1024 roundings of bfloat16 are as large as the largest singular value."""
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.normal(size=(T, n, 4)))[0] for n in (1024, 8))
    given = u @ (np.array([4.0, 2.0, 1.0, 0.5])[:, None] * v.swapaxes(1, 2))
    halves = [{"w": jnp.asarray(each, kind)} for each in given]
    wide = [{"w": each["w"].astype(jnp.float32)} for each in halves]
    found, expected = (
        {n: np.float32(d.delta["w"]) for n, d in MERGES[name].directions(vectors(x), 0).items()}
        for x in (halves, wide)
    )
    for direction, want in expected.items():
        off = np.linalg.norm(found[direction] - want) / np.linalg.norm(want)
        assert off < 4 * float(jnp.finfo(kind).eps)


def only(merge, taus, **options):
    (found,) = merge.directions(taus, 3, **options).values()
    return {n: np.float64(leaf) for n, leaf in found.delta.items()}


def weights(leaves, shape, i):
    """Torch's W (T, out, in) of one matrix of T leaves."""
    return np.float64(leaves).reshape(len(leaves), -1, *shape)[:, i].swapaxes(1, 2)


def per_matrix(of, deltas):
    """A merge by its formula for T matrices W; all else is the mean."""
    merged = {}
    for name, shape in ((n, np.shape(d)) for n, d in deltas[0].items()):
        leaves = np.stack([each[name] for each in deltas])
        merged[name] = np.float64(leaves).mean(0)
        if name in MATRICES:
            found = [of(weights(leaves, s, i)).T for i, s in enumerate(MATRICES[name])]
            merged[name] = np.stack(found).reshape(shape)
    return merged


def whitened(b):
    """B (BᵀB)^(-1/2), of the range alone."""
    w, v = np.linalg.eigh(b.T @ b)
    root = np.where(w > 1e-9 * w.max(), w, np.inf) ** -0.5
    return b @ (v * root) @ v.T


def padded_tsv(ws):
    """As the authors' code has it: r columns, the last of them zero where T does not divide r."""
    r = min(ws[0].shape)
    k = int(r * (1 / len(ws)))
    u_, s_, v_ = np.zeros((len(ws[0]), r)), np.zeros(r), np.zeros((r, ws[0].shape[1]))
    for i, w in enumerate(ws):
        u, s, v = np.linalg.svd(w, full_matrices=False)
        part = slice(i * k, (i + 1) * k)
        u_[:, part], s_[part], v_[part] = u[:, :k], s[:k], v[:k]
    (pu, _, qu), (pv, _, qv) = (np.linalg.svd(m, full_matrices=False) for m in (u_, v_))
    return pu @ qu @ np.diag(s_) @ pv @ qv


def isotropic_sum(ws):
    u, s, v = np.linalg.svd(sum(ws), full_matrices=False)
    return u @ np.diag(np.full_like(s, s.mean())) @ v


def isotropic_subspaces(ws, fraction=0.8):
    r, tasks = min(ws[0].shape), len(ws)
    own = round((r - int(r * fraction)) / tasks)
    u, s, v = np.linalg.svd(sum(ws), full_matrices=False)
    common = r - own * tasks
    us, ss, vs = [u[:, :common]], [s[:common]], [v[:common].T]
    for w in ws:
        a, b, c = np.linalg.svd(w - us[0] @ us[0].T @ w, full_matrices=False)
        us.append(a[:, :own]), ss.append(b[:own]), vs.append(c[:own].T)
    left, right = whitened(np.concatenate(us, 1)), whitened(np.concatenate(vs, 1))
    return np.concatenate(ss).mean() * left @ right.T


def normal_equations(ws, share=1e-3):
    c = [1 / np.sum(w**2) for w in ws]
    g = [w.T @ w for w in ws]
    total = sum(a * b for a, b in zip(c, g, strict=True))
    ridge = share * np.linalg.eigvalsh(total).max() * np.eye(len(total))
    wanted = sum(a * w @ b for a, w, b in zip(c, ws, g, strict=True))
    return wanted @ (np.linalg.inv(total + ridge) if share else np.linalg.pinv(total, 1e-10))


FORMULAS = {
    "tsv_m": padded_tsv,
    "iso_c": isotropic_sum,
    "iso_cts": isotropic_subspaces,
    "wudi": normal_equations,
}


def same(found, expected, rtol=2e-5):
    assert list(found) == list(expected)
    for name, leaf in expected.items():
        assert found[name].shape == np.shape(leaf)
        atol = rtol * np.abs(leaf).max(initial=1e-30)
        np.testing.assert_allclose(found[name], leaf, rtol=rtol, atol=atol, err_msg=name)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("count", [1, 2, T])
def test_matrices_are_merged_by_the_formula(name, count):
    """Wide, tall, convolution, embedding, each layer of a scanned stack; vectors are averaged."""
    deltas = DELTAS[:count]
    same(only(MERGES[name], vectors(deltas)), per_matrix(FORMULAS[name], deltas))


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.55, 1.0])
def test_isotropic_subspaces_of_any_share(fraction):
    """Where rounding gives the tasks more than there is, as many as there are."""
    deltas = [drawn(i, {"wide/kernel": (9, 14)}) for i in range(T)]
    found = iso_cts(vectors(deltas), common=fraction)["iso_cts"].delta["wide/kernel"]
    ws = np.stack([np.float64(each["wide/kernel"]).T for each in deltas])
    same({"w": np.float64(found)}, {"w": isotropic_subspaces(ws, fraction).T})
    tight = [drawn(i, {"wide/kernel": (3, 4)}) for i in range(2)]
    crowded = iso_cts(vectors(tight), common=0.2)["iso_cts"].delta["wide/kernel"]
    np.testing.assert_allclose(np.ptp(np.linalg.svd(crowded)[1]), 0, atol=1e-5)


def low_rank(seed, rank=2):
    """Kernels and a stack of them that are products, as a LoRA adapter's are."""
    rng, deltas = np.random.default_rng(seed), {}
    for name in ("tall/kernel", "blocks/mlp/kernel"):
        *outer, m, n = SHAPES[name]
        b, a = rng.normal(size=(*outer, m, rank)), rng.normal(size=(*outer, rank, n))
        deltas[name] = (b @ a).astype(np.float32)
    return deltas


def tsv_of_rank(ws, rank=2):
    k, parts = min(ws[0].shape) // len(ws), []
    for w in ws:
        u, s, v = np.linalg.svd(w, full_matrices=False)
        n = min(k, rank)
        parts.append((u[:, :n], s[:n], v[:n].T))
    u, s, v = zip(*parts, strict=True)
    left, right = whitened(np.concatenate(u, 1)), whitened(np.concatenate(v, 1))
    return left @ np.diag(np.concatenate(s)) @ right.T


def iso_of_rank(ws, rank=2):
    u, s, v = np.linalg.svd(sum(ws), full_matrices=False)
    n = min(rank * len(ws), len(s))
    return s[:n].mean() * u[:, :n] @ v[:n]


@pytest.mark.parametrize(
    ("name", "of", "count"),
    [
        ("tsv_m", tsv_of_rank, 1),
        ("tsv_m", tsv_of_rank, 2),
        ("iso_c", iso_of_rank, 1),
        ("iso_c", iso_of_rank, 2),
        ("wudi", normal_equations, 2),
    ],
)
def test_what_lacks_rank_moves_in_no_direction_of_chance(name, of, count):
    """As LoRA does: LAPACK's basis of the null space, which is nobody's, moves nothing."""
    deltas = [low_rank(i) for i in range(count)]
    same(only(MERGES[name], vectors(deltas)), per_matrix(of, deltas), 1e-4)


def test_tasks_within_the_common_directions_add_none_of_rounding():
    """Nothing of them is left beside the common ones; what is left in floats is no direction."""
    w = low_rank(0, rank=1)["tall/kernel"]
    found = iso_cts(vectors([{"w": w}, {"w": 2 * w}]), common=0.4)["iso_cts"].delta
    same({"w": np.float64(found["w"])}, {"w": 3 * np.float64(w)})


def test_a_direction_that_two_tasks_share_is_whitened_to_one():
    """And does not bring another along, as the polar factor of LAPACK's choice does."""
    one = TAUS["task 0"]
    found = only(MERGES["tsv_m"], {"a": one, "b": one})
    u, s, v = np.linalg.svd(np.float64(one.delta["tall/kernel"]), full_matrices=False)
    best = (u[:, :2] * s[:2]) @ v[:2]
    np.testing.assert_allclose(found["tall/kernel"], best, atol=1e-5)


def test_wudi_is_the_optimum_of_its_objective():
    """No matter how it is solved: the objective's gradient is zero, with and without a ridge."""
    ws = np.stack([weights([d["wide/kernel"]], (4, 9), 0)[0] for d in DELTAS])

    def interference(delta):
        return sum(jnp.sum(((delta - w) @ w.T) ** 2) / jnp.sum(w**2) for w in ws)

    slope = jax.grad(interference)
    found = np.float64(wudi(TAUS, ridge=0.0)["wudi"].delta["wide/kernel"]).T
    assert np.abs(slope(found)).max() < 1e-5 * np.abs(slope(ws.sum(0))).max()
    ridged = wudi(TAUS, ridge=0.1)["wudi"].delta
    expected = per_matrix(partial(normal_equations, share=0.1), DELTAS)
    same({n: np.float64(d) for n, d in ridged.items()}, expected)


def test_wudi_stays_of_the_vectors_size_where_tasks_disagree_along_little():
    """Singular values of 1 to 1e-4, in bases of their own: the exact optimum is many times that."""
    rng, sizes = np.random.default_rng(0), np.logspace(0, -4, 6)
    bases = np.linalg.qr(rng.normal(size=(4, 6, 6)))[0]
    taus = vectors([{"w": np.float32((u * sizes) @ v)} for u, v in (bases[:2], bases[2:])])
    largest = max(float(tau.norm()) for tau in taus.values())
    free, held = (wudi(taus, ridge=r)["wudi"].norm() for r in (0.0, 1e-3))
    assert free > 8 * largest
    assert held < 3 * largest
    twice = {"a": taus["task 0"], "b": taus["task 0"]}
    found = wudi(twice, ridge=0.0)["wudi"].delta["w"]
    np.testing.assert_allclose(found, taus["task 0"].delta["w"], atol=1e-4)


def test_a_task_that_leaves_a_matrix_alone_asks_nothing_of_wudi():
    delta = TAUS["task 0"].delta
    still = TaskVector({n: jnp.zeros_like(d) if n in MATRICES else d for n, d in delta.items()})
    found = only(MERGES["wudi"], {**TAUS, "still": still})
    expected = only(MERGES["wudi"], TAUS)
    for name in MATRICES:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6)


def dense(deltas):
    return np.stack(
        [np.concatenate([np.ravel(np.float64(d)) for d in each.values()]) for each in deltas]
    )


def test_flat_merges_are_their_formulas():
    flat, total = dense(DELTAS), dense(DELTAS).sum(0)
    squares = (flat**2).sum(1)
    masks = np.stack([np.abs(row) > 0.3 * np.abs(total - row) for row in flat])
    expected = {
        "mean": (flat.mean(0), {}),
        "metagpt": ((squares / squares.sum()) @ flat, {}),
        "consensus": (np.where(masks.sum(0) >= 2, total, 0), {"tall": 0.3}),
    }
    for name, (values, options) in expected.items():
        found = dense([only(MERGES[name], TAUS, **options)])[0]
        np.testing.assert_allclose(found, values, rtol=1e-5, atol=1e-6, err_msg=name)
    assert 0 < (masks.sum(0) >= 2).mean() < 1


def dense_ties(flat, density, aggregate):
    kept = []
    for row in flat:
        least = np.sort(np.abs(row))[-max(1, round(density * len(row)))]
        kept.append(np.where(np.abs(row) >= least, row, 0))
    kept = np.stack(kept)
    sign = np.sign(kept.sum(0))
    sign[sign == 0] = np.sign(sign.sum())
    agree = np.where(np.sign(kept) == sign, kept, 0)
    total, count = agree.sum(0), np.maximum((agree != 0).sum(0), 1)
    return total if aggregate == "sum" else total / count


@pytest.mark.parametrize(("name", "aggregate"), [("ties", "mean"), ("ties_sum", "sum")])
def test_the_two_that_are_called_ties(name, aggregate):
    found = dense([only(MERGES[name], TAUS)])[0]
    np.testing.assert_allclose(found, dense_ties(dense(DELTAS), 0.2, aggregate), rtol=1e-5)


@pytest.mark.parametrize("density", [0.2, 1.0])
def test_knots_is_ties_in_shared_coordinates(density):
    """Coordinates Σ V of [W_1 … W_T], whose signs, LAPACK's, cancel; one threshold for all."""
    parts, back = [], []
    for name, shape in ((n, np.shape(d)) for n, d in DELTAS[0].items()):
        leaves = np.stack([each[name] for each in DELTAS])
        if name not in MATRICES:
            parts.append(np.float64(leaves).reshape(T, -1)), back.append((name, None, shape))
        for i, s in enumerate(MATRICES.get(name, ())):
            ws = weights(leaves, s, i)
            u = np.linalg.svd(np.concatenate(ws, 1), full_matrices=False)[0]
            parts.append(np.stack([u.T @ w for w in ws]).reshape(T, -1))
            back.append((name, u, (u.shape[1], ws.shape[2])))
    merged = dense_ties(np.concatenate(parts, 1), density, "mean")
    pieces, expected = np.split(merged, np.cumsum([p.shape[1] for p in parts])[:-1]), {}
    for piece, (name, u, shape) in zip(pieces, back, strict=True):
        whole = piece.reshape(shape) if u is None else (u @ piece.reshape(shape)).T
        expected.setdefault(name, []).append(whole)
    expected = {n: np.stack(each).reshape(SHAPES[n]) for n, each in expected.items()}
    same(only(MERGES["knots"], TAUS, density=density), expected)


@pytest.mark.parametrize("density", [0.2, 1.0])
def test_knots_of_lora_vectors_has_as_many_coordinates_as_their_ranks(density):
    """Two tasks of rank 2 in matrices of 5 outputs: 4 rows of coordinates are trimmed, not 5."""
    deltas, parts, back = [low_rank(i) for i in range(2)], [], []
    for name in deltas[0]:
        for i, s in enumerate(MATRICES[name]):
            ws = weights(np.stack([each[name] for each in deltas]), s, i)
            u, sizes, _ = np.linalg.svd(np.concatenate(ws, 1), full_matrices=False)
            assert sizes[4] < 1e-5 * sizes[3]
            parts.append(np.stack([u[:, :4].T @ w for w in ws]).reshape(2, -1))
            back.append((name, u[:, :4]))
    merged, expected = dense_ties(np.concatenate(parts, 1), density, "mean"), {}
    for piece, (name, u) in zip(
        np.split(merged, np.cumsum([p.shape[1] for p in parts])[:-1]), back, strict=True
    ):
        expected.setdefault(name, []).append((u @ piece.reshape(4, -1)).T)
    expected = {n: np.stack(each).reshape(SHAPES[n]) for n, each in expected.items()}
    same(only(MERGES["knots"], vectors(deltas), density=density), expected, 1e-4)


NAMED = {"stem/kernel": (2,), **{f"block_{i}/kernel": (2, 3) for i in range(3)}, "head/bias": (2,)}


@pytest.mark.parametrize("inner", ["sum", "ties"])
def test_lines_scales_layers_by_their_depth(inner):
    deltas = [drawn(i, NAMED) for i in range(2)]
    taus, b = vectors(deltas), 0.7
    merged = MERGES[inner].directions(taus, 0).values()
    merged = {n: sum(np.float64(tau.delta[n]) for tau in merged) for n in NAMED}
    sizes = [
        sum(np.abs(each[n]).sum() for n in NAMED)
        for each in ({n: deltas[0][n] + deltas[1][n] for n in NAMED}, merged)
    ]
    a = sizes[0] / sizes[1] / 2
    depth = {"block_1/kernel": 1, "block_2/kernel": 2}
    expected = {n: (a + b * depth.get(n, 0) / 2) * merged[n] for n in NAMED}
    found = lines(taus, slope=b, merge=MERGES[inner])["lines"].delta
    same({n: np.float64(d) for n, d in found.items()}, expected)


@pytest.mark.parametrize("merge", FIXED, ids=lambda m: m.name)
def test_a_scanned_model_s_layers_are_merged_as_its_twin_s(merge):
    """Matrices and biases of blocks, stacked along their first axis or not."""
    shapes = {
        f"block_{i}/{n}": s for i in range(3) for n, s in (("kernel", (6, 5)), ("bias", (5,)))
    }
    deltas = [drawn(i, {**shapes, "head/kernel": (5, 7)}) for i in range(2)]
    apart = only(merge, vectors(deltas))
    together = only(merge, vectors([layers.stack(each) for each in deltas]))
    same(
        {n: np.asarray(d) for n, d in layers.unstack(together).items()},
        {n: apart[n] for n in layers.unstack(together)},
        2e-5,
    )


def stacked_model(params, x):
    """A scan through a stack of any name, after a layer that is called as a stack would be."""
    through = params["tower"]["kernel"], params["tower"]["bias"]
    return jax.lax.scan(
        lambda y, each: (jnp.tanh(y @ each[0] + each[1][None]), None), x @ params["layers"], through
    )[0]


@pytest.mark.parametrize("name", ["tsv_m", "iso_c", "iso_cts", "wudi", "knots", "lines"])
def test_a_study_says_what_its_model_scans_through_whatever_it_is_called(name):
    shapes = {"tower/kernel": (3, 5, 5), "tower/bias": (3, 5), "layers": (5, 5)}
    tower = {"kernel": np.zeros((3, 5, 5)), "bias": np.zeros((3, 5))}
    params = {"tower": tower, "layers": np.zeros((5, 5))}
    x = Examples(np.ones((2, 5), np.float32), {"targets": np.ones((2, 5), np.float32)})
    tasks = {n: Task(n, x, x, x) for n in "ab"}
    study = Study(
        (stacked_model, params | {"layers": np.zeros((5, 5))}),
        tasks,
        dict.fromkeys("ab", Squared()),
    )
    deltas, merge = [drawn(i, shapes) for i in range(2)], MERGES[name]
    told = merge.measured(study, LINEAR)
    assert told == {"scanned": ["^tower/bias$", "^tower/kernel$"]}
    found = only(merge, vectors(deltas), **told)
    named = {n.replace("tower", "blocks"): n for n in shapes}  # what is known by name
    known = only(merge, vectors([{k: each[n] for k, n in named.items()} for each in deltas]))
    same({k: np.asarray(found[n]) for k, n in named.items()}, known)


TAUS_NAMED = vectors([{**drawn(i), **drawn(i, {"block_0/scale": (3,)})} for i in range(T)])


@pytest.mark.parametrize("merge", ONE_EACH, ids=lambda m: m.name)
def test_the_order_of_tasks_changes_nothing(merge):
    backwards = dict(reversed(TAUS_NAMED.items()))
    same(only(merge, backwards), only(merge, TAUS_NAMED))


@pytest.mark.parametrize("merge", ONE_EACH, ids=lambda m: m.name)
def test_what_is_merged_scales_with_the_vectors(merge):
    """By a power of two, exactly so: no threshold is absolute."""
    halved = {task: 0.125 * tau for task, tau in TAUS_NAMED.items()}
    expected = {n: 0.125 * d for n, d in only(merge, TAUS_NAMED).items()}
    same(only(merge, halved), expected, 1e-6)


@pytest.mark.parametrize("merge", FIXED, ids=lambda m: m.name)
def test_a_vector_twice_is_that_vector(merge):
    """Or what the merge makes of it alone, as often as it adds."""
    one = TAUS_NAMED["task 0"]
    found = only(merge, {"a": one, "b": one})
    if merge.name in ("mean", "metagpt"):
        same(found, {n: np.float64(d) for n, d in one.delta.items()})
    elif merge.name == "consensus":
        same(found, {n: 2 * np.float64(d) for n, d in one.delta.items()})
    elif merge.name in ("ties", "knots"):
        same(found, only(merge, {"a": one}))
    elif merge.name == "ties_sum":
        same(found, {n: 2 * d for n, d in only(merge, {"a": one}).items()})


def test_dare_drops_by_name_and_keeps_the_mean():
    """A share p is dropped, the others grow by 1 / (1 − p); neither order nor company matters."""
    big = vectors([{"w": np.ones((200, 100), np.float32), "b": np.ones(50, np.float32)}] * 2)
    found = dropped(big, 7, drop=0.75)
    for tau in found.values():
        w = np.asarray(tau.delta["w"])
        assert set(np.unique(w)) == {0.0, 4.0}
        assert abs((w == 0).mean() - 0.75) < 5 * np.sqrt(0.75 * 0.25 / w.size)
    first, second = (np.asarray(tau.delta["w"]) for tau in found.values())
    assert 0.3 < (first == second).mean() < 0.8  # drawn apart
    alone = dropped(
        {"task 1": replace(big["task 1"], delta={"w": big["task 1"].delta["w"]})}, 7, drop=0.75
    )
    np.testing.assert_array_equal(alone["task 1"].delta["w"], second)
    other = dropped(big, 8, drop=0.75)["task 1"].delta["w"]
    assert (np.asarray(other) != second).any()
    same(only(MERGES["dare"], TAUS, drop=0.0), only(replace(SUM, directions=summed), TAUS), 1e-6)
    same(only(MERGES["dare_ties"], TAUS, drop=0.0), only(MERGES["ties"], TAUS), 1e-6)


@pytest.mark.parametrize(("drop", "seed"), [(0.5, 3), (0.9, 0)])
def test_dare_ties_is_ties_of_what_the_same_draw_leaves(drop, seed):
    """Once more in NumPy: the mask of seed, task and leaf, the rescaling, trimming, election."""
    left = []
    for task, delta in zip(TAUS, DELTAS, strict=True):
        parts = []
        for name, leaf in delta.items():
            rng = np.random.default_rng([seed, crc32(task.encode()), crc32(name.encode())])
            parts.append((np.where(rng.random(leaf.shape) < drop, 0, leaf) / (1 - drop)).ravel())
        left.append(np.concatenate(parts))
    (found,) = MERGES["dare_ties"].directions(TAUS, seed, drop=drop).values()
    flat = dense([found.delta])[0]
    expected = dense_ties(np.stack(left), 0.2, "mean")
    np.testing.assert_allclose(flat, expected, rtol=1e-5, atol=1e-6)
    assert 0 < np.count_nonzero(flat) < 0.5 * flat.size


def summed(taus, seed):
    return {"sum": sum(taus.values())}


def test_what_is_added_without_a_search_is_the_directions_sum_at_the_authors_coefficient():
    found = MERGES["ties_sum"].merged(TAUS).delta["bias"]
    np.testing.assert_allclose(found, 0.3 * only(MERGES["ties_sum"], TAUS)["bias"], rtol=1e-6)
    np.testing.assert_allclose(
        SUM.merged(TAUS).delta["bias"], sum(d["bias"] for d in DELTAS), rtol=1e-6
    )


def test_leaves_that_a_pattern_leaves_out_are_averaged():
    found = tsv_m(TAUS, matrices="tall")["tsv_m"].delta
    expected = only(MERGES["tsv_m"], TAUS)
    np.testing.assert_allclose(found["tall/kernel"], expected["tall/kernel"], rtol=1e-6)
    mean = np.mean([d["wide/kernel"] for d in DELTAS], 0)
    np.testing.assert_allclose(found["wide/kernel"], mean, rtol=1e-5)
    plain = tsv_m(TAUS, scanned=())["tsv_m"].delta["blocks/mlp/bias"]
    assert not np.allclose(plain, expected["blocks/mlp/bias"])  # a matrix (3, 5) now


ZERO = {"a": TaskVector({"block_0/w": jnp.zeros(2), "block_1/w": jnp.zeros(2)})}
BAD = TaskVector(
    {n: d.at[...].set(jnp.nan) if n == "bias" else d for n, d in TAUS["task 0"].delta.items()}
)


FEW = vectors([drawn(i, {"w": (9, 3)}) for i in range(4)])
REFUSED = [
    (MERGES["tsv_m"].directions, FEW, r"tsv_m: w is a matrix of 9 × 3.* 4 tasks.*matrices="),
    (MERGES["iso_cts"].directions, FEW, r"iso_cts: w is a matrix of 9 × 3.* 4 tasks.*matrices="),
    (consensus, {"a": TAUS["task 0"]}, "votes=2, and taus has 1"),
    (partial(consensus, tall=0), TAUS, "tall=0"),
    (metagpt, ZERO, "vectors of 'a' are zero"),
    (lines, ZERO, "merge='sum' of these task vectors is zero"),
    (lines, {"a": TaskVector({"block_0/w": jnp.ones(2)})}, r"find 1 layer\(s\)"),
    (lines, {"a": TaskVector({"w": jnp.ones(2)})}, r"find 0 layer\(s\)"),
    (partial(iso_cts, common=1.5), TAUS, "common=1.5"),
    (partial(wudi, ridge=-1), TAUS, "ridge=-1"),
    (partial(dropped, drop=1.0), TAUS, "drop=1.0"),
    (lambda taus, _: dropped(taus, -1), TAUS, "seed=-1; expected an integer, 0 or more"),
    (lambda taus, _: dropped(taus, 0.5), TAUS, "seed=0.5; expected an integer, 0 or more"),
    (partial(MERGES["ties"].directions, aggregate="max"), TAUS, "aggregate='max'"),
]


@pytest.mark.parametrize(("merge", "taus", "message"), REFUSED)
def test_what_cannot_be_merged_is_refused(merge, taus, message):
    with pytest.raises(ValueError, match=message):
        merge(taus, 0)


@pytest.mark.parametrize("merge", ONE_EACH, ids=lambda m: m.name)
def test_every_merge_refuses_nothing_and_what_does_not_belong_together(merge):
    with pytest.raises(ValueError, match="taus is empty"):
        merge.directions({}, 0)
    with pytest.raises(StructureMismatch, match="missing: bias"):
        merge.directions({**TAUS_NAMED, "x": ZERO["a"]}, 0)


@pytest.mark.parametrize("name", [*FORMULAS, "mean", "metagpt", "consensus", "knots"])
def test_what_is_not_finite_is_named(name):
    with pytest.raises(NonFiniteError, match="'bad'"):
        MERGES[name].directions({**TAUS, "bad": BAD}, 0)


def test_complex_entries_agree_in_direction():
    """Within a right angle of their sum; as before, real entries of its sign."""
    leaves = np.complex64([[1 + 1j, 3], [2 - 1j, -1]])
    taus = {t: TaskVector({"w": leaf}) for t, leaf in zip("ab", leaves, strict=True)}
    np.testing.assert_allclose(ties(taus, density=1.0)["ties"].delta["w"], [1.5, 3])


def test_where_no_vector_moves_a_matrix_knots_is_zero():
    leaves = {"w": np.zeros((3, 4), np.float32), "b": np.ones(3, np.float32)}
    taus = {t: TaskVector(leaves) for t in "ab"}
    found = only(MERGES["knots"], taus, density=1.0)
    assert not found["w"].any()
    assert found["b"].all()


@pytest.mark.parametrize("merge", MERGES.values(), ids=lambda m: m.name)
def test_a_vector_that_is_zero_is_refused_but_by_plain_addition(merge):
    """Before statistics are asked for; a leaf that is zero is nobody's mistake."""
    one, none = ({n: np.full(s, x, np.float32) for n, s in NAMED.items()} for x in (1, 0))
    part = {**none, "head/bias": jnp.full(2, 1e-30, jnp.bfloat16)}
    taus = {n: TaskVector(leaves) for n, leaves in (("a", one), ("b", none), ("c", part))}
    if merge.name in ("sum", "mean"):
        assert merge.merged(taus).norm() > 0
        return
    with pytest.raises(ValueError, match=f"merge '{merge.name}': the task vector of 'b' is zero"):
        merge.merged(taus)
    merge.check_moved({n: taus[n] for n in "ac"})


X = Examples(np.ones((2, 2), np.float32), {"targets": np.ones((2, 2), np.float32)})


def linear_study(names):
    f = lambda p, x: x @ p["w"]  # noqa: E731
    return Study((f, {"w": np.eye(2)}), {n: Task(n, X, X, X) for n in names}, Squared())


def test_a_comparison_refuses_what_is_zero_before_it_measures(monkeypatch):
    still = Method("still", "Still", "displaced", lambda s, t: TaskVector({"w": np.zeros((2, 2))}))
    monkeypatch.setattr(comparison, "pretrained", lambda *_: pytest.fail("measured"))
    with pytest.raises(ValueError, match="merge 'ties': the task vector of 'a', 'b' is zero"):
        lz.compare(linear_study("ab"), [still], ["ties"])


@pytest.mark.parametrize("name", ["consensus", "consensus_tasks"])
def test_a_merge_of_two_votes_refuses_one_task_before_it_is_trained(name):
    untrained = Method("mine", "Mine", "displaced", lambda s, t: pytest.fail("trained"))
    with pytest.raises(ValueError, match="votes=2, and the study trains 'a' alone"):
        lz.compare(linear_study("a"), [untrained], [name])
