"""A language model and text of one's own, through the main job, in user's code alone.

A small GPT of nnx (positions, causal attention, tied embedding), texts that lie in JSON lines, and
perplexity: nothing below imports more than a user would.
"""

import json

import jax
import numpy as np
import pytest
from flax import nnx

import linearize as lz
from linearize.objectives import CausalLM, Control
from linearize.train import OptimConfig, TrainConfig

pytestmark = pytest.mark.usefixtures("quick_compilation")

LETTERS = "\n abcdefgh"
LENGTH, WIDTH = 8, 16
RECIPE = TrainConfig(optim=OptimConfig(lr=0.02), steps=40, batch_size=16, checkpoint_every=0)


class GPT(nnx.Module):
    """Next-token logits (B, L, V) of tokens (B, L)."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Embed(len(LETTERS), WIDTH, rngs=rngs)
        self.places = nnx.Embed(LENGTH, WIDTH, rngs=rngs)
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.attend = nnx.MultiHeadAttention(2, WIDTH, decode=False, rngs=rngs)
        self.mlp = nnx.Sequential(
            nnx.Linear(WIDTH, 32, rngs=rngs), nnx.gelu, nnx.Linear(32, WIDTH, rngs=rngs)
        )

    def __call__(self, tokens):
        x = self.embed(tokens) + self.places(np.arange(tokens.shape[1])[None])
        x = x + self.attend(self.norm(x), mask=nnx.make_causal_mask(tokens))
        return self.embed.attend(x + self.mlp(x))


def write(path, words, n=150):
    """Lines ``{"text": ...}`` of words in an order of their own."""
    rng = np.random.default_rng(len(words))
    texts = (" ".join(rng.choice(words, 4))[: rng.integers(4, LENGTH + 1)] for _ in range(n))
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def text_task(path):
    """Letters before and after each place of a line; nothing is asked beyond a line's end."""
    texts = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    tokens = np.array([[LETTERS.index(c) for c in f"\n{t}".ljust(LENGTH + 1, "\n")] for t in texts])
    ends = np.array([len(t) for t in texts])
    labels = np.where(np.arange(LENGTH) < ends[:, None], tokens[:, 1:], -1)
    return lz.data.split_task(path.stem, tokens[:, :-1], {"labels": labels})


def perplexity(logits, examples):
    logits = np.asarray(logits, np.float64)
    logits -= logits.max(-1, keepdims=True)
    nats = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(
        logits, np.maximum(examples.labels, 0)[..., None], -1
    ).squeeze(-1)
    return np.exp(nats[examples.labels >= 0].mean())


@pytest.mark.slow
def test_a_language_model_and_text_of_ones_own(tmp_path):
    words = {"one": ["abc", "bad", "a"], "two": ["fed", "hedge", "he", "g"], "rest": ["cab", "beg"]}
    one, two, rest = (text_task(write(tmp_path / f"{n}.jsonl", w)) for n, w in words.items())
    model = GPT(nnx.Rngs(0))
    study = lz.Study(
        model,
        [one, two],
        CausalLM(),
        control=rest,
        recipes={"nonlinear": RECIPE, "linear": RECIPE},
        store=tmp_path / "run",
    )
    alphas = {"alphas": np.linspace(0, 1, 3), "map_alphas": np.linspace(-1, 1, 3)}
    plan = lz.Plan(**alphas, tolerance=Control(units=0.5))
    record = lz.compare(study, ["linear"], plan=plan).record
    assert record["metrics"]["one"]["name"] == "perplexity"
    f, theta0 = lz.from_nnx(model)
    f_lin = jax.jit(lz.linearize(f, theta0))
    for t, task in enumerate((one, two)):
        before = perplexity(f_lin(theta0, task.test.inputs), task.test)
        assert record["pretrained"][0][t] == pytest.approx(before, rel=1e-5)
        where = tmp_path / "run" / "seed_0" / "linear" / task.name / "task_vector.safetensors"
        theta = lz.TaskVector.load(where).apply_to(theta0)
        after = perplexity(f_lin(theta, task.test.inputs), task.test)
        assert record["single"]["linear"][0][t] == pytest.approx(after, rel=1e-5)
        assert after < 0.7 * before
    kept = np.asarray(record["negation"]["linear"]["control"])
    assert kept.shape == (1, 2)
    assert np.isfinite(kept).all()
