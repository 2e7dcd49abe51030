"""Work shared among processes: the bits of one process, whoever did what."""

import itertools
import math
import os
import socket
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linearize import curvature, evaluate, hosts, ntk, shares
from linearize.curvature.sensitivity import sensitivity
from linearize.disentangle import disentanglement_error, interference
from linearize.disentangle.moved import moved
from linearize.examples import Examples
from linearize.objectives import Classify
from linearize.train import MeshConfig, OptimConfig, TrainConfig, fine_tune


class Threads:
    """Threads that take themselves for the processes of one run."""

    def __init__(self, monkeypatch):
        self.own, self.patch = threading.local(), monkeypatch
        monkeypatch.setattr(jax, "process_index", lambda: getattr(self.own, "index", 0))

    def __call__(self, count, work):
        """What ``work()`` gives, or raises, in each of as many."""
        self.patch.setattr(jax, "process_count", lambda: count)
        meet, rows, found = threading.Barrier(count, timeout=60), [None] * count, [None] * count

        def gathered(row):
            rows[self.own.index] = row
            meet.wait()
            every = np.stack(rows)
            meet.wait()
            return every

        def run(index):
            self.own.index = index
            try:
                found[index] = work()
            except Exception as error:
                found[index] = error

        self.patch.setattr(hosts, "gathered", gathered)
        threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.patch.setattr(jax, "process_count", lambda: 1)
        return found


@pytest.fixture
def processes(monkeypatch):
    return Threads(monkeypatch)


def result(i):
    """Of every kind of leaf; some that JAX would narrow."""
    return {
        "flag": np.array([True, i % 2 == 0, False]),
        "wide": np.float64(1 / (i + 3)) * np.ones((2, 1)),
        "big": np.int64(2**40 + i),
        "half": np.full(3, i / 7).astype(jnp.bfloat16),
        "none": np.zeros((0, 4), np.float32),
        "number": float(i),
    }


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


@pytest.mark.parametrize("count", [2, 3])
def test_all_have_all_results_and_none_made_more_than_its_part(processes, monkeypatch, count):
    monkeypatch.setattr(shares, "_BYTES", 40 * count)  # in many pieces
    made = []

    def one(i):
        made.append(i)
        return result(i)

    def work(n, at_once):
        return list(shares.each(lambda numbers: map(one, numbers), n, at_once))

    for n, at_once in itertools.product((0, 1, 2, 5, 11), (None, 1, 4)):
        made.clear()
        for found in processes(count, partial(work, n, at_once)):
            same(found, [result(i) for i in range(n)])
        rounds = [min(at_once or n, n - first) for first in range(0, n, at_once or n or 1)]
        assert len(made) == sum(count * -(-each // count) for each in rounds)
        assert set(made) == set(range(n))


@pytest.mark.parametrize("count", [2, 3])
def test_each_item_is_done_once_and_all_are_told(processes, count):
    made = []

    def one(i):
        made.append(i)
        return f"item {i}"

    for n, at_once in itertools.product((0, 1, 5, 11), (1, 4)):
        made.clear()
        for rounds in processes(
            count,
            lambda n=n, at_once=at_once: list(
                shares.done(lambda numbers: map(one, numbers), n, at_once)
            ),
        ):
            assert len(rounds) == math.ceil(math.ceil(n / count) / at_once)
            assert sorted(itertools.chain(*rounds)) == sorted(f"item {i}" for i in range(n))
        assert sorted(made) == list(range(n))


@pytest.mark.parametrize("count", [3])
def test_sums_over_shares(processes, count):
    def work(own):
        return {"a": sum((np.arange(3) + i for i in own), np.zeros(3)), "b": np.int64(len(own))}

    for n in (0, 2, 7):
        for found in processes(count, lambda n=n: shares.total(work, n)):
            same(found, work(range(n)))


def test_what_fails_in_one_fails_in_all(processes):
    def work():
        def one(i):
            if i == 3:
                raise ValueError("item 3 is bad")
            return np.ones(2)

        return list(shares.each(lambda numbers: map(one, numbers), 4))

    first, second = processes(2, work)
    assert isinstance(first, hosts.HostError)
    assert "process 1: ValueError: item 3 is bad" in str(first)
    assert isinstance(second, ValueError)


def test_results_of_two_kinds_are_refused(processes):
    def work():
        kind = np.ones(2 + jax.process_index())
        return list(shares.each(lambda numbers: [kind for _ in numbers], 2))

    for error in processes(2, work):
        assert isinstance(error, hosts.HostError)
        assert "results" in str(error)


def test_alone_nothing_is_shared(processes):
    def work():
        with hosts.alone():
            assert not hosts.several()
            assert hosts.first()
            own = list(shares.each(lambda numbers: map(np.asarray, numbers), 3))
        inner = shares.each(  # a share within a share is one's own
            lambda numbers: (np.asarray(list(shares.each(lambda m: m, 2))) for _ in numbers), 2
        )
        return own, list(inner)

    for found in processes(2, work):
        same(found, ([np.asarray(i) for i in range(3)], [np.arange(2)] * 2))


def test_kernels_of_other_weights_are_refused_by_name(processes):
    def work():
        theta = {name: (1 + jax.process_index()) * leaf for name, leaf in THETA0.items()}
        return ntk.kernel(f, theta, X)

    for error in processes(2, work):
        assert isinstance(error, hosts.HostError)
        assert "params is" in str(error)


RNG = np.random.default_rng(0)
THETA0 = {"a": RNG.normal(size=(6, 8)).astype("f4"), "b": RNG.normal(size=(8, 4)).astype("f4")}
TAUS = [{n: (0.3 * RNG.normal(size=w.shape)).astype("f4") for n, w in THETA0.items()} for _ in "12"]
X, Y = RNG.normal(size=(45, 6)).astype("f4"), RNG.integers(0, 4, 45)
V = RNG.normal(size=(45, 4)).astype("f4")
PARTS = {n: {n: ()} for n in THETA0}
BATCHES = 5  # of ten examples, the last of five


def f(params, x):
    return jnp.tanh(x @ params["a"]) @ params["b"]


def error_map(regime, preview=None):
    """Of axes of two lengths, and of data sets of five batches and of three."""
    found = disentanglement_error(
        f, THETA0, TAUS, [X, X[::2]], regime=regime, preview=preview, batch_size=10,
        alphas=[[0.0, 1.0, 2.0], [0.0, 0.5, 1.0, 1.5]],
        objectives=Classify(distance="total_variation"),
        targets=[{"labels": Y}, {"labels": Y[::2]}],
    )  # fmt: skip
    return found.per_task, vars(found.preview) if found.preview else {}


def values(of, x=X, y=Y):
    points = np.array([[0, 0], [1, 0], [0.5, 0.5], [-1, 2], [0.3, 0.7]])
    return of(f, THETA0, TAUS, x, points, Classify(), {"labels": y}, 10)


def validated():
    """By how much the last validation of a fine-tuning differs from its vector's: nothing."""
    config = TrainConfig(
        optim=OptimConfig(lr=1e-2, warmup=0), steps=4, batch_size=8, validate_every=2,
        tensorboard=False, mesh=MeshConfig.fsdp(),
    )  # fmt: skip

    def seen(params0, tau):
        found = evaluate.affine_outputs(f, params0, [tau], X, 10)
        return [("sum", float(np.sum(np.asarray(found.at([1.0])), dtype=np.float64)))]

    data = {"inputs": X, "labels": Y}
    run = fine_tune(f, THETA0, data, regime="linear", config=config, validation=seen)
    return run.history[-1]["validation/sum"] - seen(THETA0, run.tau)[0][1]


def kernel(**how):
    return np.asarray(ntk.kernel(f, THETA0, X, batch_size=7, **how))


def kernel_on_disk(out):
    """One that was begun is gone on with, and one of which blocks are lost is made whole."""
    kernel(out=out, output="diagonal", max_pairs=5)
    found = kernel(out=out, output="diagonal")
    if hosts.first():
        noted = out / "blocks.txt"
        noted.write_text("".join(noted.read_text().splitlines(keepends=True)[:9]))
    hosts.together("lost")
    return found, kernel(out=out, output="diagonal")


THE_SAME = {
    "outputs": lambda _: evaluate.outputs(f, THETA0, X, 10),
    "one batch": lambda _: evaluate.outputs(f, THETA0, X[:3], 10),
    "affine": lambda _: vars(evaluate.affine_outputs(f, THETA0, TAUS, X, 10)),
    "interference": lambda _: interference(f, THETA0, TAUS, X, PARTS, batch_size=10),
    "moved": lambda _: vars(moved(f, THETA0, TAUS, X, PARTS, batch_size=10)),
    "displaced": lambda _: values(evaluate.displaced_values),
    "displaced, one batch": lambda _: values(evaluate.displaced_values, X[:3], Y[:3]),
    "streamed": lambda _: values(evaluate.streamed_values),
    "map": lambda _: error_map("nonlinear"),
    "map, linear": lambda _: error_map("linear"),
    "map, preview": lambda _: error_map("nonlinear", 2),
    "validation": lambda _: validated(),
    "kernel": lambda _: kernel(),
    "kernel of two sides": lambda _: ntk.kernel(f, THETA0, X, X[:5], batch_size=7, output="trace"),
    "kernel on disk": lambda out: kernel_on_disk(out / "kernel"),
}
"""What is one process's to the bit, computed in a folder."""

SUMMED = {
    "factors": lambda _: {
        f"{b} {name}": array
        for b, block in enumerate(curvature.measure(f, THETA0, X, batch_size=10).blocks)
        for name, array in block.arrays.items()
    },
    "sensitivity": lambda _: sensitivity(
        f, THETA0, Examples(X), list(THETA0), jax.random.key(0), batch_size=10
    ),
    "product": lambda _: ntk.vector_product(f, THETA0, X)(V),
}
"""What is summed over examples in another order."""


def bound(name, alone):
    """How far two orders of a sum may be apart: by Cauchy and Schwarz, of what is summed."""
    eps, one = np.finfo(np.float32).eps, alone[name]
    if name.startswith("product"):
        size = np.sqrt(np.einsum("nncc->nc", alone["kernel "]))
        return 2 * (X.size + V.size) * eps * size * np.sum(size * abs(V))
    if name.startswith("factors"):
        side = np.sqrt(np.diagonal(one, axis1=-2, axis2=-1))
        one = side[..., :, None] * side[..., None, :]
    return 2 * BATCHES * eps * one


def main(at, count, process, folder, names):
    """Everything by that name, in one of several processes."""
    if int(count) > 1:
        hosts.initialize(at, int(count), int(process))
    met, together = [], shares._exchanged
    shares._exchanged = lambda row: met.append(row) or together(row)
    found = {}
    for name in names.split(";"):
        met.clear()
        result = (THE_SAME | SUMMED)[name](Path(folder))
        leaves = jax.tree_util.tree_leaves_with_path(result)
        found |= {f"{name} {jax.tree_util.keystr(k)}": np.asarray(leaf) for k, leaf in leaves}
        assert bool(met) == (int(count) > 1), name
    np.savez(Path(folder) / f"{process}.npz", **found)


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    """``computed(n, names)``: what each of n processes found."""
    cache = tmp_path_factory.mktemp("compiled")

    def run(count, names, folder=None):
        folder = folder or tmp_path_factory.mktemp("run")
        with socket.socket() as free:
            free.bind(("localhost", 0))
            at = f"localhost:{free.getsockname()[1]}"
        environment = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=1 "
            "--xla_cpu_use_fusion_emitters=false",
        }
        given = [at, str(count)], [str(folder), ";".join(names)]
        started = [
            subprocess.Popen(
                [sys.executable, __file__, *given[0], str(process), *given[1]],
                env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for process in range(count)
        ]  # fmt: skip
        said = [process.communicate(timeout=600)[0] for process in started]
        assert [process.returncode for process in started] == [0] * count, "\n".join(said)
        return [np.load(folder / f"{process}.npz") for process in range(count)]

    return run


@pytest.fixture(scope="module")
def alone(computed):
    return computed(1, [*THE_SAME, *SUMMED])[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "names"),
    [(2, list(THE_SAME)), (4, ["one batch", "displaced", "map", "kernel"])],
)
def test_what_passes_are_made_for_is_the_same_to_the_bit(computed, alone, count, names):
    for found in computed(count, [*names, *SUMMED] if count == 2 else names):
        assert {name.partition(" [")[0].strip() for name in found.files} >= {*names}
        for name in found.files:
            assert found[name].dtype == alone[name].dtype, name
            if name.partition(" [")[0].strip() in names:
                assert np.array_equal(found[name], alone[name]), name
            else:
                assert (abs(found[name] - alone[name]) <= bound(name, alone)).all(), name


if __name__ == "__main__":
    main(*sys.argv[1:])
