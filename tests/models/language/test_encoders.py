"""BERT, RoBERTa and MPNet against transformers on torch, at random weights in odd sizes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from linearize import taylor, train, tree
from linearize.models import layers
from linearize.models.backbone import WeightsError
from linearize.models.hf.export import export
from linearize.models.language import LANGUAGE, load_language, relative, sentence_encoder
from linearize.train import OptimConfig, TrainConfig

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

ODD = {
    "vocab_size": 61,
    "hidden_size": 15,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 22,
    "max_position_embeddings": 37,
}
CASES = {
    "bert": ("bert", "BertForMaskedLM", "BertConfig", {}),
    "bert_bare": ("bert", "BertModel", "BertConfig", {}),
    "roberta": ("roberta", "RobertaForMaskedLM", "RobertaConfig", {"pad_token_id": 3}),
    "mpnet": ("mpnet", "MPNetForMaskedLM", "MPNetConfig", {}),
}
WAYS = {"bert": "none", "roberta": "dots", "mpnet": "full"}
"""What the scanned blocks of each keep."""
LENGTHS = (9, 4, 7)
WORDS = (5, 17, 40)


class Saved:
    """A random model of transformers, its folder, and the same model here."""

    def __init__(self, case, folder):
        self.kind, model, config, more = CASES[case]
        made = getattr(transformers, config)(**ODD, **more, attn_implementation="eager")
        torch.manual_seed(0)
        self.torch, self.folder = getattr(transformers, model)(made).eval(), folder / case
        for parameter in self.torch.parameters():
            spread = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.3
            parameter.data = torch.randn(parameter.shape) * spread
        self.torch.save_pretrained(self.folder)
        self.ours = load_language(self.kind, weights=self.folder)
        rng, longest = np.random.default_rng(1), max(LENGTHS)
        self.mask = np.arange(longest)[None] < np.array(LENGTHS)[:, None]
        tokens = rng.integers(4, 61, self.mask.shape)
        self.tokens = np.where(self.mask, tokens, made.pad_token_id).astype(np.int32)

    @functools.cached_property
    def scanned(self):
        remat = WAYS[self.kind]
        found = load_language(self.kind, weights=self.folder, scan=True, remat=remat)
        assert found.blocks == ("blocks",)
        return found

    def call(self, model, params=None):
        given = {
            "input_ids": torch.from_numpy(self.tokens).long(),
            "attention_mask": torch.from_numpy(self.mask).long(),
            "output_hidden_states": True,
        }
        if params is None:
            return model(**given)
        return torch.func.functional_call(model, params, (), given)

    def inputs(self):
        return jnp.asarray(self.tokens), jnp.asarray(self.mask)

    def leaves(self, named):
        """Torch's parameters under our names; of a tied one the first."""
        family = LANGUAGE[self.kind]
        table, found = family.dialects[0], {}
        for theirs, value in named.items():
            place = table.find(table.canonical(theirs))
            if place is None:
                assert table.canonical(theirs) in family.repeated
                continue
            _, ours, layout = table.rows[place[0]]
            found[ours.replace("{i}", place[1])] = layout.load([value.detach().numpy()])[0]
        return found


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    return functools.cache(lambda case: Saved(case, folder))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_hidden_states_and_logits_equal_transformers(saved, case):
    model = saved(case)
    with torch.no_grad():
        expected = model.call(model.torch)
    hidden = jax.jit(model.ours.hidden)(model.ours.params, *model.inputs())
    theirs, seen = expected.hidden_states[-1].numpy(), model.mask
    assert np.abs(theirs[seen]).max() > 0.5
    np.testing.assert_allclose(np.asarray(hidden)[seen], theirs[seen], atol=1e-5)
    if model.ours.head is None:
        layer = model.ours.params["pooler"]
        kernel, bias = map(np.asarray, (layer["kernel"], layer["bias"]))
        pooled = np.tanh(np.asarray(hidden)[:, 0] @ kernel + bias)
        np.testing.assert_allclose(pooled, expected.pooler_output.numpy(), atol=1e-5)
        return
    logits = np.asarray(model.ours.f(model.ours.params, *model.inputs()))
    np.testing.assert_allclose(logits[seen], expected.logits.numpy()[seen], atol=1e-5)
    some = model.ours.head(model.ours.params, hidden, jnp.asarray(WORDS))
    np.testing.assert_allclose(np.asarray(some), logits[..., list(WORDS)], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_bfloat16_is_as_near_to_float32_as_torchs(saved, case):
    model = saved(case)
    ours = load_language(model.kind, weights=model.folder, dtype="bfloat16", scan=True)
    hidden = np.asarray(ours.hidden(ours.params, *model.inputs()))
    assert hidden.dtype == np.float32
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(ours.params))
    with torch.no_grad():
        whole = model.call(model.torch).hidden_states[-1].numpy()
        half = type(model.torch).from_pretrained(
            model.folder, dtype=torch.bfloat16, attn_implementation="eager"
        )
        theirs = model.call(half.eval()).hidden_states[-1].float().numpy()
    gap, allowed = (np.abs(x - whole)[model.mask].max() for x in (hidden, theirs))
    assert 0 < gap < 1.5 * allowed < 0.3


@pytest.mark.slow
def test_padding_changes_nothing(saved):
    model = saved("mpnet")
    f, params = jax.jit(model.ours.hidden), model.ours.params
    for row, length in enumerate(LENGTHS[1:], 1):
        alone = f(params, *(x[row : row + 1, :length] for x in model.inputs()))
        among = f(params, *model.inputs())[row, :length]
        np.testing.assert_allclose(alone[0], among, atol=1e-5)


def theirs_at_words(model, params):
    logits = model.call(model.torch, params).logits
    return logits[torch.arange(len(LENGTHS)), torch.tensor(LENGTHS) - 1][:, list(WORDS)]


def ours_at_words(ours):
    def f(params, tokens, mask, at):
        hidden = ours.hidden(params, tokens, mask)
        return ours.head(params, hidden[jnp.arange(len(at)), at], jnp.asarray(WORDS))

    return f


LAST = np.array(LENGTHS, np.int32) - 1


def trained(model):
    """Torch's parameters, tied ones once."""
    return {n: p.detach().clone() for n, p in model.torch.named_parameters()}


@pytest.mark.slow
@pytest.mark.parametrize("case", ["bert", "roberta", "mpnet"])
def test_f_lin_and_its_gradient_equal_torchs_jvp(saved, case):
    model, draw = saved(case), torch.Generator().manual_seed(3)
    base = trained(model)
    tau = {n: 0.1 * torch.randn(p.shape, generator=draw) for n, p in base.items()}
    leaf = {n: t.clone().requires_grad_() for n, t in tau.items()}
    f0, moved = torch.func.jvp(lambda p: theirs_at_words(model, p), (base,), (leaf,))
    torch.sin(f0 + moved).sum().backward()

    f, params = ours_at_words(model.scanned), model.scanned.params
    f_lin = taylor.linearize(f, params)
    delta = layers.nest(layers.stack(model.leaves(tau)))

    def total(delta):
        theta = jax.tree.map(jnp.add, params, delta)
        out = f_lin(theta, *model.inputs(), jnp.asarray(LAST))
        return jnp.sin(out).sum(), out

    (_, out), grads = jax.jit(jax.value_and_grad(total, has_aux=True))(delta)
    np.testing.assert_allclose(out, (f0 + moved).detach().numpy(), atol=2e-5)
    expected = model.leaves({n: t.grad for n, t in leaf.items()})
    found = layers.unstack(tree.flatten(grads))
    assert found.keys() == expected.keys()
    for name, theirs in expected.items():
        np.testing.assert_allclose(found[name], theirs, atol=5e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["bert_bare", "mpnet"])
def test_a_sentence_s_tangent_and_gradient_equal_torchs(saved, case):
    """f_lin of the mean over a text's tokens at length 1, as MiniLM and MPNet are read."""
    model, draw = saved(case), torch.Generator().manual_seed(4)
    base = trained(model)
    tau = {n: 0.1 * torch.randn(p.shape, generator=draw) for n, p in base.items()}
    leaf = {n: t.clone().requires_grad_() for n, t in tau.items()}
    seen = torch.from_numpy(model.mask)[..., None].float()

    def theirs(params):
        hidden = model.call(model.torch, params).hidden_states[-1]
        return torch.nn.functional.normalize((hidden * seen).sum(1) / seen.sum(1), dim=1)

    f0, moved = torch.func.jvp(theirs, (base,), (leaf,))
    weights = torch.randn(f0.shape, generator=draw)
    (weights * torch.sin(f0 + moved)).sum().backward()
    norms = f0.detach().norm(dim=1).numpy()
    np.testing.assert_allclose(norms, 1, atol=1e-6)

    encoder = sentence_encoder(model.ours)
    f_lin = taylor.linearize(encoder.f, encoder.params)
    delta = layers.nest(model.leaves(tau))

    def total(delta):
        out = f_lin(jax.tree.map(jnp.add, encoder.params, delta), *model.inputs())
        return (weights.numpy() * jnp.sin(out)).sum(), out

    (_, out), grads = jax.jit(jax.value_and_grad(total, has_aux=True))(delta)
    assert moved.detach().abs().max() > 0.1
    np.testing.assert_allclose(out, (f0 + moved).detach().numpy(), atol=2e-5)
    still = {n: torch.zeros_like(t) if t.grad is None else t.grad for n, t in leaf.items()}
    expected, found = model.leaves(still), tree.flatten(grads)
    assert found.keys() == expected.keys()
    assert max(np.abs(x).max() for x in expected.values()) > 0.1
    for name, theirs_there in expected.items():
        np.testing.assert_allclose(found[name], theirs_there, atol=5e-5, err_msg=name)


STEPS, WARMUP, LR = 10, 3, 1e-3
EPS = 1e-6
"""So large that an entry whose gradient is rounding moves nowhere; with 1e-8 its sign decides."""


@pytest.mark.slow
@pytest.mark.parametrize("regime", ["nonlinear", "linear"])
@pytest.mark.parametrize("case", ["bert", "roberta", "mpnet"])
def test_ten_adamw_steps_equal_torch(saved, case, regime):
    """Relative 1e-3 in τ; biases of the keys, which softmax does not see, are left out."""
    model = saved(case)
    labels = np.array([0, 2, 1], np.int32)
    optim = OptimConfig(
        lr=LR, weight_decay=0.1, decay="theta", warmup=WARMUP, clip=1.0, options={"eps": EPS}
    )
    got = train.fine_tune(
        ours_at_words(model.scanned),
        model.scanned.params,
        {"tokens": model.tokens, "mask": model.mask, "at": LAST, "labels": labels},
        inputs=("tokens", "mask", "at"),
        regime=regime,
        config=TrainConfig(
            optim=optim, steps=STEPS, batch_size=len(labels), log_every=1, tensorboard=False
        ),
    )
    base = trained(model)
    theta = {n: torch.nn.Parameter(p.clone()) for n, p in base.items()}
    adamw = torch.optim.AdamW(theta.values(), lr=LR, weight_decay=0.1, eps=EPS)
    # the batch is the whole data set, in any order
    for step in range(STEPS):
        if regime == "linear":
            tau = {n: p - base[n] for n, p in theta.items()}
            logits = sum(torch.func.jvp(lambda p: theirs_at_words(model, p), (base,), (tau,)))
        else:
            logits = theirs_at_words(model, theta)
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels).long())
        np.testing.assert_allclose(got.history[step]["loss"], loss.item(), rtol=1e-4)
        adamw.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(theta.values()), 1.0)
        after = (step - WARMUP) / (STEPS - WARMUP)
        rate = (step + 1) / WARMUP if step < WARMUP else 0.5 * (1 + np.cos(np.pi * after))
        adamw.param_groups[0]["lr"] = LR * rate
        adamw.step()
    expected = model.leaves({n: p.detach() - base[n] for n, p in theta.items()})
    moved = layers.unstack(dict(got.tau.delta))
    found = {n: x for n, x in moved.items() if not n.endswith("attention/k/bias")}
    apart = sum(float(((np.asarray(x) - expected[n]) ** 2).sum()) for n, x in found.items())
    size = sum(float((expected[n] ** 2).sum()) for n in found)
    assert size > 1e-3
    assert (apart / size) ** 0.5 < 1e-3


@pytest.mark.slow(but=["mpnet"])
@pytest.mark.parametrize("case", CASES)
def test_an_export_opens_in_transformers_and_holds_tied_weights_once(saved, case, tmp_path):
    model = saved(case)
    tau = jax.tree.map(lambda leaf: leaf + 0.01, model.ours.params)
    export(tmp_path, model.ours, tau)
    written = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    assert not written.keys() & LANGUAGE[model.kind].repeated.keys()
    theirs = type(model.torch).from_pretrained(tmp_path, attn_implementation="eager").eval()
    with torch.no_grad():
        expected = model.call(theirs).hidden_states[-1].numpy()
    hidden = model.ours.hidden(tau, *model.inputs())
    np.testing.assert_allclose(np.asarray(hidden)[model.mask], expected[model.mask], atol=1e-5)


def test_buckets_of_distances_are_mpnets():
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    distance = np.arange(-600, 600)
    expected = MPNetEncoder.relative_position_bucket(torch.from_numpy(distance)).numpy()
    found = relative.bucket(jnp.asarray(distance), 32, 128, directed=False)
    np.testing.assert_array_equal(found, expected)


def test_no_device_takes_the_logarithm_of_a_distance(saved):
    """One that rounds a whole power down would read another bucket."""
    model = saved("mpnet").ours
    tokens = jnp.zeros((1, 30), jnp.int32)
    traced = str(jax.make_jaxpr(model.hidden)(model.params, tokens, tokens == 0))
    assert " exp " in traced
    assert " log " not in traced


@pytest.mark.parametrize(
    ("kind", "told", "message"),
    [
        ("bert", {"is_decoder": True}, "is_decoder=true; only False"),
        ("bert", {"position_embedding_type": "relative_key"}, "relative_key"),
        ("bert", {"tie_word_embeddings": False}, "tie_word_embeddings=false"),
        ("roberta", {"max_position_embeddings": 2}, "max_position_embeddings=2; over 1"),
        ("mpnet", {"relative_attention_num_buckets": 64}, "num_buckets=64; only 32"),
        ("bert", {"gate": 3}, "gate=3 is not understood"),
    ],
)
def test_a_configuration_of_another_function_is_refused(kind, told, message):
    with pytest.raises(WeightsError, match=message):
        LANGUAGE[kind].configure(told, "config.json")


def test_bad_inputs_are_named(saved):
    f, params = saved("mpnet").ours.f, saved("mpnet").ours.params
    tokens = jnp.ones((2, 36), jnp.int32)
    with pytest.raises(ValueError, match="36 a text; this encoder takes 1 to 35"):
        f(params, tokens, jnp.ones((2, 36), bool))
    with pytest.raises(ValueError, match="mask has shape"):
        f(params, tokens[:, :3], jnp.ones((2, 3)))
    with pytest.raises(ValueError, match="tokens has shape"):
        f(params, 1.0 * tokens, jnp.ones((2, 36), bool))
    with pytest.raises(ValueError, match="no token types; leave them out"):
        f(params, tokens[:, :3], jnp.ones((2, 3), bool), tokens[:, :3])
