"""Llama's kind, Gemma too, against transformers on torch, at random weights in odd sizes."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import linearize as lz
from linearize import models, tree
from linearize.cost import count_flops
from linearize.models import weights
from linearize.models.language import llama, rotary
from linearize.objectives import CausalLM
from linearize.train import OptimConfig, TrainConfig, fine_tune

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SMALL = {
    "vocab_size": 37,
    "hidden_size": 12,
    "intermediate_size": 20,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 40,
    "rope_theta": 500.0,
    "tie_word_embeddings": True,
    "pad_token_id": None,  # whose row of the embedding torch would not train
}
BANDS = {"low_freq_factor": 1, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
CASES = {
    "tied": ("llama", {}),
    "untied": (
        "llama",
        {"tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True},
    ),
    "one key": ("llama", {"num_key_value_heads": 1, "hidden_act": "gelu_pytorch_tanh"}),
    "a key a head": ("llama", {"num_key_value_heads": 6, "num_hidden_layers": 1}),
    "llama3": ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, **BANDS}}),
    "gemma": ("gemma", {"hidden_act": "gelu"}),
    "gemma2": (
        "gemma2",
        {
            "sliding_window": 4,
            "query_pre_attn_scalar": 5,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
        },
    ),
    "gemma3": (
        "gemma3",
        {
            "sliding_window": 4,
            "query_pre_attn_scalar": 5,
            "sliding_window_pattern": 2,
            "rope_theta": 700.0,
            "rope_local_base_freq": 9.0,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            "final_logit_softcapping": 3.0,
        },
    ),
}
LENGTH = 11


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """``saved(case) -> (torch's model, its folder)``."""
    made = {}

    def make(case):
        if case not in made:
            torch.manual_seed(0)
            kind, more = CASES[case]
            row = models.LANGUAGE[kind]
            config = transformers.AutoConfig.for_model(
                row.kind, **{**SMALL, **more}, attn_implementation="eager"
            )
            net = getattr(transformers, row.builds)(config).eval()
            for p in net.parameters():
                torch.nn.init.normal_(p, float(p.ndim == 1 and kind == "llama"), 0.3)
            folder = tmp_path_factory.mktemp(kind)
            net.save_pretrained(folder)
            made[case] = net, folder
        return made[case]

    return make


@pytest.fixture
def tokens():
    return np.random.default_rng(0).integers(0, SMALL["vocab_size"], (2, LENGTH))


def load(case, folder, **options):
    return models.load_language(CASES[case][0], weights=folder, **options)


def logits(net, tokens):
    with torch.no_grad():
        return net(torch.tensor(tokens)).logits.float().numpy()


@pytest.mark.slow(but=["gemma3"])
@pytest.mark.parametrize("case", CASES)
def test_is_transformers(saved, tokens, case):
    net, folder = saved(case)
    ours = load(case, folder, scan=True)
    expected = logits(net, tokens)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(
        jax.jit(ours.f)(ours.params, tokens), expected, atol=1e-5 * np.abs(expected).max()
    )


@pytest.mark.slow
def test_scan_and_remat_change_nothing(saved, tokens):
    _, folder = saved("gemma3")
    plain = load("gemma3", folder)
    expected = jax.jit(plain.f)(plain.params, tokens)
    for remat in ("none", "full"):
        other = load("gemma3", folder, scan=True, remat=remat)
        assert other.blocks == ("blocks",)
        np.testing.assert_allclose(jax.jit(other.f)(other.params, tokens), expected, atol=1e-5)
    cut = load("gemma3", folder, blocks=2)
    assert cut.blocks == plain.blocks[:2]


@pytest.mark.slow
@pytest.mark.parametrize("case", ["untied", "gemma", "gemma2", "gemma3"])
def test_in_bfloat16(saved, tokens, case):
    """Not farther from float32 than torch's own bfloat16 is, to a factor."""
    net, folder = saved(case)
    ours = load(case, folder, dtype=jnp.bfloat16, scan=True)
    exact, half = logits(net, tokens), logits(copy.deepcopy(net).bfloat16(), tokens)
    got = np.asarray(jax.jit(ours.f)(ours.params, tokens))
    assert got.dtype == np.float32
    assert 0 < np.linalg.norm(got - exact) < 1.5 * np.linalg.norm(half - exact)


@pytest.mark.slow
def test_step_by_step_is_the_whole(saved, tokens):
    _, folder = saved("gemma3")
    ours = load("gemma3", folder, scan=True)
    expected = jax.jit(ours.hidden)(ours.params, tokens)
    cache, got = ours.cache(len(tokens), 16), []
    step = jax.jit(ours.step)
    for begin, end in ((0, 4), (4, 5), (5, 6), (6, LENGTH)):
        hidden, cache = step(ours.params, tokens[:, begin:end], cache)
        got.append(hidden)
    assert int(cache["seen"]) == LENGTH
    np.testing.assert_allclose(np.concatenate(got, 1), expected, atol=1e-5)


@pytest.mark.slow(but=["tied"])
@pytest.mark.parametrize("case", ["tied", "gemma", "gemma2", "gemma3"])
def test_the_tangent_is_torchs(saved, tokens, tmp_path, case):
    """f_lin, and the gradient of its loss with respect to τ, against ``torch.func.jvp``."""
    net, folder = saved(case)
    ours = load(case, folder, scan=True)
    rng = np.random.default_rng(1)
    tau = jax.tree.map(lambda x: 0.1 * rng.normal(size=x.shape).astype("float32"), ours.params)
    labels = np.concatenate([tokens[:, 1:], np.full((2, 1), -1)], 1)
    f_lin = lz.linearize(ours.f, ours.params)

    def loss(tau):
        out = f_lin(tree.add(ours.params, tau), tokens)
        return CausalLM().loss(out, {"labels": labels}).mean(), out

    (value, out), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(tau)

    # τ goes to torch, and torch's gradient comes back, as checkpoints: no names are told here
    models.export(tmp_path / "moved", ours, tree.add(ours.params, tau))
    moved = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "moved").state_dict()
    start = {n: p.detach() for n, p in net.named_parameters()}
    delta = {n: (moved[n] - p).requires_grad_() for n, p in start.items()}

    f0, pushed = torch.func.jvp(lambda p: called(net, p, tokens), (start,), (delta,))
    linear = f0 + pushed
    expected_loss = torch.nn.functional.cross_entropy(
        linear.flatten(0, 1), torch.tensor(labels).flatten(), ignore_index=-1
    )
    back = copy.deepcopy(net)
    gradients = torch.autograd.grad(expected_loss, list(delta.values()))
    for parameter, g in zip(back.parameters(), gradients, strict=True):
        parameter.data = g
    back.save_pretrained(tmp_path / "gradient")
    expected = load(case, tmp_path / "gradient", scan=True).params

    assert pushed.detach().abs().max() > 0.1
    largest = linear.detach().abs().max().item()
    np.testing.assert_allclose(out, linear.detach().numpy(), atol=1e-5 * largest)
    assert abs(float(value) - expected_loss.item()) < 1e-5 * expected_loss.item()
    assert tree.norm(jax.tree.map(jnp.subtract, gradient, expected)) < 1e-4 * tree.norm(expected)


@pytest.mark.slow(but=["gemma3"])
@pytest.mark.parametrize("case", ["tied", "gemma", "gemma2", "gemma3"])
def test_exports_what_transformers_opens(saved, tokens, tmp_path, case):
    net, folder = saved(case)
    ours = load(case, folder)
    moved = jax.tree.map(lambda x: x + np.float32(0.5), ours.params)
    models.export(tmp_path / "alone", ours, moved)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "alone")
    for name, old in net.state_dict().items():
        np.testing.assert_allclose(theirs.state_dict()[name], old + 0.5, atol=1e-6)
    held = models.hf.read(tmp_path / "alone").tensors
    assert "lm_head.weight" not in held  # what is tied is written once
    assert len(held) == len(tree.names(ours.params))
    again = load(case, tmp_path / "alone")
    assert tree.fingerprint(again.params) == tree.fingerprint(moved)
    assert again.f.fingerprint == ours.f.fingerprint
    cut = load(case, folder, blocks=2)
    models.export(tmp_path / "cut", cut)
    few = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "cut")
    np.testing.assert_allclose(
        jax.jit(cut.f)(cut.params, tokens), logits(few, tokens), atol=1e-5, rtol=1e-5
    )


def test_a_tied_head_of_other_values_is_refused(saved, tmp_path):
    net, _ = saved("tied")
    state = {n: x.clone() for n, x in net.state_dict().items()}
    net.config.save_pretrained(tmp_path)
    torch.save(state, tmp_path / "pytorch_model.bin")  # torch writes what is tied twice
    ours = models.load_language("llama", weights=tmp_path)
    np.testing.assert_array_equal(
        ours.params["token_embedding"], state["model.embed_tokens.weight"]
    )
    state["lm_head.weight"][3, 5] += 1
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(models.WeightsError, match=r"lm_head\.weight and model\.embed_tokens"):
        models.load_language("llama", weights=tmp_path)
    del state["model.embed_tokens.weight"]
    torch.save(state, tmp_path / "pytorch_model.bin")
    ours = models.load_language("llama", weights=tmp_path)
    np.testing.assert_array_equal(ours.params["token_embedding"], state["lm_head.weight"])


def test_a_fine_tuned_checkpoint_is_a_task_vector(saved, tmp_path):
    net, folder = saved("tied")
    base = models.load_language("llama", weights=folder)
    tuned = copy.deepcopy(net)
    tuned.model.layers[1].mlp.up_proj.weight.data += 0.25
    tuned.save_pretrained(tmp_path / "tuned")
    delta = models.task_vector(base, tmp_path / "tuned").delta
    moved = {name for name, x in delta.items() if np.abs(x).max() > 0}
    assert moved == {"block_1/mlp_in/kernel"}
    np.testing.assert_allclose(delta["block_1/mlp_in/kernel"], 0.25, atol=1e-6)
    tuned.resize_token_embeddings(41)
    tuned.save_pretrained(tmp_path / "resized")
    with pytest.raises(models.WeightsError, match=r"embed_tokens\.weight is \(41, 12\)"):
        models.task_vector(base, tmp_path / "resized")
    found = models.task_vector(base, tmp_path / "resized", leave_out="embed_tokens")
    assert not np.asarray(found.delta["token_embedding"]).any()


LONG = {"rope_type": "linear", "factor": 2.0}
REFUSED = [
    ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "type='dynamic'; there are"),
    ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "rope_type='yarn'"),
    ("llama", {"rope_scaling": {"factor": 2.0}}, "factor=2.0 is not understood"),
    ("llama", {"rope_scaling": {"type": "linear"}}, "factor=null; .*for 'linear'"),
    ("llama", {"rope_scaling": {"type": "llama3", "factor": 8.0}}, "low_freq_factor=null"),
    (
        "llama",
        {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, **BANDS, "low_freq_factor": 4.0}},
        r"high_freq_factor=4\.0; expected over",
    ),
    ("llama", {"pretraining_tp": 2}, "pretraining_tp"),
    ("llama", {"head_dim": 7}, "head_dim"),
    ("llama", {"num_key_value_heads": 4}, "num_key_value_heads"),
    ("llama", {"sliding_window": 7}, "sliding_window"),
    ("llama", {"hidden_act": "xielu"}, "hidden_act"),
    ("gemma", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ("gemma", {"hidden_activation": "gelu"}, "hidden_activation"),
    ("gemma2", {"layer_types": ["full_attention"]}, "layer_types=.*expected 3"),
    ("gemma2", {"layer_types": ["chunked_attention"] * 3}, "layer_types"),
    ("gemma2", {"sliding_window": None}, "sliding_window=null"),
    ("gemma3", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
    ("gemma3", {"rope_parameters": {"sliding_attention": LONG}}, "sliding_attention=.*'default'"),
    ("gemma3", {"rope_parameters": LONG}, "rope_type='linear' is not understood"),
    ("gemma3", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "factor=2.0 is not understood"),
]


@pytest.mark.parametrize(("kind", "told", "said"), REFUSED)
def test_what_is_not_computed_is_refused_by_name(kind, told, said):
    with pytest.raises(models.WeightsError, match=said):
        models.LANGUAGE[kind].configure({**SMALL, **told}, "config.json")


OLD = {"rope_theta": 700.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
OLDER = {"rope_theta": 700.0, "rope_scaling": {"type": "linear", "factor": 8.0}}
HUB = {
    "sliding_window": 512,
    "rope_local_base_freq": 1e4,
    "cache_implementation": "hybrid",
    "hidden_activation": "gelu_pytorch_tanh",
}


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        *((kind, {}) for kind in ("llama", "gemma", "gemma2", "gemma3")),
        *((kind, OLDER) for kind in ("llama", "gemma", "gemma2")),
        ("gemma3", OLD),
        ("llama", {"rope_parameters": {"rope_type": "llama3", "factor": 8.0, **BANDS}}),
        ("gemma", {"hidden_act": "gelu"}),
        ("gemma2", {"final_logit_softcapping": None, "hidden_act": "relu"}),
        ("gemma3", {**HUB, "_sliding_window_pattern": 6, "layer_types": ["full_attention"] * 26}),
        ("gemma3", {**HUB, "sliding_window_pattern": 3}),
    ],
)
def test_a_configuration_is_what_transformers_makes_of_it(kind, told):
    """In the words of its early versions, and with its defaults where it says nothing."""
    row = models.LANGUAGE[kind]
    theirs = transformers.AutoConfig.for_model(row.kind, **copy.deepcopy(told)).to_dict()
    theirs["hidden_act"] = None if kind in ("gemma2", "gemma3") else theirs["hidden_act"]
    assert row.configure(told, "early") == row.configure(theirs, "late")


@pytest.mark.parametrize(
    "told", [OLDER["rope_scaling"], {"type": "llama3", "factor": 8.0, **BANDS}]
)
def test_waves_are_stretched_as_transformers_stretches_them(told):
    config = transformers.LlamaConfig(head_dim=64, rope_theta=5e5, rope_scaling=dict(told))
    make = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS[told["type"]]
    expected, factor = make(config)
    _, stretch = rotary.read(told, 2048, "config.json")
    waves = jnp.float32(5e5) ** (-jnp.arange(0, 64, 2, dtype=jnp.float32) / 64)
    np.testing.assert_allclose(stretch(waves), expected.numpy(), rtol=2e-6)
    assert factor == 1
    moved = jnp.abs(stretch(waves) / waves - 1) > 1e-6
    assert 0 < moved.sum() <= len(waves)


def test_fields_that_came_later_change_no_run_of_before():
    told = models.LANGUAGE["llama"].configure(SMALL, "config.json")
    plain = llama.Decoder(**told)
    for later in ("stretch", "norm_offset", "attention_cap", "logit_cap"):
        assert later not in weights.fingerprint(plain, {})
        assert later in weights.fingerprint(plain.clone(**{later: 2.0}), {})


@pytest.mark.slow
@pytest.mark.parametrize("regime", ["nonlinear", "linear"])
@pytest.mark.parametrize("case", ["tied", "gemma", "gemma2", "gemma3"])
def test_ten_steps_of_adamw_are_torchs(saved, tmp_path, case, regime):
    """Relative 1e-3 in τ; each batch is the whole data set."""
    net, folder = saved(case)
    ours = load(case, folder, scan=True)
    tokens = np.random.default_rng(2).integers(0, SMALL["vocab_size"], (6, LENGTH))
    labels = np.concatenate([tokens[:, 1:], np.full((6, 1), -1)], 1)
    steps, lr, decay = 10, 1e-2, 0.1
    optim = OptimConfig(lr=lr, weight_decay=decay, decay="theta", schedule="constant", warmup=0)
    got = fine_tune(
        ours.f,
        ours.params,
        {"inputs": tokens, "labels": labels},
        regime=regime,
        loss=CausalLM().loss,
        config=TrainConfig(
            optim=optim, steps=steps, batch_size=len(tokens), log_every=1, tensorboard=False
        ),
    )
    base = {n: p.detach().clone() for n, p in net.named_parameters()}
    theta = {n: torch.nn.Parameter(p.clone()) for n, p in base.items()}
    adamw = torch.optim.AdamW(theta.values(), lr=lr, weight_decay=decay, eps=1e-8)
    for step in range(steps):
        if regime == "linear":
            tau = {n: p - base[n] for n, p in theta.items()}
            f0, pushed = torch.func.jvp(lambda p: called(net, p, tokens), (base,), (tau,))
            out = f0 + pushed
        else:
            out = called(net, theta, tokens)
        loss = torch.nn.functional.cross_entropy(
            out.flatten(0, 1), torch.tensor(labels).flatten(), ignore_index=-1
        )
        np.testing.assert_allclose(got.history[step]["loss"], loss.item(), rtol=1e-4)
        adamw.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(theta.values()), 1.0)
        adamw.step()
    assert got.history[-1]["loss"] < 0.9 * got.history[0]["loss"]
    end = copy.deepcopy(net)
    for name, parameter in end.named_parameters():
        parameter.data = theta[name].data
    end.save_pretrained(tmp_path)
    expected = tree.flatten(models.task_vector(ours, tmp_path).delta)
    for name, x in tree.flatten(got.tau.delta).items():
        assert tree.norm(x - expected[name]) < 1e-3 * tree.norm(expected[name]), name


@pytest.mark.slow
def test_memory_grows_with_the_length_and_operations_are_five_forward_passes():
    """Compiled temporaries of the linearized step at 512, 1,024 and 2,048 tokens."""
    row = models.LANGUAGE["llama"]
    module = row.module(
        **row.configure({**SMALL, "hidden_size": 32, "max_position_embeddings": 2048}, ""),
        scan=True,
    )
    loss = CausalLM().loss

    def linearized(module, tokens):
        whole = lambda module, tokens: module.logits(module(tokens))  # noqa: E731
        params = jax.eval_shape(
            lambda: module.init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32), method=whole)
        )
        f = lambda params: module.apply(params, tokens, method=whole)  # noqa: E731

        def value(tau, params):
            out, along = jax.jvp(f, (params,), (tau,))
            return loss(out + along, {"labels": tokens}).mean()

        return jax.value_and_grad(value), params, f

    def held(length):
        step, params, _ = linearized(module, jnp.zeros((1, length), jnp.int32))
        compiled = jax.jit(step).lower(params, params).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    half, whole, double = (held(length) for length in (512, 1024, 2048))
    assert whole < 2.1 * half
    assert double < 2.1 * whole

    real = models.LANGUAGE["smollm2_135m"]
    small = real.module(**real.configure(real.config, ""), scan=True)
    step, params, f = linearized(small, jnp.zeros((8, 128), jnp.int32))
    assert count_flops(step, params, params) <= 5.1 * count_flops(f, params)


def called(net, params, tokens):
    """Torch's logits as a function of parameters, of which the head is one with the embedding."""
    given = params | {"lm_head.weight": params["model.embed_tokens.weight"]}
    return torch.func.functional_call(
        net, given, (torch.tensor(tokens),), {"use_cache": False}, tie_weights=False
    ).logits
