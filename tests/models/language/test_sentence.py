"""Sentence encoders: what is pooled how, what files ask for, and packaged ones on real weights."""

import functools
import json

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from linearize import assets
from linearize.data.text import Documents, classification
from linearize.models.backbone import WeightsError
from linearize.models.language import LANGUAGE, LanguageModel, load_language, load_tokens, tokens_of
from linearize.models.language.sentence import sentence_encoder, told

HIDDEN = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
MASK = np.array([[True, True, False], [True, True, True]])
POOLER = {"kernel": np.eye(4, dtype=np.float32), "bias": np.ones(4, np.float32)}


def a_model(**params):
    """Hidden states that are given, whatever the tokens."""

    def hidden(params, tokens, mask):
        return jnp.asarray(HIDDEN) + params["shift"]

    about = {"vocabulary": 5, "context": 3, "width": 4}
    return LanguageModel(hidden, {"shift": jnp.zeros(()), **params}, hidden=hidden, about=about)


def features(model, **options):
    encoder = sentence_encoder(model, **options)
    return np.asarray(encoder.f(encoder.params, np.zeros((2, 3), np.int32), jnp.asarray(MASK)))


def test_the_mean_is_over_the_tokens_that_are_no_padding():
    expected = np.stack([HIDDEN[0, :2].mean(0), HIDDEN[1].mean(0)])
    np.testing.assert_allclose(features(a_model(), normalize=False), expected, rtol=1e-6)
    unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(features(a_model()), unit, rtol=1e-5)


def test_the_first_token_and_its_pooler():
    found = features(a_model(), pooling="first", normalize=False)
    np.testing.assert_array_equal(found, HIDDEN[:, 0])
    pooled = features(a_model(pooler=POOLER), pooling="pooler", normalize=False)
    np.testing.assert_allclose(pooled, np.tanh(HIDDEN[:, 0] + 1), rtol=1e-6)
    with pytest.raises(ValueError, match="take 'mean' or 'first'"):
        sentence_encoder(a_model(), pooling="pooler")
    with pytest.raises(ValueError, match="mean"):
        sentence_encoder(a_model(), pooling="meen")


MODULES = [
    {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]
MEAN = {"word_embedding_dimension": 4, "pooling_mode_mean_tokens": True}


def written(folder, modules, pooling=None):
    (folder / "model.safetensors").touch()
    (folder / "modules.json").write_text(json.dumps(modules))
    if pooling is not None:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def test_what_lies_beside_the_weights_says_how(tmp_path):
    assert told(written(tmp_path, MODULES, MEAN)) == {"pooling": "mean", "normalize": True}
    (tmp_path / "modules.json").write_text(json.dumps(MODULES[:2]))
    assert told(tmp_path) == {"pooling": "mean", "normalize": False}
    (tmp_path / "modules.json").unlink()
    assert told(tmp_path) == {}


@pytest.mark.parametrize(
    ("modules", "pooling", "message"),
    [
        ([*MODULES, {"type": "sentence_transformers.models.Dense"}], MEAN, "Dense"),
        (MODULES[:1], MEAN, "lists Transformer; only"),
        (MODULES, MEAN | {"pooling_mode_max_tokens": True}, "max_tokens=true; only False"),
        (MODULES, {"pooling_mode_mean_tokens": False}, "asks for 0 poolings"),
        (MODULES, MEAN | {"temperature": 2}, "temperature=2 is not understood"),
        (MODULES, None, "1_Pooling/config.json, which is not there"),
    ],
)
def test_what_is_not_computed_here_is_refused(tmp_path, modules, pooling, message):
    with pytest.raises(WeightsError, match=message):
        told(written(tmp_path, modules, pooling))


def test_pairs_are_told_apart_as_in_transformers(tmp_path):
    """Tokens, mask and types of pairs, one of them cut, through a small BERT of random weights."""
    torch, transformers = map(pytest.importorskip, ("torch", "transformers"))
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "fine", "dull", "film", "was", "it"]
    (tmp_path / "vocab.txt").write_text("\n".join(names) + "\n")
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    reference = transformers.BertModel(
        transformers.BertConfig(vocab_size=len(names), intermediate_size=12, **sizes)
    ).eval()
    reference.save_pretrained(tmp_path)
    model = load_language("bert", weights=tmp_path)
    encoder = sentence_encoder(model, normalize=False)
    pairs = [("a fine film", "it was dull"), ("film", "it was a fine film"), ("it", "a " * 20)]
    firsts, seconds = zip(*pairs, strict=True)
    documents = Documents(firsts, [0, 1, 1], ("no", "yes"), pairs=seconds)
    read = functools.partial(
        classification, documents, load_tokens(tmp_path), 12, too_long="cut", types=True
    )
    tokens, mask, types = read().inputs
    wanted = transformers.BertTokenizer(vocab={word: i for i, word in enumerate(names)})(
        list(firsts), list(seconds), padding="max_length", truncation="longest_first",
        max_length=12, return_tensors="pt",
    )  # fmt: skip
    np.testing.assert_array_equal(tokens, wanted["input_ids"])
    np.testing.assert_array_equal(types, wanted["token_type_ids"])
    with torch.no_grad():
        hidden = reference(**wanted).last_hidden_state.numpy()
    expected = np.stack([h[m].mean(0) for h, m in zip(hidden, mask, strict=True)])
    found = encoder.f(encoder.params, *map(jnp.asarray, (tokens, mask, types)))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    without = encoder.f(encoder.params, jnp.asarray(tokens), jnp.asarray(mask))
    assert np.abs(np.asarray(without) - expected).max() > 1e-3


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("name", ["minilm_l6", "mpnet_base"])
def test_packaged_embeddings_equal_transformers(name):
    torch, transformers = map(pytest.importorskip, ("torch", "transformers"))
    model, row = load_language(name), LANGUAGE[name]
    texts = ["A cat sits on the mat.", "Kittens are young cats.", "Shares fell sharply."]
    tokens, mask = tokens_of(model).encode(texts)
    encoder = sentence_encoder(model)
    found = np.asarray(encoder.f(encoder.params, jnp.asarray(tokens), jnp.asarray(mask)))
    config = transformers.AutoConfig.for_model(row.kind, **row.config, vocab_size=model.vocabulary)
    theirs = getattr(transformers, row.bare)(config).eval()
    held = safetensors.numpy.load_file(assets.fetch(row.packaged))
    left = theirs.load_state_dict({n: torch.from_numpy(x) for n, x in held.items()}, strict=False)
    assert not left.missing_keys
    with torch.no_grad():
        hidden = theirs(
            torch.from_numpy(tokens).long(), torch.from_numpy(mask).long()
        ).last_hidden_state.numpy()
    pooled = np.stack([h[m].mean(0) for h, m in zip(hidden, mask, strict=True)])
    expected = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    near, far = expected[0] @ expected[1], expected[0] @ expected[2]
    assert near > far + 0.2
