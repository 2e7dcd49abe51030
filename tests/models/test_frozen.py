"""A model in two parts: what they compute together, and what is not computed again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from linearize import agreement, cost, tree
from linearize.data import split_task
from linearize.methods import METHODS
from linearize.models import Model
from linearize.models.frozen import cut
from linearize.models.language import label_words, load_language
from linearize.objectives import Classify
from linearize.study import Study, computed_once
from linearize.task_vector import TaskVector
from linearize.train import OptimConfig, TrainConfig

TOKENS = np.random.default_rng(0).integers(0, 64, (48, 6))
LAST = "^block_1/"


class Twice(nn.Module):
    """A block that is called twice, before one that is called once."""

    @nn.compact
    def __call__(self, x):
        shared = nn.Dense(3, name="block_0")
        return nn.Dense(2, name="block_1")(shared(shared(x)))


def asked():
    """Prompts, the place that is asked at, and their classes."""
    last = np.full(len(TOKENS), 5, np.int32)
    return split_task(
        "words", (TOKENS, last), TOKENS[:, 2] % 2, validation=0.25, test=0.25, classes=("a", "b")
    )


def reader(**options):
    return label_words(load_language("toy_decoder", pretrained=False, **options), [3, 7])


def test_it_computes_the_same_for_less_work():
    model, task = reader(), asked()
    above, tasks = computed_once(model, {"words": task}, LAST, batch_size=8)
    own, both = task.train.inputs, tasks["words"].train.inputs
    np.testing.assert_allclose(
        jax.jit(above.f)(model.params, *both), jax.jit(model.f)(model.params, *own), atol=1e-6
    )
    # counted by hand: the second of two equal blocks, and two rows of the head
    whole, words = cost.count_flops(model.f, model.params, *own), 2 * len(task.train) * 16 * 2
    assert cost.count_flops(above.f, model.params, *both) == (whole - words) // 2 + words


@pytest.mark.slow
def test_a_decoder_s_blocks_still_read_the_frozen_encoder():
    model, tokens = load_language("toy_t5", pretrained=False), TOKENS[:3]
    inputs = (tokens, tokens > 3, tokens[:, :4])
    found = cut(model, "^decoder/block_1/", *inputs)
    assert found.block == "decoder/block_0"
    given = jax.jit(found.below)(model.params, *inputs)
    np.testing.assert_allclose(
        jax.jit(found.above.f)(model.params, *inputs, *given),
        jax.jit(model.f)(model.params, *inputs),
        atol=2e-5,
    )


@pytest.mark.slow
@pytest.mark.parametrize("regime", ["linear", "nonlinear"])
def test_a_study_above_frozen_blocks_trains_the_same_vector(regime):
    model, task = reader(), asked()
    above, tasks = computed_once(model, {"words": task}, LAST, batch_size=8)
    recipe = TrainConfig(optim=OptimConfig(lr=1e-2, warmup=0), steps=4, batch_size=8)

    def trained(of, tasks):
        study = Study(of, tasks, Classify(), trainable=LAST, recipes={regime: recipe})
        return study.vectors(METHODS[regime])["words"]

    ours, theirs = trained(above, tasks), trained(model, {"words": task})
    assert ours.base == theirs.base  # the same θ0, the whole of it
    for name, leaf in theirs.delta.items():
        np.testing.assert_allclose(ours.delta[name], leaf, rtol=1e-3, atol=2e-6)


def test_other_parameters_below_are_not_looked_at_and_those_above_are():
    model = reader()
    at = jnp.full(48, 5)
    parts = cut(model, LAST, TOKENS, at)
    given = jax.jit(parts.below)(model.params, TOKENS, at)
    for leaf, moves in {"block_0/mlp_in/kernel": False, "block_1/mlp_in/kernel": True}.items():
        moved = tree.update(model.params, {leaf: tree.flatten(model.params)[leaf] + 1.0})
        same = jnp.array_equal(
            parts.above.f(moved, TOKENS, at, *given),
            parts.above.f(model.params, TOKENS, at, *given),
        )
        assert bool(same) != moves


def test_the_cut_is_at_the_last_block_that_no_trained_leaf_has_a_part_in():
    deep = load_language("toy_bert", pretrained=False)
    tokens, mask = TOKENS[:2], np.ones((2, 6), bool)
    found = cut(deep, f"^{deep.blocks[-1]}/|^norm", tokens, mask)
    assert found.block == deep.blocks[-2]


@pytest.mark.parametrize(
    ("model", "trainable", "inputs"),
    [
        (load_language("toy_decoder", pretrained=False), "block_0", (TOKENS,)),
        (load_language("toy_decoder", pretrained=False), "block_1|token", (TOKENS,)),
        (load_language("toy_decoder", pretrained=False, scan=True), None, (TOKENS,)),
        (load_language("toy_decoder", pretrained=False, remat="full"), "block_1", (TOKENS,)),
        (Model.of(nnx.Linear(3, 2, rngs=nnx.Rngs(0))), None, (np.ones((1, 3)),)),
    ],
    ids=["first block", "tied embedding", "scanned", "rematerialised", "nnx"],
)
def test_where_nothing_is_frozen_below_there_is_no_cut(model, trainable, inputs):
    assert cut(model, trainable, *inputs) is None


def test_a_block_that_is_called_twice_is_no_place_to_cut():
    x = np.ones((4, 3), np.float32)
    variables = Twice().init(jax.random.key(0), x)
    model = Model.of((Twice(), variables))
    model = Model(model.f, model.params, blocks=("block_0", "block_1"))
    assert cut(model, "block_1", x) is None


def test_what_takes_more_memory_is_computed_each_time():
    model, task = reader(), asked()
    held = 48 * 6 * 16 * 4
    assert computed_once(model, {"words": task}, LAST, memory=held - 1)[0] is model
    assert computed_once(model, {"words": task}, LAST, memory=held)[0] is not model


def test_what_would_move_a_leaf_below_is_refused():
    above, tasks = computed_once(reader(), {"words": asked()}, LAST)
    with pytest.raises(ValueError, match="trainable=None moves block_0/attention"):
        Study(above, tasks, Classify())
    study = Study(above, tasks, Classify(), trainable=LAST)
    tau = TaskVector({"token_embedding": np.ones((64, 16), np.float32)})
    with pytest.raises(ValueError, match="vector of 'words' moves token_embedding, of blocks"):
        study.view(METHODS["linear"], {"words": tau})


def test_parts_that_compute_something_else_are_refused(monkeypatch):
    model = reader()
    parts = cut(model, LAST, TOKENS, jnp.zeros(48, int))
    wrong = parts._replace(below=lambda *args: [2 * x for x in parts.below(*args)])
    monkeypatch.setattr("linearize.study.frozen.cut", lambda *args: wrong)
    with pytest.raises(agreement.DisagreementError, match="above block_0: entry"):
        computed_once(model, {"words": asked()}, LAST)
