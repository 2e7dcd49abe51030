"""The benchmark at tiny sizes: its counts are exact, its instruments see what they should."""

import dataclasses
import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from experiments.bench import __main__ as bench
from experiments.bench import (
    against_torch,
    clip,
    dual,
    kernels,
    maps,
    measure,
    memory,
    policies,
    steady,
    step,
    torch_models,
)
from experiments.bench.measure import Row, Times
from experiments.bench.problem import FULL, TINY, displacement, forward, problem, train_step
from linearize import taylor, train, tree
from linearize.cost import count_flops
from linearize.models import heads


@pytest.mark.parametrize(
    ("goal", "holds"),
    [(("<=", 2.0), True), (("<=", 1.9), False), ((">=", 2.1), False), (("==", 2), True)],
)
def test_a_goal_is_met_or_missed(goal: measure.Goal, holds: bool) -> None:
    assert Row("case", "quantity", 2.0, goal=goal).holds is holds


def test_programs_are_timed_in_turns() -> None:
    calls = []

    def program(name: str, seconds: float) -> None:
        calls.append(name)
        time.sleep(seconds)

    times = measure.in_turns(
        lambda: program("a", 0.03), lambda: program("b", 0.01), repeats=3, warm_up=1
    )
    assert calls == ["a", "b"] * 4
    assert len(times.first) == len(times.second) == 3
    assert min(times.first) >= 0.03
    assert min(times.second) >= 0.01


def test_a_slow_spell_of_the_machine_leaves_the_ratio() -> None:
    times = Times([2.0, 20.0, 2.0], [1.0, 10.0, 1.0])
    assert times.ratio == 2.0
    assert times.spread == (2.0, 2.0)
    assert times.medians == (2.0, 1.0)


def test_the_table_tells_verdicts() -> None:
    out = io.StringIO()
    measure.show(
        [Row("a", "good", 1.0, "x", ("<=", 2)), Row("a", "bad", 3.0, "x", ("<=", 2))],
        Console(file=out, width=150),
    )
    good, bad = (line for line in out.getvalue().splitlines() if "good" in line or "bad" in line)
    assert "holds" in good
    assert "missed" in bad


def test_compilations_are_counted() -> None:
    def doubled(x: jax.Array) -> jax.Array:
        return 2 * x

    run = jax.jit(doubled)
    three, four = jnp.ones(3), jnp.ones(4)
    with steady.compilations() as counts:
        run(three)
        run(three)
        run(four)
    assert counts == {"jit(doubled)": 2}


def test_transfers_are_seen() -> None:
    run = jax.jit(lambda x: 2 * x)
    here, there = np.ones(3, np.float32), jnp.ones(3)
    run(there)
    assert steady.transfers(lambda: run(there), 2) == 0
    assert steady.transfers(lambda: run(here), 2) == 2


@pytest.mark.skipif(not memory.available(), reason="wants /proc")
def test_memory_of_a_step_is_seen() -> None:
    state, temporary = 40_000_000, 80_000_000

    def begin() -> Callable[[], object]:
        kept = np.ones(state, np.uint8)
        return lambda: kept.sum() + np.ones(temporary, np.uint8).sum()

    seen = memory.steady_peak(begin, steps=2)
    assert seen["extra"] == pytest.approx(state + temporary, rel=0.1)
    assert seen["extra_step"] == pytest.approx(temporary, rel=0.1)


def test_the_linearized_step_costs_five_forward_passes() -> None:
    made = problem(dataclasses.replace(FULL, pretrained=False))
    f, args = forward(made)
    unit = count_flops(f, *args)
    linear = step.operations(train_step(made, "linear")) / unit
    ordinary = step.operations(train_step(made, "nonlinear")) / unit
    assert linear <= 5.1
    assert ordinary == pytest.approx(3, rel=0.05)
    assert linear / ordinary == pytest.approx(5 / 3, rel=0.05)


def test_remat_saves_what_scanned_blocks_keep() -> None:
    size = dataclasses.replace(TINY, image_size=98, blocks=4, batch=64)
    kept, saved = (
        train_step(problem(size, scan=True, remat=remat), "linear").temporaries()
        for remat in ("none", "dots")
    )
    assert saved < 0.7 * kept


def test_maps_agree_with_a_pass_per_point() -> None:
    rows = maps.rows(TINY)
    differing = [row for row in rows if "differently" in row.quantity]
    assert [row.value for row in differing] == [0, 0, 0]
    (passes,) = (row for row in rows if row.quantity.endswith("passes"))
    # 3 x 3 points with 0 in the middle: 2 x 3 single predictions, 2 x (9 - 3) joint ones
    assert passes.value == (maps.PASSES_A_POINT * 9) / (6 + 12)


def test_the_vectors_of_the_maps_move_predictions() -> None:
    two = maps.pair(dataclasses.replace(TINY, n_eval=24))
    naive = maps._naive(two, "nonlinear")
    assert naive(np.array([1.0, 1.0])).sum() > 0
    assert naive(np.array([0.0, 0.0])).sum() == 0


def test_nothing_is_compiled_or_copied_in_the_steady_state() -> None:
    rows = steady.rows(TINY)
    assert {row.quantity: row.value for row in rows if not row.holds} == {}


@pytest.mark.parametrize(("model", "image_size"), [("vit_s_focus", 28), (torch_models.CLIP, 64)])
def test_the_torch_step_is_ours(model: str, image_size: int) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    size = dataclasses.replace(TINY, model=model, image_size=image_size)
    contest = against_torch.Contest("torch", size, {})
    made = contest.problem()
    params0 = made.backbone.params
    tau = displacement(params0, seed=0)

    def objective(tau: dict[str, jax.Array]) -> jax.Array:
        features = taylor.tangent(made.backbone.f)(params0, tau, made.images)
        logits = heads.apply_head(made.head, features)
        return train.cross_entropy(logits, made.labels).mean()

    loss, gradient = jax.jit(jax.value_and_grad(objective))(tau)
    theirs = against_torch.torch_twin(contest, made)
    theirs.begin(torch_models.weights(tau, size))
    before = {n: x.detach().numpy().copy() for n, x in theirs.trained.items()}
    images, labels = np.asarray(made.images), np.asarray(made.labels)
    assert theirs(images, labels) == pytest.approx(float(loss), rel=1e-5)
    # the table of positions is a linear image of ours, so its gradient is not
    gradient = {n: g for n, g in gradient.items() if "position" not in n}
    norm = float(tree.norm(gradient))
    resized = {n: tau[n] for n in ("class_position", "positions")}
    expected = torch_models.weights(gradient | resized, size)
    expected = {n: x for n, x in expected.items() if "position" not in n}
    got = {n: x.grad.numpy() for n, x in theirs.trained.items() if n in expected}
    clipped = np.sqrt(sum((g**2).sum() for g in got.values()))
    assert set(got) == set(expected)
    for name, value in expected.items():
        error = np.abs(got[name] / clipped - value / norm).max()
        assert error < 1e-5 + 1e-3 * np.abs(value).max() / norm, name
    moved = {n: np.abs(x.detach().numpy() - before[n]).max() for n, x in theirs.trained.items()}
    assert min(moved.values()) > 0


def test_kernels_alone_say_that_the_rival_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(kernels.RIVAL, raising=False)
    rows = kernels.rows(TINY)
    assert [row.holds for row in rows] == [True] * len(kernels.CASES["tiny"])
    assert all(kernels.RIVAL in row.note for row in rows)


@pytest.mark.skipif(not memory.available(), reason="wants /proc")
def test_kernels_beside_a_rival_in_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rival that answers as neural-tangents' process does, and is twice ours at one entry."""
    case = kernels.CASES["tiny"][0]
    wrong = kernels.kernel_call(case)().copy()
    wrong[np.unravel_index(np.abs(wrong).argmax(), wrong.shape)] *= 2
    np.save(tmp_path / "wrong.npy", wrong)
    stub = tmp_path / "python"
    stub.write_text(
        f"#!{sys.executable}\nimport json, shutil, sys\n"
        "for line in sys.stdin:\n"
        "    request = json.loads(line)\n"
        "    if request['do'] == 'prepare':\n"
        f"        shutil.copy({str(tmp_path / 'wrong.npy')!r}, request['out'])\n"
        "    known = {'extra': 1e9, 'seconds': 1.0 + (request.get('implementation') is None)}\n"
        "    print(json.dumps(known), flush=True)\n"
    )
    stub.chmod(0o755)
    monkeypatch.setenv(kernels.RIVAL, str(stub))
    difference, time_ratio, memory_ratio = kernels._rows(case, repeats=2)
    assert difference.value == pytest.approx(0.5)
    assert difference.holds is False
    assert time_ratio.value > 0
    assert 0 < memory_ratio.value < 1


def test_the_dual_ends_where_weight_space_does() -> None:
    ratio, difference = dual.rows(TINY)
    assert ratio.value > 0
    assert difference.holds


@pytest.mark.skipif(not memory.available(), reason="wants /proc")
def test_command_line_writes_table_and_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    out = tmp_path / "deep" / "bench.json"
    monkeypatch.setattr(bench, "TINY", dataclasses.replace(TINY, large_image_size=TINY.image_size))
    status = bench.main(["--tiny", "--case", "torch", "--out", str(out)])
    record = json.loads(out.read_text())
    rows = {row["quantity"]: row for row in record["rows"]}
    assert status == any(row["holds"] is False for row in record["rows"])
    assert record["facts"]["versions"]["jax"] == jax.__version__
    assert record["size"]["batch"] == TINY.batch
    parity = rows["largest difference of f_lin to torch's, 14 px"]
    assert parity["holds"]
    assert rows["memory of a step, ours / torch, 14 px"]["value"] > 0
    assert "time of a step" in capsys.readouterr().out


def test_clip_beside_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process; the other processes are the command line's test below."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    monkeypatch.setattr(memory, "available", lambda: False)
    rows = {row.quantity: row for row in clip.rows(TINY)}
    assert rows["largest difference of f_lin to torch's, 64 px"].holds
    for which in ("a linearized step", "an ordinary step"):
        assert rows[f"time of {which}, ours / torch, 64 px"].value > 0
    assert rows["time of a forward pass, ours / torch, 64 px"].value > 0


def test_steps_that_are_compiled_and_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "REGIMES", ("linear",))
    operations, bytes_held = policies.rows(TINY)
    assert 4 < operations.value < 5.1
    assert bytes_held.holds
    assert "remat='none'" in bytes_held.quantity


@pytest.mark.skipif(not memory.available(), reason="wants /proc")
def test_clip_is_loaded_into_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip, "LOADS", 1)
    monkeypatch.setattr(clip, "LOADED", {"scanned blocks": True})
    rows = {row.quantity: row for row in clip.load_rows(dataclasses.replace(TINY, blocks=4))}
    assert rows["seconds to load, scanned blocks"].value > 0
    peak = rows["resident peak / size of the file, scanned blocks"]
    assert 0.9 < peak.value < 1.5, (
        peak.note
    )  # a copy of so small a file weighs little beside jaxprs


def test_an_unknown_case_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(["--case", "maps-and-more"])
    assert "maps" in capsys.readouterr().err
