"""Synthetic runs: result files with deterministic, realistic-looking numbers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from linearize import report

NAMES = (
    "mnist", "fashion", "traffic-signs", "letters", "animals", "landsat", "digits", "emoji",
    "clip-art",
)  # fmt: skip


def make_results(
    T: int = 4,
    S: int = 3,
    *,
    n_maps: int = 2,
    optional: bool = True,
    A: int = 21,
    G: int = 21,
    names: tuple[str, ...] = NAMES,
    seed: int = 0,
) -> dict[str, Any]:
    """A whole ``results.json``; without ``optional``, only the keys that every run has."""
    rng = np.random.default_rng(seed)
    tasks = list(names[:T])
    alphas = np.linspace(0, 1, A)
    classes = {t: [f"{t} {c}" for c in range(6 + 3 * i % 11)] for i, t in enumerate(tasks)}

    def noisy(values: Any, scale: float = 0.01) -> np.ndarray:
        values = np.broadcast_to(np.asarray(values, float), (S, *np.shape(values)))
        return np.clip(values + scale * rng.standard_normal(values.shape), 0.01, 0.995)

    before = rng.uniform(0.45, 0.75, T)
    best = before + (0.97 - before) * rng.uniform(0.55, 0.95, T)
    gain = {"nonlinear": 0.50, "posthoc": 0.36, "linear": 0.62}
    top = {"nonlinear": best, "posthoc": before + 0.8 * (best - before), "linear": best - 0.01}
    peak = {"nonlinear": 0.35, "posthoc": 0.3, "linear": 0.45, "random": 0.2}
    single = {m: noisy(v, 0.008) for m, v in top.items()}

    def added(m: str, regime: str, rise: float) -> dict[str, Any]:
        shape = 1 - ((alphas - peak[m]) / peak[m]).clip(-1, 2) ** 2 * np.where(
            alphas > peak[m], 0.35, 1.0
        )
        mean = before + (top[regime] - before) * rise * shape[:, None]
        test, valid = noisy(mean, 0.006), noisy(mean, 0.01)
        chosen = valid.mean(-1).argmax(-1)
        accuracy = test[np.arange(S), chosen]
        return {
            "alpha": alphas[chosen],
            "accuracy": accuracy,
            "normalized": accuracy / single[regime],
            "full": test[:, -1],
            "full_normalized": test[:, -1] / single[regime],
            "sweep_validation": valid,
            "sweep_test": test,
        }

    addition: dict[str, Any] = {m: added(m, m, gain[m]) for m in gain}
    negation: dict[str, Any] = {
        m: {
            "alpha": rng.choice(alphas[8:], (S, T)),
            "target": noisy(before * keep, 0.015),
            "control": noisy(0.64 * rng.uniform(0.955, 0.985, T), 0.006),
        }
        for m, keep in {"nonlinear": 0.55, "posthoc": 0.4, "linear": 0.25}.items()
    }
    cosines = {}
    for m, scale in {"nonlinear": 0.10, "linear": 0.06}.items():
        raw = scale * rng.standard_normal((S, T, T))
        cosines[m] = (raw + raw.transpose(0, 2, 1)) / 2
        cosines[m][:, np.arange(T), np.arange(T)] = 1.0
    grid = np.linspace(-2, 2, G)
    x, y = np.meshgrid(grid, grid, indexing="ij")
    maps = []
    for i in range(n_maps):
        pair = [tasks[i % T], tasks[(i + 1) % T]]
        per_task = {}
        for m, rate in {"nonlinear": 0.5, "posthoc": 0.62, "linear": 0.3}.items():
            first = 1 - np.exp(-rate * (y**2 * 0.8 + 0.12 * np.abs(x * y)))
            second = 1 - np.exp(-rate * (x**2 * 0.5 + 0.2 * np.abs(x * y)))
            per_task[m] = noisy(np.stack([first, second]), 0.006)
        maps.append(
            {
                "tasks": pair,
                "n_eval": 400,
                "search_box": [-1, 1],
                "alphas": grid,
                "per_task": per_task,
                "total": {m: v.sum(1) for m, v in per_task.items()},
                "distance": "argmax disagreement",
                "reduction": "sum",
            }
        )
    results: dict[str, Any] = {
        "schema": 1,
        "experiment": "compare",
        "preset": "demo",
        "seconds": 251.3,
        "versions": {"linearize": "0.1.0", "jax": "0.10.2", "flax": "0.12.8", "optax": "0.2.8"},
        "config": {"model": {"name": "vit_s_focus", "blocks": 6}, "train": {"steps": 100}},
        "tasks": tasks,
        "classes": classes,
        "counts": {t: {"train": 2000 + 37 * i, "validation": 400, "test": 1000 - 10 * i}
                   for i, t in enumerate(tasks)},
        "seeds": list(range(S)),
        "model": {"name": "vit_s_focus", "image_size": 28, "parameters": 11_382_144},
        "alphas": alphas,
        "pretrained": noisy(before, 0.004),
        "single": single,
        "addition": addition,
        "negation": negation,
        "control_task": tasks[-1],
        "control_pretrained": noisy(np.full(T, 0.64), 0.004),
        "cosine": cosines,
        "maps": maps,
        "claims": [],
    }  # fmt: skip
    if optional:
        results["random_init"] = noisy(np.full(T, 0.15), 0.02)
        addition["random"] = added("random", "linear", 0.02)
        addition["joint"] = {"accuracy": noisy(best - 0.02), "normalized": noisy(0.97 + 0 * best)}
        negation["random"] = {
            "alpha": rng.choice(alphas, (S, T)),
            "target": noisy(before * 0.97),
            "control": noisy(np.full(T, 0.62)),
        }
        negation["gradient_ascent"] = {
            "alpha": None,
            "target": noisy(before * 0.08),
            "control": noisy(np.full(T, 0.2), 0.03),
        }
        results["claims"] = [
            {"claim": "Post-hoc linearization is below non-linear fine-tuning on single tasks.",
             "held": True, "evidence": "Mean 83.1 % against 87.0 %."},
            {"claim": "Linear fine-tuning beats both in addition.", "held": True,
             "evidence": "76.0 % against 73.6 % (non-linear) and 70.2 % (post-hoc)."},
            {"claim": "The disentangled region is larger in the linear regime.", "held": False,
             "evidence": "Mean ξ in the box 0.28 against 0.27: inside the interval."},
            {"claim": "Task vectors are close to orthogonal.", "held": None,
             "evidence": "Only two related tasks were run."},
        ]  # fmt: skip
    return json.loads(json.dumps(results, default=lambda a: np.asarray(a).tolist()))


def make_explorer(
    results: dict[str, Any],
    E: int = 80,
    seed: int = 1,
    others: tuple[str, ...] = (),
    images: int = 0,
) -> dict[str, np.ndarray]:
    """The arrays of ``explorer.npz``: each task's vector helps itself and disturbs the others."""
    rng = np.random.default_rng(seed)
    T = len(results["tasks"])
    arrays = {}
    for t, task in enumerate(results["tasks"]):
        C = len(results["classes"][task])
        labels = rng.integers(0, C, E)
        truth = np.eye(C)[labels]
        moved = 0.45 * rng.standard_normal((T, E, C))
        moved[t] += 1.6 * truth
        arrays[f"{task}/logits0"] = (rng.standard_normal((E, C)) + 1.5 * truth).astype(np.float32)
        arrays[f"{task}/dlogits"] = moved.astype(np.float32)
        arrays[f"{task}/labels"] = labels.astype(np.int32)
        for m in others:
            turned = 0.8 * moved + 0.3 * rng.standard_normal(moved.shape)
            arrays[f"{task}/dlogits/{m}"] = turned.astype(np.float32)
        if images:
            arrays[f"{task}/shown"] = np.sort(rng.choice(E, images, replace=False))
            arrays[f"{task}/images"] = rng.integers(0, 256, (images, 7, 5, 3)).astype(np.uint8)
    return arrays


def write_run(
    run_dir: Path, results: dict[str, Any], explorer: dict[str, np.ndarray] | None
) -> Path:
    """Writes a run directory as the experiment does."""
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "results.json").write_text(json.dumps(results))
    if explorer is not None:
        np.savez(run_dir / "explorer.npz", **explorer)
    return run_dir


@pytest.fixture(name="make_results")
def make_results_fixture() -> Callable[..., dict[str, Any]]:
    return make_results


@pytest.fixture(name="make_explorer")
def make_explorer_fixture() -> Callable[..., dict[str, np.ndarray]]:
    return make_explorer


@pytest.fixture(name="write_run")
def write_run_fixture() -> Callable[..., Path]:
    return write_run


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A finished run of four tasks and three seeds with its report, and its results."""
    raw = make_results(4, 3)
    run = write_run(tmp_path_factory.mktemp("whole"), raw, make_explorer(raw))
    report.write_all(run)
    return run, raw
