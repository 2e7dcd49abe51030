"""GPT-2 against transformers on torch, at random weights in odd sizes."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch

from linearize import models, taylor, train, tree
from linearize.models import hf, layers
from linearize.models.language import gpt2, load_language
from linearize.objectives import CausalLM
from linearize.train import OptimConfig, TrainConfig

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

B, L, V = 3, 9, 53
STEPS, WARMUP, LR, DECAY = 10, 3, 3e-3, 0.1
SMALL = {
    "vocab_size": V,
    "n_positions": 19,
    "n_embd": 21,
    "n_layer": 2,
    "n_head": 3,
    "n_inner": 50,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
CASES = {
    "tied": {},
    "untied": {"tie_word_embeddings": False, "activation_function": "relu", "n_inner": None},
}


class Saved:
    """A random model of transformers, its folder, and the same model here, scanned."""

    def __init__(self, case, folder):
        self.folder = folder
        config = {**SMALL, **CASES[case]}
        torch.manual_seed(0)
        self.torch = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(**config, attn_implementation="eager")
        ).eval()
        for parameter in self.torch.parameters():
            spread = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.3
            parameter.data = torch.randn(parameter.shape) * spread
        self.torch.save_pretrained(folder)
        self.ours = self.load()

    def load(self, **options):
        return load_language("gpt2", weights=self.folder, **{"scan": True, **options})

    def logits(self, params=None, module=None):
        """Of transformers, at these parameters by its own names."""
        module = module or self.torch
        if params is None:
            return module(torch.tensor(TOKENS)).logits
        return torch.func.functional_call(module, params, (torch.tensor(TOKENS),)).logits

    def parameters(self):
        return {n: p.detach().clone() for n, p in self.torch.named_parameters()}

    def theirs(self, leaves):
        """Leaves of ours, or differences of them, by the names of transformers."""
        named = hf.export_leaves(layers.unstack(tree.flatten(leaves)), gpt2.GPT2)
        assert named.keys() == dict(self.torch.named_parameters()).keys()
        return {n: torch.tensor(named[n]) for n, _ in self.torch.named_parameters()}


TOKENS, LABELS = np.random.default_rng(1).integers(V, size=(2, B, L))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("language"), {}

    def get(case):
        if case not in made:
            made[case] = Saved(case, folder / case)
        return made[case]

    return get


def gap(a, b):
    """The largest difference, by the largest of the second."""
    a, b = (np.asarray(x, np.float32) for x in (a, b))
    return np.abs(a - b).max() / np.abs(b).max()


@pytest.mark.slow(but=["tied"])
@pytest.mark.parametrize("case", CASES)
def test_logits_equal_transformers(saved, case):
    model = saved(case)
    with torch.no_grad():
        expected = model.logits().numpy()
    got = jax.jit(model.ours.f)(model.ours.params, TOKENS)
    assert got.dtype == jnp.float32
    assert got.shape == (B, L, V)
    assert gap(got, expected) < 1e-5


@pytest.mark.slow
def test_bfloat16_is_no_further_off_than_theirs(saved):
    model = saved("tied")
    rough = model.load(dtype="bfloat16")
    assert {x.dtype for x in jax.tree.leaves(rough.params)} == {jnp.dtype(jnp.float32)}
    with torch.no_grad():
        exact = model.logits().numpy()
        theirs = gap(model.logits(module=copy.deepcopy(model.torch).bfloat16()).float(), exact)
    assert 0 < gap(rough.f(rough.params, TOKENS), exact) < 2 * theirs < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_linearized_logits_and_gradient_equal_torch(saved, case):
    """f_lin, and the gradient of a loss of it with respect to τ, to 1e-4 of their own sizes."""
    model = saved(case)
    params0, rng = model.ours.params, np.random.default_rng(3)
    tau = {n: np.float32(0.05 * rng.normal(size=x.shape)) for n, x in tree.flatten(params0).items()}

    def loss(tau):
        out = taylor.tangent(model.ours.f)(params0, tau, TOKENS)
        return CausalLM().loss(out, {"labels": LABELS}).sum(), out

    (_, out), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(tau)

    delta = {n: x.requires_grad_() for n, x in model.theirs(tau).items()}
    f0, pushed = torch.func.jvp(model.logits, (model.parameters(),), (delta,))
    linear = f0 + pushed
    nats = B * mean_of_tokens(linear)
    slopes = torch.autograd.grad(nats, list(delta.values()))
    assert np.abs(pushed.detach().numpy()).max() > 0.1
    assert gap(out, linear.detach()) < 1e-4
    found = model.theirs(gradient)
    apart = sum((found[n] - g).square().sum() for n, g in zip(delta, slopes, strict=True))
    assert apart**0.5 < 1e-4 * sum(g.square().sum() for g in slopes) ** 0.5


def mean_of_tokens(logits):
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(LABELS).flatten())


@pytest.mark.slow
@pytest.mark.parametrize("regime", ["nonlinear", "linear"])
def test_ten_steps_equal_torch(saved, regime):
    """Relative 1e-3 in τ after ten AdamW steps, θ decaying; each batch is the whole data set.

    Biases of the keys are left out: softmax does not see them, so that their gradient is rounding,
    which Adam blows up to the learning rate in either framework.
    """
    model = saved("tied")
    got = train.fine_tune(
        model.ours.f,
        model.ours.params,
        {"inputs": TOKENS, "labels": LABELS},
        regime=regime,
        loss=CausalLM().loss,
        config=TrainConfig(
            optim=OptimConfig(lr=LR, weight_decay=DECAY, decay="theta", warmup=WARMUP, clip=1.0),
            steps=STEPS,
            batch_size=B,
            log_every=1,
            tensorboard=False,
        ),
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
        loss = mean_of_tokens(logits)
        np.testing.assert_allclose(got.history[step]["loss"], loss.item(), rtol=1e-4)
        adamw.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(theta.values()), 1.0)
        after = (step - WARMUP) / (STEPS - WARMUP)
        rate = (step + 1) / WARMUP if step < WARMUP else 0.5 * (1 + np.cos(np.pi * after))
        adamw.param_groups[0]["lr"] = LR * rate
        adamw.step()
    assert got.history[-1]["loss"] < 0.95 * got.history[0]["loss"]

    moved = model.theirs(got.tau.delta)
    apart = size = 0.0
    for name, x in ((n, p.detach() - base[n]) for n, p in theta.items()):
        wrong = moved[name] - x
        if name.endswith("c_attn.bias"):
            wrong[SMALL["n_embd"] : 2 * SMALL["n_embd"]] = 0
        apart, size = apart + wrong.square().sum(), size + x.square().sum()
    assert apart**0.5 < 1e-3 * size**0.5


@pytest.mark.slow
def test_scan_and_remat_change_nothing(saved):
    model = saved("tied")
    plain, other = model.load(scan=False), model.load(remat="dots")
    tau = jax.tree.map(lambda x: 0.1 * jnp.ones_like(x), tree.flatten(plain.params))

    def gradient(ours, tau):
        f = taylor.tangent(ours.f)
        value = jax.grad(lambda tau: jnp.sum(f(ours.params, tau, TOKENS) ** 2))
        return tree.flatten(jax.jit(value)(tau))

    expected, got = models.stack(gradient(plain, tau)), gradient(other, models.stack(tau))
    assert got.keys() == expected.keys()
    for leaf, value in got.items():
        assert gap(value, expected[leaf]) < 2e-5, leaf


@pytest.mark.slow(but=["tied"])
@pytest.mark.parametrize("case", CASES)
def test_exports_what_transformers_opens(saved, case, tmp_path):
    model = saved(case)
    moved = jax.tree.map(lambda x: x + np.float32(0.5), model.ours.params)
    models.export(tmp_path, model.ours, moved)
    opened, info = transformers.GPT2LMHeadModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    for name, old in model.torch.state_dict().items():
        np.testing.assert_allclose(opened.state_dict()[name], old + 0.5, atol=1e-6)
    held = models.hf.read(tmp_path).tensors
    assert ("lm_head.weight" in held) == (case == "untied")  # what is tied is written once
    again = load_language("gpt2", weights=tmp_path, scan=True)
    assert tree.fingerprint(again.params) == tree.fingerprint(moved)
    assert again.about["architecture"] == model.ours.about["architecture"]


def test_names_of_the_hub_s_files(saved, tmp_path):
    """OpenAI's there are without ``transformer.`` before them, and with the masks' buffers."""
    model = saved("tied")
    state = model.torch.transformer.state_dict()
    state["h.0.attn.bias"] = torch.ones(1, 1, 19, 19)
    state["h.0.attn.masked_bias"] = torch.tensor(-1e4)
    safetensors.torch.save_file(
        {n: x.contiguous() for n, x in state.items()}, tmp_path / "model.safetensors"
    )
    model.torch.config.save_pretrained(tmp_path)
    found = load_language("gpt2", weights=tmp_path, scan=True)
    assert tree.fingerprint(found.params) == tree.fingerprint(model.ours.params)
    with pytest.raises(models.WeightsError, match="not that of gpt2_large"):
        load_language("gpt2_large", weights=tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("scale_attn_by_inverse_layer_idx", True),
        ("scale_attn_weights", False),
        ("reorder_and_upcast_attn", True),
        ("add_cross_attention", True),
        ("activation_function", "gelu_fast"),
        ("n_embd", 0),
        ("rotary_dim", 8),
    ],
)
def test_what_is_not_computed_is_refused_by_name(key, value):
    with pytest.raises(models.WeightsError, match=key):
        gpt2.configure({**SMALL, key: value}, "config.json")
    with pytest.raises(models.WeightsError, match="21 cannot be split among 4 heads"):
        gpt2.configure({**SMALL, "n_head": 4}, "config.json")


def test_tokens_beyond_the_context_are_refused(saved):
    ours = saved("tied").ours
    with pytest.raises(ValueError, match=r"tokens are \(1, 20\): longer than the context of 19"):
        ours.f(ours.params, np.zeros((1, 20), int))
