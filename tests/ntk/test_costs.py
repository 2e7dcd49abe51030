"""What a kernel is said to cost is what it does: every run of every program, every byte."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linearize import cost, ntk, shares
from linearize.ntk.jacobian import Part

RNG = np.random.default_rng(0)
PARAMS = {
    "a": RNG.normal(size=(3, 4)).astype(np.float32),
    "b": RNG.normal(size=(4, 2)).astype(np.float32),
}
X = RNG.normal(size=(7, 3)).astype(np.float32)


def f(params, x):
    return jnp.tanh(x @ params["a"]) @ params["b"]


class Ran:
    """What the programs of a kernel were called with."""

    def __init__(self, monkeypatch):
        self.flops = self.differentiated = 0
        self.traced = {}
        module = sys.modules["linearize.ntk.kernel"]  # the name in the package is the function's
        monkeypatch.setattr(module, "_compile", lambda part, mesh: self.watched(part))
        monkeypatch.setattr(module, "remembered", lambda key, make: make())

    def watched(self, part):
        def call(function, formed):
            def run(*args):
                like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), args)
                leaves, structure = jax.tree.flatten(like)
                key = function, structure, tuple(leaves)
                if key not in self.traced:
                    self.traced[key] = cost.count_flops(function, *like)
                self.flops += self.traced[key]
                self.differentiated += sum(len(x[0]) for x in formed(*args) if x is not None)
                return function(*args)

            return function and run

        forms = part.derive is not None
        return Part(
            call(part.block, lambda params, x1, x2: [x1, x2] if forms else []),
            call(part.derive, lambda params, x: [x]),
            call(part.meet, lambda params, left, x2: [x2]),
        )


CASES = {
    "kept": {"output": "trace", "batch_size": 2},
    "kept, by jacobian": {"batch_size": 3, "implementation": "jacobian"},
    "one block": {"output": "diagonal", "batch_size": 7},
    "two sides": {"n2": 4, "batch_size": 3},
    "by products": {"batch_size": 4, "implementation": "products"},
    "in groups": {"output": "mean", "batch_size": 2, "memory": 100, "implementation": "jacobian"},
    "asymmetric": {"batch_size": 2, "optimizer": "asymmetric_signgd"},
}


@pytest.mark.parametrize("case", CASES)
def test_operations_and_bytes_are_those_of_a_run(case, monkeypatch, tmp_path):
    how = {**CASES[case]}
    n2 = how.pop("n2", None)
    said = ntk.kernel_cost(f, PARAMS, X[:1], len(X), n2, **how)
    ran = Ran(monkeypatch)
    found = ntk.kernel(f, PARAMS, X, None if n2 is None else X[:n2], out=tmp_path, **how)
    assert found.shape[:2] == (len(X), n2 or len(X))
    assert (said.flops, said.differentiated) == (ran.flops, ran.differentiated)
    assert said.flops_each == said.flops > 0
    files = [p for p in (tmp_path / "array.zarr" / "c").rglob("*") if p.is_file()]
    assert said.stored == sum(p.stat().st_size for p in files)
    assert (len(files), len(files)) == ntk.count_blocks(tmp_path)


@pytest.mark.parametrize("processes", [2, 3])
def test_each_process_s_part(processes, monkeypatch, tmp_path):
    how = {"output": "trace", "batch_size": 2}
    said = ntk.kernel_cost(f, PARAMS, X, len(X), processes=processes, **how)
    ran, blocks = [], 0
    for process in range(processes):
        ran.append(Ran(monkeypatch))
        own = shares.share_of(said.pairs, process, processes)
        monkeypatch.setattr(shares, "share", lambda n, own=own: own)
        folder = tmp_path / str(process)
        ntk.kernel(f, PARAMS, X, out=folder, max_pairs=said.pairs, **how)
        blocks += ntk.count_blocks(folder)[0]
    assert (said.pairs, blocks) == (10, 16)
    assert said.pairs_each == -(-10 // processes)
    assert said.flops == sum(one.flops for one in ran)
    assert said.flops_each == max(one.flops for one in ran)
    assert said.differentiated == sum(one.differentiated for one in ran)


@pytest.mark.parametrize(("name", "value"), [("n1", 0), ("n2", 0), ("processes", 0)])
def test_what_is_no_number_is_named(name, value):
    with pytest.raises(ValueError, match=f"{name}={value}"):
        ntk.kernel_cost(f, PARAMS, X, **{"n1": 2, name: value})
