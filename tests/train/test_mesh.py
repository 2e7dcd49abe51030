"""Eight virtual devices give the result of one.

Tolerance: sums over a batch are taken in another order, so gradients agree to float32 rounding
(1e-6 relative); plain descent with momentum keeps τ within 1e-5 of one device's.
"""

import signal

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from linearize import tree
from linearize.train import MeshConfig, OptimConfig, step
from linearize.train.mesh import Placement

SGD = OptimConfig(name="sgd", lr=0.3, weight_decay=0.01, options={"momentum": 0.9})
MESHES = {
    "data": MeshConfig.data_parallel(),
    "fsdp": MeshConfig.fsdp(),
    "two axes": MeshConfig(
        axes=(("data", 4), ("model", 2)),
        rules=(("second", "model,-"), ("first/kernel", "-,model"), (".*", "fsdp")),
    ),
    "two of eight": MeshConfig(axes=(("data", 2),)),
}


def distance(a, b):
    return float(tree.norm({n: a.delta[n] - b.delta[n] for n in a.delta}) / b.norm())


@pytest.fixture(scope="module")
def alone(problem):
    return {regime: problem.run(regime, optim=SGD) for regime in ("nonlinear", "linear")}


@pytest.mark.slow(but=["data-linear", "two axes-linear", "fsdp-nonlinear"])
@pytest.mark.parametrize(
    ("name", "regime"), [*((name, "linear") for name in MESHES), ("fsdp", "nonlinear")]
)
def test_same_result_as_on_one_device(problem, alone, name, regime):
    got = problem.run(regime, optim=SGD, mesh=MESHES[name])
    assert distance(got.tau, alone[regime].tau) < 1e-5
    for row, expected in zip(got.history, alone[regime].history, strict=True):
        assert row["loss"] == pytest.approx(expected["loss"], rel=1e-5)
        assert row["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-4)
        assert row["accuracy"] == expected["accuracy"]


@pytest.mark.slow
def test_with_micro_batches_several_steps_a_call_and_streaming(problem, alone):
    fsdp = {"optim": SGD, "mesh": MeshConfig.fsdp()}
    for overrides in ({"accumulate": 2}, {"steps_per_call": 6}, {"device_bytes": 0}):
        got = problem.run("linear", **fsdp, **overrides)
        assert distance(got.tau, alone["linear"].tau) < 1e-5, overrides


@pytest.mark.slow(but=["1-mesh1", "6-None"])
@pytest.mark.parametrize("mesh", [None, MESHES["two axes"]])
@pytest.mark.parametrize("steps_per_call", [1, 6])
def test_the_form_that_overwrites_the_state(problem, alone, mesh, steps_per_call, monkeypatch):
    """As on an accelerator, or with a large state."""
    monkeypatch.setattr(step, "_LARGE", 0)
    got = problem.run("linear", optim=SGD, mesh=mesh, steps_per_call=steps_per_call)
    assert distance(got.tau, alone["linear"].tau) < 1e-5


def test_state_lies_as_the_rules_say(problem):
    """θ0, τ and both moments are split; scalars are whole; the batch is shared out."""
    from linearize.train import loop

    seen = {}
    advance = loop._Run._advance

    def look(self, at):
        taken = advance(self, at)
        seen.update(state=self.state, fixed=self.fixed)
        return taken

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Run, "_advance", look)
        problem.run(mesh=MeshConfig.fsdp(), steps=5)
    specs = {n: leaf.sharding.spec for n, leaf in tree.flatten(seen["state"]).items()}
    split = {"first/kernel": P(None, ("data",)), "first/bias": P(("data",))}
    for name, spec in split.items():
        assert specs[f"tau/{name}"] == spec
        moments = [s for n, s in specs.items() if n.startswith("opt/") and n.endswith(name)]
        assert moments == [spec, spec]
        assert tree.flatten(seen["fixed"]["params0"])[name].sharding.spec == spec
    assert specs["step"] == P()
    kernel = seen["state"]["tau"]["first/kernel"]
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(8, 2)}


@pytest.mark.parametrize(
    ("before", "after"),
    [(None, MeshConfig.fsdp()), (MeshConfig.fsdp(), None), (MESHES["two axes"], MeshConfig.fsdp())],
)
def test_checkpoints_restore_across_meshes(problem, run_dir, before, after, monkeypatch):
    whole = problem.run(optim=SGD, steps=20)
    from linearize.train import loop

    def stop(self, start, request, original=loop._Run._train):
        total, self.total = self.total, 11
        original(self, start, request)
        self.total = total
        request.number = signal.SIGINT
        self._interrupt(11, request)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "_train", stop)
        with pytest.raises(KeyboardInterrupt, match="step 11 of 20"):
            problem.run(optim=SGD, steps=20, run_dir=run_dir, mesh=before)
    got = problem.run(optim=SGD, steps=20, run_dir=run_dir, mesh=after)
    assert got.resumed_from == 11
    assert distance(got.tau, whole.tau) < 1e-5


def test_rules_are_ordered_and_the_first_match_wins():
    config = MeshConfig(
        axes=(("data", 4), ("model", 2)), rules=(("head", "replicated"), ("kernel", "-,model"))
    )
    leaves = {
        "head/kernel": np.zeros((8, 4)),
        "body/kernel": np.zeros((3, 4)),
        "bias": np.zeros(5),
    }
    specs = {n: s.spec for n, s in Placement.make(config).of(leaves).items()}
    assert specs == {"head/kernel": P(), "body/kernel": P(None, "model"), "bias": P()}


def test_fsdp_splits_the_largest_dimension_that_divides():
    leaves = {
        "a": np.zeros((16, 24)),
        "b": np.zeros((9, 8)),
        "c": np.zeros((7, 5)),
        "d": np.zeros(()),
    }
    specs = {n: s.spec for n, s in Placement.make(MeshConfig.fsdp()).of(leaves).items()}
    axes = ("data",)
    assert specs == {"a": P(None, axes), "b": P(None, axes), "c": P(), "d": P()}


def test_rules_that_do_not_fit_are_all_listed():
    config = MeshConfig(axes=(("data", 8),), rules=((".*", "-,data"),))
    leaves = {"a": np.zeros((2, 6)), "b": np.zeros(8), "c": np.zeros((1, 8))}
    with pytest.raises(ValueError, match=r"(?s)2 leaf or leaves.*a \(2, 6\).*b \(8,\)"):
        Placement.make(config).of(leaves)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"axes": (("data", -1), ("model", -1))}, "one may be -1"),
        ({"axes": ()}, "one axis or more"),
        ({"batch_axes": ("dtaa",)}, "'dtaa' is no axis"),
        ({"rules": ((".*", "-,modle"),)}, "'modle' is no axis"),
        ({"rules": (("(", "fsdp"),)}, r"mesh.rules\[0\]='\(' is no regular expression"),
        ({"rules": ((".*", "data,data"),)}, "'data,data' splits two dimensions over one axis"),
        ({"batch_axes": ("data", "data")}, "name each axis once"),
    ],
)
def test_bad_fields_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        MeshConfig(**fields)


def test_a_mesh_that_does_not_fit_the_machine_or_the_batch(problem):
    for size in (3, 16):
        axes = (("data", -1), ("model", size))
        with pytest.raises(ValueError, match=r"does not fit 8 device"):
            Placement.make(MeshConfig(axes=axes))
    with pytest.raises(ValueError, match="do not divide"):
        problem.run(mesh=MeshConfig.data_parallel(), batch_size=12)


def test_all_devices_are_used_by_default():
    assert Placement.make(MeshConfig()).ways == len(jax.devices()) == 8
