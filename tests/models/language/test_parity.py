"""Language models against transformers on torch, at random weights in odd sizes."""

import copy
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linearize import models, taylor, train, tree
from linearize.models import hf, layers
from linearize.models.language import LANGUAGE, load_language
from linearize.objectives import CausalLM
from linearize.train import OptimConfig, TrainConfig

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

B, L = 3, 9
GIVEN = {"tokens": "input_ids", "mask": "attention_mask", "answer": "decoder_input_ids"}
STEPS, WARMUP, LR, DECAY = 10, 3, 3e-3, 0.1
pytestmark = pytest.mark.usefixtures("quick_compilation")


@dataclass(frozen=True)
class Case:
    """A family's row, the class of transformers, and a configuration of it.

    Attributes:
        name: of the row.
        builds: the class.
        config: its configuration's arguments.
        blind: leaves of which, and the part of them of which, softmax sees nothing (biases of
            keys): their gradient is rounding, which Adam blows up to the learning rate.
    """

    name: str
    builds: str
    config: dict
    blind: dict = field(default_factory=dict)


GPT2 = {
    "vocab_size": 53,
    "n_positions": 19,
    "n_embd": 21,
    "n_layer": 2,
    "n_head": 3,
    "n_inner": 50,
}
LLAMA = {
    "vocab_size": 53,
    "max_position_embeddings": 19,
    "hidden_size": 30,
    "intermediate_size": 50,
    "num_hidden_layers": 2,
    "num_attention_heads": 5,
    "num_key_value_heads": 1,
    "tie_word_embeddings": True,
}
MIDDLE = {"attention/qkv/bias": 1}
CASES = {
    "gpt2": Case("gpt2", "GPT2LMHeadModel", GPT2, MIDDLE),
    "gpt2 untied": Case(
        "gpt2",
        "GPT2LMHeadModel",
        {**GPT2, "tie_word_embeddings": False, "activation_function": "relu"},
        MIDDLE,
    ),
    "llama": Case("llama", "LlamaForCausalLM", LLAMA),
    "llama untied": Case(
        "llama",
        "LlamaForCausalLM",
        {**LLAMA, "num_key_value_heads": 5, "head_dim": 4, "tie_word_embeddings": False},
    ),
}
FEW = ["gpt2", "llama"]


class Saved:
    """A random model of transformers, its folder, and the same model here, scanned."""

    def __init__(self, case, folder):
        self.case, self.folder = case, folder
        kind = getattr(transformers, case.builds)
        config = kind.config_class(**case.config, attn_implementation="eager")
        torch.manual_seed(0)
        self.torch = kind(config).eval()
        for parameter in self.torch.parameters():
            spread = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.3
            parameter.data = torch.randn(parameter.shape) * spread
        self.torch.save_pretrained(folder)
        self.family = LANGUAGE[case.name]
        self.ours = self.load()
        rng = np.random.default_rng(1)
        drawn = {
            "tokens": rng.integers(case.config["vocab_size"], size=(B, L)),
            "mask": np.arange(L) < np.array([[L], [L - 3], [2]]),
            "answer": rng.integers(case.config["vocab_size"], size=(B, 4)),
        }
        self.words = self.family.inputs.split()
        self.inputs = [drawn[word] for word in self.words]
        #: where the outputs count: everywhere, or where a token is no padding
        self.seen = drawn["mask"] if self.words == ["tokens", "mask"] else ...
        shape = (B, 4 if "answer" in drawn.keys() & set(self.words) else L)
        self.labels = rng.integers(case.config["vocab_size"], size=shape)

    def load(self, **options):
        return load_language(self.case.name, weights=self.folder, **{"scan": True, **options})

    def logits(self, params=None, module=None):
        """Of transformers, at these parameters by its own names."""
        given = {
            GIVEN[word]: torch.tensor(x) for word, x in zip(self.words, self.inputs, strict=True)
        }
        module = module or self.torch
        if params is None:
            return module(**given).logits
        return torch.func.functional_call(module, params, (), given).logits

    def parameters(self):
        return {n: p.detach().clone() for n, p in self.torch.named_parameters()}

    def theirs(self, leaves):
        """Leaves of ours, or differences of them, by the names of transformers."""
        flat = layers.unstack(tree.flatten(leaves))
        named = hf.export_leaves(flat, self.family.dialects[0])
        return {n: torch.tensor(x) for n, x in named.items()}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("language"), {}

    def get(name):
        if name not in made:
            made[name] = Saved(CASES[name], folder / name)
        return made[name]

    return get


def gap(a, b, seen=...):
    """The largest difference, by the largest of the second."""
    a, b = (np.asarray(x, np.float32)[seen] for x in (a, b))
    return np.abs(a - b).max() / np.abs(b).max()


@pytest.mark.slow(but=FEW)
@pytest.mark.parametrize("name", CASES)
def test_logits_equal_transformers(saved, name):
    model = saved(name)
    with torch.no_grad():
        expected = model.logits().numpy()
    got = jax.jit(model.ours.f)(model.ours.params, *model.inputs)
    assert got.dtype == jnp.float32
    assert got.shape == (*model.labels.shape, model.ours.vocabulary)
    assert gap(got, expected, model.seen) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
def test_bfloat16_is_no_further_off_than_theirs(saved, name):
    model = saved(name)
    rough = model.load(dtype="bfloat16")
    assert {x.dtype for x in jax.tree.leaves(rough.params)} == {jnp.dtype(jnp.float32)}
    with torch.no_grad():
        exact = model.logits().numpy()
        half = copy.deepcopy(model.torch).bfloat16()
        theirs = gap(model.logits(module=half).float(), exact, model.seen)
    ours = gap(rough.f(rough.params, *model.inputs), exact, model.seen)
    assert 0 < ours < 2 * theirs < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
def test_linearized_logits_and_gradient_equal_torch(saved, name):
    """f_lin, and the gradient of a loss of it with respect to τ, to 1e-4 of their own sizes."""
    model = saved(name)
    params0, rng = model.ours.params, np.random.default_rng(3)
    tau = {n: np.float32(0.05 * rng.normal(size=x.shape)) for n, x in tree.flatten(params0).items()}
    labels = model.labels
    counted = np.ones_like(labels, bool) if model.seen is ... else model.seen

    def loss(tau):
        out = taylor.tangent(model.ours.f)(params0, tau, *model.inputs)
        nats = -jnp.take_along_axis(jax.nn.log_softmax(out), labels[..., None], -1)[..., 0]
        return jnp.sum(jnp.where(counted, nats, 0)), out

    (_, out), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(tau)

    delta = {n: x.requires_grad_() for n, x in model.theirs(tau).items()}
    f0, pushed = torch.func.jvp(model.logits, (model.parameters(),), (delta,))
    linear = f0 + pushed
    nats = torch.nn.functional.cross_entropy(
        linear.flatten(0, 1), torch.tensor(labels).flatten(), reduction="none"
    )
    slopes = torch.autograd.grad(
        (nats * torch.tensor(counted).flatten()).sum(), list(delta.values())
    )
    assert gap(pushed.detach(), f0.detach(), model.seen) > 0.0
    assert np.abs(pushed.detach().numpy()).max() > 0.1
    assert gap(out, linear.detach(), model.seen) < 1e-4
    found = model.theirs(gradient)
    assert found.keys() == delta.keys()
    apart = sum(((found[n] - g) ** 2).sum() for n, g in zip(delta, slopes, strict=True))
    assert apart**0.5 < 1e-4 * sum((g**2).sum() for g in slopes) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("regime", ["nonlinear", "linear"])
@pytest.mark.parametrize("name", FEW)
def test_ten_steps_equal_torch(saved, name, regime):
    """Relative 1e-3 in τ after ten AdamW steps, θ decaying; each batch is the whole data set."""
    model = saved(name)
    config = TrainConfig(
        optim=OptimConfig(lr=LR, weight_decay=DECAY, decay="theta", warmup=WARMUP, clip=1.0),
        steps=STEPS,
        batch_size=B,
        log_every=1,
        tensorboard=False,
    )
    roles = [f"inputs_{i}" for i in range(len(model.inputs))]
    got = train.fine_tune(
        model.ours.f,
        model.ours.params,
        {**dict(zip(roles, model.inputs, strict=True)), "labels": model.labels},
        regime=regime,
        loss=CausalLM().loss,
        config=config,
        inputs=roles,
    )
    base = model.parameters()
    theta = {n: torch.nn.Parameter(p.clone()) for n, p in base.items()}
    adamw = torch.optim.AdamW(theta.values(), lr=LR, weight_decay=DECAY, eps=1e-8)
    for step in range(STEPS):
        if regime == "linear":
            delta = {n: p - base[n] for n, p in theta.items()}
            logits = sum(torch.func.jvp(model.logits, (base,), (delta,)))
        else:
            logits = model.logits(theta)
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), torch.tensor(model.labels).flatten()
        )
        np.testing.assert_allclose(got.history[step]["loss"], loss.item(), rtol=1e-4)
        adamw.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(theta.values()), 1.0)
        after = (step - WARMUP) / (STEPS - WARMUP)
        rate = (step + 1) / WARMUP if step < WARMUP else 0.5 * (1 + np.cos(np.pi * after))
        adamw.param_groups[0]["lr"] = LR * rate
        adamw.step()
    assert got.history[-1]["loss"] < 0.95 * got.history[0]["loss"]

    ones = {n: np.ones(x.shape, np.float32) for n, x in got.tau.delta.items()}
    for leaf, third in model.case.blind.items():
        for name in (n for n in ones if n.endswith(leaf)):
            size = ones[name].shape[-1] // 3
            ones[name][..., third * size : (third + 1) * size] = 0
    counted, moved = model.theirs(ones), model.theirs(got.tau.delta)
    expected = {n: p.detach() - base[n] for n, p in theta.items()}
    assert moved.keys() == expected.keys()
    apart = sum(((moved[n] - x) * counted[n]).square().sum() for n, x in expected.items())
    assert apart**0.5 < 1e-3 * sum(x.square().sum() for x in expected.values()) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
def test_scan_and_remat_change_nothing(saved, name):
    model = saved(name)
    plain, other = model.load(scan=False), model.load(remat="dots")
    tau = jax.tree.map(lambda x: 0.1 * jnp.ones_like(x), tree.flatten(plain.params))

    def gradient(ours, tau):
        f = taylor.tangent(ours.f)
        value = jax.grad(lambda tau: jnp.sum(f(ours.params, tau, *model.inputs) ** 2))
        return tree.flatten(jax.jit(value)(tau))

    expected, got = models.stack(gradient(plain, tau)), gradient(other, models.stack(tau))
    assert got.keys() == expected.keys()
    for leaf, value in got.items():
        assert gap(value, expected[leaf]) < 2e-5, leaf
