"""T5 and T5-v1.1 against transformers on torch, at random weights in odd sizes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from linearize import models, taylor, train, tree
from linearize.data import text
from linearize.models import lora
from linearize.models.backbone import WeightsError
from linearize.models.hf.engine import export_leaves
from linearize.models.language import relative, t5
from linearize.models.language.classifier import classifier
from linearize.objectives import Seq2Seq
from linearize.train import OptimConfig, TrainConfig

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = {
    "vocab_size": 37,
    "d_model": 20,
    "d_kv": 5,
    "d_ff": 28,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 3,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "decoder_start_token_id": 0,
}
V1_1 = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
CASES = {"t5": {}, "v1_1": V1_1, "v1_1_tied": V1_1}
"""The last as transformers 5 makes a random v1.1 of a configuration: tied, and not scaled."""
L, A = 13, 4


def shifted(labels):
    """As the data room shifts: the start token, then all but the last; padding is 0."""
    rows = [[int(token) for token in row if token >= 0] for row in labels]
    docs = text.Documents([str(i) for i in range(len(rows))])
    words = [" ".join(map(str, row)) for row in rows]
    found = text.answers(docs, Numbers(), 1, words, answer_length=labels.shape[1])
    np.testing.assert_array_equal(found.labels, labels)
    return found.inputs[2]


class Numbers:
    """A tokenizer of numbers."""

    def encode(self, text):
        return [int(word) for word in text.split()]


class Saved:
    """A random model of transformers, its folder, and the same model here."""

    def __init__(self, case, folder):
        config = transformers.T5Config(**SIZES, **CASES[case], attn_implementation="eager")
        torch.manual_seed(0)
        self.folder = folder / case
        self.torch = transformers.T5ForConditionalGeneration(config).eval()
        if case == "v1_1":
            self.torch.lm_head.weight = torch.nn.Parameter(torch.randn(37, 20))
        for name, parameter in self.torch.named_parameters():
            wide = parameter.ndim == 1 or "shared" in name
            spread = 0.3 if "relative" in name or wide else parameter.shape[-1] ** -0.5
            parameter.data = torch.randn(parameter.shape) * spread + float(parameter.ndim == 1)
        self.torch.save_pretrained(self.folder)
        self.ours = models.load_language("t5", weights=self.folder, scan=True)

    def logits(self, tokens, mask, answer, model=None):
        return (model or self.torch)(
            input_ids=torch.tensor(tokens),
            attention_mask=torch.tensor(mask).long(),
            decoder_input_ids=torch.tensor(answer),
        ).logits

    def theirs(self, leaves):
        """Leaves under transformers' names, as torch has them."""
        found = export_leaves(models.unstack(tree.flatten(leaves)), t5.TABLE)
        return {n: torch.tensor(x) for n, x in found.items()}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("t5"), {}

    def get(case):
        if case not in made:
            made[case] = Saved(case, folder)
        return made[case]

    return get


def texts(length=L, seed=0):
    """Tokens, a mask with padding behind, and labels of answers, −1 behind."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(2, 37, (3, length))
    mask = np.arange(length) < np.array([[length], [length // 2], [1]])
    labels = np.where(np.arange(A) < np.array([[4], [2], [3]]), rng.integers(1, 37, (3, A)), -1)
    return tokens, mask, labels


@pytest.mark.parametrize(
    "case", ["v1_1", *(pytest.param(c, marks=pytest.mark.slow) for c in ("t5", "v1_1_tied"))]
)
def test_logits_and_loss_equal_transformers(saved, case):
    """Answers are shifted as transformers shifts labels, and −1 is its −100."""
    model, (tokens, mask, labels) = saved(case), texts()
    with torch.no_grad():
        out = model.torch(
            input_ids=torch.tensor(tokens),
            attention_mask=torch.tensor(mask).long(),
            labels=torch.tensor(np.where(labels < 0, -100, labels)),
        )
    answer = shifted(labels)
    got = jax.jit(model.ours.f)(model.ours.params, tokens, mask, answer)
    expected = out.logits.numpy()
    assert got.dtype == jnp.float32
    assert np.abs(expected).max() > 1
    asked = labels >= 0  # what is read behind an answer's end is not
    np.testing.assert_allclose(got[asked], expected[asked], atol=2e-5, rtol=0)
    found = Seq2Seq().measure(got, {"labels": labels})
    assert np.log(found["perplexity"]) == pytest.approx(out.loss.item(), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["t5"])
def test_logits_of_long_texts_equal_transformers(saved, case):
    """Beyond a block of attention, with a bias of its own for each."""
    model, (tokens, mask, _) = saved(case), texts(150)
    answer = np.random.default_rng(1).integers(0, 37, (3, 140))
    with torch.no_grad():
        expected = model.logits(tokens, mask, answer).numpy()
    got = model.ours.f(model.ours.params, tokens, mask, answer)
    np.testing.assert_allclose(got, expected, atol=5e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["t5", "v1_1"])
def test_bfloat16_is_as_near_as_transformers(saved, case):
    model, (tokens, mask, labels) = saved(case), texts()
    half = models.load_language("t5", weights=model.folder, dtype="bfloat16")
    answer = shifted(labels)
    with torch.no_grad():
        right = model.logits(tokens, mask, answer).numpy()
        other = transformers.T5ForConditionalGeneration.from_pretrained(
            model.folder, dtype=torch.bfloat16, attn_implementation="eager"
        ).eval()
        theirs = model.logits(tokens, mask, answer, other).float().numpy()
    ours = np.asarray(half.f(half.params, tokens, mask, answer))
    assert ours.dtype == np.float32
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(half.params))
    size = np.abs(right).max()
    assert 1e-4 * size < np.abs(ours - right).max() < 1.5 * np.abs(theirs - right).max()


@pytest.mark.slow
@pytest.mark.parametrize("case", ["t5", "v1_1"])
def test_linearized_loss_and_gradient_equal_torch(saved, case):
    """f_lin, the loss and its gradient with respect to τ, against ``torch.func.jvp``."""
    model, (tokens, mask, labels) = saved(case), texts()
    params0, answer, rng = model.ours.params, shifted(labels), np.random.default_rng(3)
    tau = {n: np.float32(0.1 * rng.normal(size=x.shape)) for n, x in tree.flatten(params0).items()}

    def loss(tau):
        out = taylor.tangent(model.ours.f)(params0, tau, tokens, mask, answer)
        return jnp.mean(Seq2Seq().loss(out, {"labels": labels})), out

    (value, out), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(tau)
    delta = {n: x.requires_grad_() for n, x in model.theirs(tau).items()}
    linear = along(model, model.theirs(params0), delta, tokens, mask, answer)
    expected = linear.detach().numpy()
    assert np.abs(np.asarray(out) - expected).max() < 1e-4 * np.abs(expected).max()
    theirs = mean_of_answers(linear, labels)
    assert float(value) == pytest.approx(theirs.item(), rel=1e-4)
    slopes = torch.autograd.grad(theirs, list(delta.values()))
    for (name, expected), got in zip(
        zip(delta, slopes, strict=True), model.theirs(gradient).values(), strict=True
    ):
        assert (got - expected).norm() < 1e-4 * max(slope.norm() for slope in slopes), name


def along(model, base, tau, tokens, mask, answer):
    """f_lin, by torch, of parameters under the names of a file."""

    def call(params):
        params = {**params, "encoder.embed_tokens.weight": params["shared.weight"]}
        params["decoder.embed_tokens.weight"] = params["shared.weight"]
        params.setdefault("lm_head.weight", params["shared.weight"])
        return torch.func.functional_call(
            model.torch,
            params,
            kwargs={
                "input_ids": torch.tensor(tokens),
                "attention_mask": torch.tensor(mask).long(),
                "decoder_input_ids": torch.tensor(answer),
                "use_cache": False,
            },
            tie_weights=False,
        ).logits

    if tau is None:
        return call(base)
    f0, moved = torch.func.jvp(call, (base,), (tau,))
    return f0 + moved


def mean_of_answers(logits, labels):
    """An answer's mean over tokens, then the mean over answers."""
    y = torch.tensor(labels)
    nats = torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), y, ignore_index=-1, reduction="none"
    )
    return (nats.sum(1) / (y >= 0).sum(1)).mean()


@pytest.mark.slow
@pytest.mark.parametrize("regime", ["nonlinear", "linear"])
@pytest.mark.parametrize("case", ["t5", "v1_1"])
def test_ten_steps_equal_torch(saved, case, regime):
    """AdamW of each batch whole, with remat: relative 1e-3 in τ."""
    model, (tokens, mask, labels) = saved(case), texts()
    ours = models.load_language("t5", weights=model.folder, scan=True, remat="dots")
    answer, lr, steps = shifted(labels), 1e-3, 10
    optim = OptimConfig(
        lr=lr, weight_decay=0.1, decay="theta", warmup=0, clip=None, schedule="constant"
    )
    got = train.fine_tune(
        ours.f,
        ours.params,
        {"inputs_0": tokens, "inputs_1": mask, "inputs_2": answer, "labels": labels},
        regime=regime,
        inputs=("inputs_0", "inputs_1", "inputs_2"),
        **Seq2Seq().training(),
        config=TrainConfig(optim=optim, steps=steps, batch_size=3, log_every=1, tensorboard=False),
    )
    base = model.theirs(model.ours.params)
    theta = {n: torch.nn.Parameter(p.clone()) for n, p in base.items()}
    adamw = torch.optim.AdamW(theta.values(), lr=lr, weight_decay=0.1, eps=1e-8)
    for step in range(steps):
        if regime == "linear":
            tau = {n: p - base[n] for n, p in theta.items()}
            out = along(model, base, tau, tokens, mask, answer)
        else:
            out = along(model, theta, None, tokens, mask, answer)
        loss = mean_of_answers(out, labels)
        assert got.history[step]["loss"] == pytest.approx(loss.item(), rel=1e-4)
        adamw.zero_grad()
        loss.backward()
        adamw.step()
    assert got.history[-1]["loss"] < 0.95 * got.history[0]["loss"]
    found = model.theirs(dict(got.tau.delta))
    expected = {n: theta[n].detach() - base[n] for n in base}
    apart = sum((found[n] - expected[n]).square().sum() for n in base).sqrt()
    assert apart < 1e-3 * sum(x.square().sum() for x in expected.values()).sqrt()


@pytest.mark.slow
@pytest.mark.parametrize("case", ["t5", "v1_1"])
def test_steps_with_a_cache_equal_whole_answers(saved, case):
    """Two tokens, then one after another, f and its tangent."""
    model, (tokens, mask, _) = saved(case).ours, texts()
    answer = np.random.default_rng(5).integers(0, 37, (3, A))
    rng = np.random.default_rng(6)
    tau = jax.tree.map(lambda x: np.float32(0.1 * rng.normal(size=x.shape)), model.params)

    def stepwise(params):
        cache, found = model.encode(params, tokens, mask, A), []
        for some in (answer[:, :2], answer[:, 2:3], answer[:, 3:]):
            hidden, cache = model.step(params, some, cache)
            found.append(model.head(params, hidden))
        return jnp.concatenate(found, 1)

    @jax.jit
    def both(tau):
        whole = lambda params: model.f(params, tokens, mask, answer)  # noqa: E731
        return [jax.jvp(f, (model.params,), (tau,)) for f in (stepwise, whole)]

    got, whole = both(tau)
    for a, b in zip(got, whole, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 * np.abs(b).max(), rtol=0)


@pytest.mark.slow
def test_greedy_answers_equal_transformers(saved):
    model, (tokens, mask, _) = saved("v1_1"), texts()
    ours, at = model.ours, jnp.zeros((3, 1), jnp.int32)
    cache, found = ours.encode(ours.params, tokens, mask, 6), []
    for _ in range(6):
        hidden, cache = ours.step(ours.params, at, cache)
        at = ours.head(ours.params, hidden).argmax(-1)
        found.append(np.asarray(at)[:, 0])
    expected = model.torch.generate(
        torch.tensor(tokens), attention_mask=torch.tensor(mask).long(), max_new_tokens=6,
        do_sample=False, eos_token_id=None,
    )  # fmt: skip
    np.testing.assert_array_equal(np.stack(found, 1), expected[:, 1:].numpy())


@pytest.mark.slow
@pytest.mark.parametrize("case", ["t5", "v1_1"])
def test_an_export_opens_in_transformers(saved, case, tmp_path):
    """Edited parameters; what is tied is written once."""
    model, (tokens, mask, labels) = saved(case), texts()
    ours, answer = model.ours, shifted(labels)
    params = jax.tree.map(lambda x: 1.1 * x, ours.params)
    models.export(tmp_path, ours, params)
    opened = type(model.torch).from_pretrained(tmp_path).eval()
    with torch.no_grad():
        expected = model.logits(tokens, mask, answer, opened).numpy()
    np.testing.assert_allclose(
        jax.jit(ours.f)(params, tokens, mask, answer), expected, atol=5e-5, rtol=0
    )
    names = safetensors.numpy.load_file(tmp_path / "model.safetensors").keys()
    assert ("lm_head.weight" in names) == (case == "v1_1")
    again = models.load_language("t5", weights=tmp_path, scan=True)
    for name, leaf in tree.flatten(again.params).items():
        np.testing.assert_array_equal(leaf, tree.flatten(params)[name], err_msg=name)


@pytest.mark.slow
def test_blocks_one_by_one_are_the_scanned_ones(saved):
    model, (tokens, mask, labels) = saved("v1_1"), texts()
    plain = models.load_language("t5", weights=model.folder)
    answer, scanned = shifted(labels), model.ours
    expected = jax.jit(scanned.f)(scanned.params, tokens, mask, answer)
    got = jax.jit(plain.f)(plain.params, tokens, mask, answer)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert scanned.blocks == ("encoder/blocks", "decoder/blocks")
    assert plain.blocks[2:4] == ("encoder/block_2", "decoder/block_0")
    leaves = tree.flatten(models.stack(plain.params))
    assert leaves.keys() == tree.flatten(scanned.params).keys()


def test_the_first_blocks_are_those_of_both_stacks(tmp_path):
    """And the configuration says so, also where it left the decoder's depth to the encoder's."""
    whole = models.load_language("toy_t5", pretrained=False)
    models.export(tmp_path, whole)
    told = json.loads((tmp_path / "config.json").read_text())
    assert told.pop("num_decoder_layers") == told["num_layers"] == 2
    (tmp_path / "config.json").write_text(json.dumps(told))
    cut = models.load_language("t5", weights=tmp_path, blocks=1)
    assert cut.blocks == ("encoder/block_0", "decoder/block_0")
    assert (cut.about["config"]["num_layers"], cut.about["config"]["num_decoder_layers"]) == (1, 1)
    for name, leaf in tree.flatten(cut.params).items():
        np.testing.assert_array_equal(leaf, tree.flatten(whole.params)[name])
    inputs = np.array([[5, 6, 1]]), np.ones((1, 3), bool), np.array([[0, 7]])
    module = t5.T5(**t5.configure(cut.about["config"], "cut"), own_head=False)
    np.testing.assert_allclose(
        cut.hidden(cut.params, *inputs), module.apply({"params": cut.params}, *inputs), rtol=1e-5
    )
    models.export(tmp_path / "cut", cut)
    again = models.load_language("t5", weights=tmp_path / "cut")
    assert again.blocks == cut.blocks
    assert models.load_language("t5", weights=tmp_path, blocks=2).blocks == whole.blocks


@pytest.mark.slow
def test_low_rank_factors_of_scanned_stacks_are_their_blocks():
    params = models.load_language("toy_t5", pretrained=False, scan=True).params
    told = {"rank": 1, "pattern": "attention/q/kernel", "seed": 3}
    found = lora.Adapter.start(params, **told)
    other = lora.Adapter.start(models.unstack(tree.flatten(params)), **told)
    assert len(other.a) == 3 * 2
    assert len(found.a) == 3
    for name, leaf in models.unstack(found.a).items():
        np.testing.assert_array_equal(leaf, other.a[name])


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize(("buckets", "farthest"), [(32, 128), (8, 20), (31, 100), (12, 1000)])
def test_buckets_equal_transformers(directed, buckets, farthest):
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = np.arange(-1500, 1501)
    got = relative.bucket(jnp.asarray(distance), buckets, farthest, directed=directed)
    expected = T5Attention._relative_position_bucket(
        torch.tensor(distance), not directed, buckets, farthest
    )
    np.testing.assert_array_equal(got, expected.numpy())


def test_what_a_configuration_says_otherwise_is_refused():
    config = {**SIZES, "model_type": "t5"}
    assert t5.configure(config, "here")["tied"]
    assert not t5.configure({**config, "tie_word_embeddings": False}, "here")["scaled"]
    with pytest.raises(
        WeightsError, match=r"feed_forward_proj='gated-tanh'; there are .*'gated-gelu'"
    ):
        t5.configure({**config, "feed_forward_proj": "gated-tanh"}, "here")
    for told in (
        {},
        {"feed_forward_proj": "gated-gelu"},
        {"feed_forward_proj": "gated-silu"},
        {"feed_forward_proj": "gated-gelu", "dense_act_fn": "relu", "is_gated_act": False},
        {"feed_forward_proj": "relu", "dense_act_fn": "gelu", "is_gated_act": True},
        {"tie_word_embeddings": False},
        {"tie_word_embeddings": False, "scale_decoder_outputs": True},
        {"scale_decoder_outputs": False},
    ):
        theirs = transformers.T5Config.from_dict(dict(told))
        ours = t5.configure(told, "here")
        assert (ours["activation"], ours["gated"]) == (theirs.dense_act_fn, theirs.is_gated_act)
        assert ours["scaled"] == theirs.scale_decoder_outputs, told
    with pytest.raises(WeightsError, match="attends_to='far' is not understood here"):
        t5.configure({**config, "attends_to": "far"}, "here")
    with pytest.raises(WeightsError, match="num_buckets=40; expected 4 to 39"):
        t5.configure({**config, "relative_attention_num_buckets": 40}, "here")


def test_inputs_that_are_no_texts_are_refused(saved):
    model, (tokens, mask, labels) = saved("v1_1").ours, texts()
    answer = shifted(labels)
    call = lambda *inputs: jax.eval_shape(model.f, model.params, *inputs)  # noqa: E731
    with pytest.raises(ValueError, match=r"mask has shape \(3, 13\) and dtype int32; expected boo"):
        call(tokens, mask.astype(int), answer)
    with pytest.raises(ValueError, match="answer has 2 rows, for 3 texts"):
        call(tokens, mask, answer[:2])
    with pytest.raises(ValueError, match=r"tokens has shape .* float32; expected"):
        call(tokens.astype(float), mask, answer)


@pytest.mark.slow
def test_a_classifier_equals_transformers(tmp_path):
    """Where the decoder, which reads the text shifted, meets the text's last end."""
    config = transformers.T5Config(**SIZES, **V1_1, num_labels=3, attn_implementation="eager")
    torch.manual_seed(1)
    theirs = transformers.T5ForSequenceClassification(config).eval()
    tensors = {n.removeprefix("transformer."): p for n, p in theirs.named_parameters()}
    head = {n: p.detach().numpy() for n, p in tensors.items() if n.startswith("classification")}
    whole = transformers.T5ForConditionalGeneration(config)
    whole.load_state_dict({n: p for n, p in tensors.items() if n not in head}, strict=False)
    whole.save_pretrained(tmp_path)
    whole = models.load_language("t5", weights=tmp_path)
    with pytest.raises(ValueError, match="seed=4294967296; expected an integer from 0 to"):
        classifier(whole, 3, seed=2**32)
    model = classifier(whole, 3)
    params = {**model.params, "classifier": {
        ours: {
            "kernel": head[f"classification_head.{name}.weight"].T,
            "bias": head[f"classification_head.{name}.bias"],
        }
        for ours, name in (("dense", "dense"), ("out", "out_proj"))
    }}  # fmt: skip
    tokens, _, _ = texts()
    mask = np.arange(L) < np.array([[L], [9], [4]])
    tokens[[0, 1, 2], [L - 1, 8, 3]] = 1
    tokens[~mask] = 0
    with torch.no_grad():
        ids = torch.tensor(tokens)
        expected = theirs(input_ids=ids, attention_mask=torch.tensor(mask).long()).logits.numpy()
    got = np.asarray(jax.jit(model.f)(params, tokens, mask))
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)
    assert np.isnan(model.f(params, tokens[:1, :5], mask[:1, :5])).all()  # without an end
