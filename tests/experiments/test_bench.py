"""The benchmark at tiny sizes: its counts are exact, its instruments see what they should."""

import dataclasses
import io
import json
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from experiments import budget
from experiments.bench import __main__ as bench
from experiments.bench import (
    against_torch,
    clip,
    demo,
    device,
    dual,
    fraction,
    generation,
    kernels,
    language,
    maps,
    measure,
    memory,
    peaks,
    policies,
    profile,
    steady,
    step,
    torch_models,
)
from experiments.bench.measure import Row, Times
from experiments.bench.workload import FULL, TINY, displacement, forward, train_step, workload
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


@pytest.mark.slow
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
    made = workload(dataclasses.replace(FULL, pretrained=False, blocks=3))
    f, args = forward(made)
    unit = count_flops(f, *args)
    linear = step.operations(train_step(made, "linear")) / unit
    ordinary = step.operations(train_step(made, "nonlinear")) / unit
    assert linear <= 5.1
    assert ordinary == pytest.approx(3, rel=0.05)
    assert linear / ordinary == pytest.approx(5 / 3, rel=0.05)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_remat_saves_what_scanned_blocks_keep() -> None:
    size = dataclasses.replace(TINY, image_size=98, blocks=4, batch=64)
    kept, saved = (
        train_step(workload(size, scan=True, remat=remat), "linear").temporaries()
        for remat in ("none", "dots")
    )
    assert saved < 0.7 * kept


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_maps_agree_with_a_pass_per_point() -> None:
    rows = maps.rows(TINY)
    differing = [row for row in rows if "differently" in row.quantity]
    assert [row.value for row in differing] == [0, 0, 0]
    (passes,) = (row for row in rows if row.quantity.endswith("passes"))
    # 3 x 3 points with 0 in the middle: 2 x 3 single predictions, 2 x (9 - 3) joint ones
    assert passes.value == (maps.PASSES_A_POINT * 9) / (6 + 12)


@pytest.mark.slow
def test_the_vectors_of_the_maps_move_predictions() -> None:
    two = maps.pair(dataclasses.replace(TINY, n_eval=24))
    naive = maps._naive(two, "nonlinear")
    assert naive(np.array([1.0, 1.0])).sum() > 0
    assert naive(np.array([0.0, 0.0])).sum() == 0


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_nothing_is_compiled_or_copied_in_the_steady_state() -> None:
    rows = steady.rows(TINY)
    assert {row.quantity: row.value for row in rows if not row.holds} == {}


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("model", "image_size"),
    [("vit_s_focus", 28), (torch_models.CLIP, 64)],
)
def test_the_torch_step_is_ours(model: str, image_size: int) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    size = dataclasses.replace(TINY, model=model, image_size=image_size)
    contest = against_torch.Contest("torch", size, {})
    made = contest.workload()
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


@pytest.mark.slow
def test_kernels_alone_say_that_the_rival_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(kernels.RIVAL, raising=False)
    rows = kernels.rows(TINY)
    assert [row.holds for row in rows] == [True] * len(kernels.CASES["tiny"])
    assert all(kernels.RIVAL in row.note for row in rows)


@pytest.mark.slow
def test_the_command_line_writes_what_a_case_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "bench.json"
    assert bench.main(["--tiny", "--case", kernels.CASE, "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    assert record["size"] == vars(TINY)
    assert list(record["seconds"]) == [kernels.CASE]
    assert record["facts"]["versions"]["jax"] == jax.__version__
    printed = capsys.readouterr().out
    assert len(record["rows"]) == len(kernels.CASES["tiny"])
    assert all(row["quantity"][:20] in printed for row in record["rows"])


def test_what_was_measured_is_written_before_a_case_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(size: object) -> list[Row]:
        raise RuntimeError("no more memory")

    cases = {"kernel": lambda size: [Row("kernel", "entries", 4.0)], "dual": fail}
    monkeypatch.setattr(bench, "CASES", cases)
    out = tmp_path / "bench.json"
    with pytest.raises(RuntimeError, match="no more memory"):
        bench.main(["--tiny", "--out", str(out)])
    record = json.loads(out.read_text())
    assert list(record["seconds"]) == ["kernel"]
    assert [row["value"] for row in record["rows"]] == [4.0]


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_fraction_of_a_kernel_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the logs and blocks of runs one after the other in this process."""
    asked = fraction.FRACTIONS["tiny"]
    logged: dict[str, tuple[int, ...]] = {"first": (7,), "killed": (1, 1), "resumed": (3,)}

    def runs(size: object) -> tuple[fraction._Run, ...]:
        folder = fraction._folder(TINY)
        folder.mkdir(parents=True)
        for name, of_each in logged.items():
            said = {"begun": time.time(), "noticed": 9.0, "noted": 1}
            for process, pairs in enumerate(of_each):
                fraction.compute(TINY, folder, name, pairs, process)
            (folder / f"{name}.json").write_text(json.dumps(said))
        return tuple(fraction._Run(TINY, name).read() for name in logged)

    how = fraction._how(TINY)  # one function, compiled once
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fraction, "_how", lambda size: dict(how))
    monkeypatch.setattr(fraction, "HOSTS", fraction.HOSTS[:1])
    monkeypatch.setattr(fraction, "runs", runs)
    rows = {row.quantity: row for row in fraction.rows(TINY)}
    pairs = asked.n * (asked.n + 1) // 2
    assert rows[f"N = {asked.n}, trace: pairs of blocks"].value == pairs
    assert rows["fraction computed"].value == asked.pairs / pairs
    assert f"{2 * asked.pairs - 1} of {asked.n**2} blocks" in rows["fraction computed"].note
    assert rows["bytes a block, measured / planned"].holds
    assert rows["largest difference of sampled entries"].holds
    assert rows["pairs lost to a kill"].value == 2 - 1
    for timed in ("seconds a pair and process", "seconds from the resumed start to its first pair"):
        assert 0 < rows[timed].value < float("inf")
    assert not list(tmp_path.glob("runs/bench/*"))


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_the_dual_ends_where_weight_space_does() -> None:
    ratio, difference = dual.rows(TINY)
    assert ratio.value > 0
    assert difference.holds


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
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


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_clip_beside_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process; the other processes are the command line's test below."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    monkeypatch.setattr(memory, "available", lambda: False)
    monkeypatch.setattr(clip, "FORMS", clip.FORMS[:1] * 2)
    rows = {row.quantity: row for row in clip.rows(TINY)}
    assert rows["largest difference of f_lin to torch's, 64 px"].holds
    for which in ("a linearized step", "an ordinary step"):
        assert rows[f"time of {which}, ours / torch, 64 px"].value > 0
    assert rows["time of a forward pass, ours / torch, 64 px"].value > 0


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_language_model_beside_torch() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    count, parity, ratio = language.beside(TINY)
    assert count.holds
    assert parity.holds
    assert ratio.value > 0


@pytest.mark.slow
def test_steps_that_are_compiled_and_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "REGIMES", ("linear",))
    operations, bytes_held = policies.rows(TINY)
    assert 4 < operations.value < 5.1
    assert bytes_held.holds
    assert "remat='none'" in bytes_held.quantity


@pytest.mark.slow
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


KIND = "NVIDIA H100 80GB HBM3"
LARGE = device.Job("vit_l14", "bfloat16", "linear")


def test_the_largest_batch_is_bisected() -> None:
    asked = []

    def held(batch: int) -> int:
        asked.append(batch)
        return 1000 + 10 * batch

    assert device.largest_batch(held, 1000 + 10 * 1063, start=128) == 1056
    assert asked[:5] == [128, 256, 512, 1024, 2048]
    assert len(asked) == 5 + 7  # halves of 1024, down to 8
    assert device.largest_batch(held, 1000 + 10 * 1056, start=128) == 1056
    assert device.largest_batch(held, 1000 + 10 * 47, start=128) == 40
    assert device.largest_batch(held, 1000, start=128) == 0


def test_a_step_that_cannot_be_compiled_does_not_fit() -> None:
    def refusing(why: str) -> Any:
        lower = Mock(side_effect=jax.errors.JaxRuntimeError(f"{why}: 99 GB"))
        arguments = ({}, {}, {"inputs": jnp.zeros((2, 3))})
        return Mock(run=Mock(lower=lower), arguments=lambda: arguments)

    assert device.compiled_bytes(refusing("RESOURCE_EXHAUSTED"), 8) == float("inf")
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        device.compiled_bytes(refusing("INTERNAL"), 8)


@pytest.mark.slow
def test_utilisation_is_of_the_operations_without_remat() -> None:
    # 5 x 162.0 GFLOP an image, 128 images in a quarter of a second
    assert peaks.utilisation(810e9, 128, 0.25, 989e12) == pytest.approx(0.41934, rel=1e-4)
    unit = budget.forward_flops(LARGE.config())
    linear = device.useful_flops(LARGE)
    ordinary = device.useful_flops(dataclasses.replace(LARGE, regime="nonlinear"))
    assert linear / unit == pytest.approx(4.996, abs=2e-3)
    assert ordinary / unit == pytest.approx(2.998, abs=2e-3)
    assert budget.step_flops(LARGE.config(), "linear") > linear  # the preset repeats some


def test_rows_of_a_timed_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "useful_flops", lambda job: 810e9)
    timed = {"seconds": [0.2, 0.25, 0.5], "kind": KIND, "precision": None, "peak": 7e10}
    seconds, images, share = device.time_rows(LARGE, timed)
    assert (seconds.value, seconds.spread) == (0.25, (0.225, 0.375))
    assert images.value == 512
    assert images.spread == pytest.approx((128 / 0.375, 128 / 0.225))
    assert share.value == pytest.approx(0.41934, rel=1e-4)
    assert share.spread == pytest.approx((0.41934 / 1.5, 0.41934 / 0.9), rel=1e-4)
    assert share.holds
    slow = {**timed, "seconds": [0.3, 0.3]}
    assert device.time_rows(LARGE, slow)[2].holds is False
    *_, ordinary = device.time_rows(dataclasses.replace(LARGE, regime="nonlinear"), slow)
    assert ordinary.goal is None
    peak, compiled = device.memory_rows(LARGE, {"bytes": 6e10}, timed)
    assert (peak.value, compiled.value) == (70, 60)


@pytest.mark.parametrize(
    ("precision", "arithmetic", "peak"),
    [(None, "tensorfloat32", 494e12), ("highest", "float32", 67e12)],
)
def test_float32_has_the_peak_of_its_arithmetic(
    precision: str | None, arithmetic: str, peak: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "useful_flops", lambda job: 810e9)
    job = dataclasses.replace(LARGE, dtype="float32")
    timed = {"seconds": [2.0, 2.0], "kind": KIND, "precision": precision}
    seconds, _, share = device.time_rows(job, timed)
    assert f"products in {arithmetic}" in seconds.note
    assert share.value == pytest.approx(810e9 * 128 / 2 / peak)
    assert share.goal is None
    other = device.time_rows(job, {**timed, "precision": "BF16_BF16_F32_X3"})
    assert len(other) == 2
    assert "BF16_BF16_F32_X3" in other[0].note


def test_an_unknown_device_has_no_utilisation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(peaks.GIVEN, raising=False)
    timed = {"seconds": [0.2, 0.25], "kind": "NVIDIA H100 PCIe", "precision": None}
    seconds, _ = device.time_rows(LARGE, timed)
    assert "no utilisation" in seconds.note
    assert "NVIDIA H100 PCIe" in seconds.note
    assert peaks.GIVEN in seconds.note
    monkeypatch.setenv(peaks.GIVEN, "bfloat16=756e12,tensorfloat32=378e12")
    assert peaks.peaks("NVIDIA H100 PCIe") == {"bfloat16": 756e12, "tensorfloat32": 378e12}
    assert peaks.peaks(KIND)["float32"] == 67e12


@pytest.mark.parametrize("given", ["756e12", "bfloat16=fast", "bfloat16=-1", "float16=1e12"])
def test_a_peak_that_cannot_be_read_is_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(peaks.GIVEN, given)
    with pytest.raises(ValueError, match=r"LINEARIZE_PEAKS=.*bfloat16=989e12"):
        peaks.peaks(KIND)


def test_steps_that_run_out_of_memory_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(module: str, request: dict) -> dict:
        if request["do"] == "search":
            return {"largest": 256, "bytes": 6e10, "room": 8e10}
        raise RuntimeError("experiments.bench.device failed: RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr(against_torch, "in_process", failing)
    fits, runs = device.rows(TINY)
    assert fits.value == 256
    assert (runs.value, runs.holds) == (0, False)


def test_a_cpu_alone_gives_no_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert device.rows(FULL) == []
    told = capsys.readouterr().err
    assert "needs an accelerator" in told
    assert len(told.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_tiny_step_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search in this process, the steps in others, of which the first compiles them."""
    alone = against_torch.in_process

    def ask(module: str, request: dict) -> dict:
        here = request["do"] == "search"
        return json.loads(json.dumps(device.main(request))) if here else alone(module, request)

    monkeypatch.setattr(against_torch, "in_process", ask)
    monkeypatch.setattr(device, "POOL", {})
    monkeypatch.setattr(device, "largest_batch", lambda held, room, start: 8 * (held(8) <= room))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv(peaks.GIVEN, "bfloat16=1e12")
    rows = {row.quantity.partition(": ")[2]: row for row in device.rows(TINY)}
    assert list(rows) == [
        "largest batch that fits",
        "steps of that batch run",
        "time of a step",
        "images a second",
        "model FLOP utilisation",
    ]
    assert rows["largest batch that fits"].value == 8
    assert rows["steps of that batch run"].holds
    seconds = rows["time of a step"].value
    assert 0 < seconds < float("inf")
    assert rows["images a second"].value == pytest.approx(8 / seconds)
    flops = device.useful_flops(device.jobs(TINY)[0])
    assert rows["model FLOP utilisation"].value == pytest.approx(flops * 8 / seconds / 1e12)


@pytest.mark.slow
def test_continuations_beside_transformers() -> None:
    pytest.importorskip("transformers")
    same, ratio, first, ours, theirs = generation.rows(TINY)
    assert same.holds
    assert ratio.spread is not None
    assert min(ratio.value, first.value) > 0
    assert min(ours.value, theirs.value) > 0


def test_an_unknown_case_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(["--case", "maps-and-more"])
    assert "maps" in capsys.readouterr().err


def test_a_profile_knows_loops_from_products() -> None:
    def f(x: jax.Array, w: jax.Array) -> jax.Array:
        return jnp.exp((x @ w).T).sum(axis=0)

    text = jax.jit(f).lower(jnp.ones((64, 40)), jnp.ones((40, 48))).compile().as_text()
    found = set(profile.kinds(text or "").values())
    assert {"products", "sums"} <= found
    assert (
        profile.kinds("""
%moved (p: f32[2,3]) -> f32[3,2] {
  ROOT %t = f32[3,2]{1,0} transpose(%p), dimensions={1,0}
}
ENTRY %main (a: f32[2,3]) -> f32[3,2] {
  %loop = f32[2,3]{1,0} while(%a), condition=%c, body=%b
  ROOT %copied = f32[3,2]{1,0} fusion(%loop), kind=kLoop, calls=%moved
}""")["copied"]
        == "copies and transpositions"
    )


def test_a_run_s_seconds_are_of_its_parts() -> None:
    """Of two parts and a gap between; of two programs, one traced while the other was."""
    ledger = demo.Ledger([("starting Python", 100.0), ("reading", 102.0)])
    for at, message in (
        (110.0, "seed 0 [1/3] linear fine-tuning"),
        (130.0, "seed 0 [2/3] single_linear"),
        (135.0, "seed 0 [3/3] single_posthoc"),
        (140.0, "seed 0: measured in 38 s"),
    ):
        record = logging.makeLogRecord({"msg": message})
        record.created = at
        ledger.handle(record)
    ledger.end = 147.0
    ledger.stretches = {
        "tracing": [(111.0, 114.0), (112.0, 113.0), (128.0, 132.0)],
        "compiling": [(114.0, 120.0)],
    }
    assert ledger.parts() == {
        "starting Python": {"all": 2, "tracing": 0, "compiling": 0},
        "reading": {"all": 8, "tracing": 0, "compiling": 0},
        "linear fine-tuning": {"all": 20, "tracing": 5, "compiling": 6},
        "single": {"all": 10, "tracing": 2, "compiling": 0},
        "results and page": {"all": 7, "tracing": 0, "compiling": 0},
    }
    assert ledger.seconds == 47
    assert sum(part["all"] for part in ledger.parts().values()) == ledger.seconds


def test_a_run_s_compilations_are_heard() -> None:
    ledger = demo.Ledger([("reading", time.time())])
    jax.monitoring.register_event_duration_secs_listener(ledger.heard)
    try:
        jax.jit(lambda x: jnp.sin(x) + 3)(jnp.ones(5)).block_until_ready()
    finally:
        jax.monitoring.unregister_event_duration_listener(ledger.heard)
    ledger.end = time.time()
    (part,) = ledger.parts().values()
    assert 0 < part["tracing"] < part["all"]
    assert 0 < part["compiling"] < part["all"]


def test_a_demo_s_rows_are_of_both_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def finished(preset: str, folder: Path, turn: str) -> demo.Ledger:
        assert preset == "demo"
        length = {"first": 240.0, "second": 60.0}[turn]
        return demo.Ledger([("reading", 1000.0)], end=1000.0 + length, processor=2 * length)

    monkeypatch.setattr(demo, "_run", finished)
    whole, ratio, reading = demo.rows(FULL)
    assert (whole.value, whole.holds) == (240, True)
    assert ratio.value == 0.25
    assert reading.value == 240
    assert "second run 60.0 s" in reading.note
