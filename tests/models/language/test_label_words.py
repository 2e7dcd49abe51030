"""Label words: the rows of the head, at one position; and which words and prompts are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import linearize as lz
from linearize import cost, models
from linearize.models.language import LanguageModel, LanguageTokenizer
from linearize.models.language.label_words import label_words, prompted, word_tokens

tokenizers = pytest.importorskip("tokenizers")

V, D = 31, 5
KEYS = jax.random.split(jax.random.key(0), 2)
PARAMS = {
    "token_embedding": jax.random.normal(KEYS[0], (V, D)),
    "mix": {"kernel": jax.random.normal(KEYS[1], (D, D))},
}


def hidden(params, tokens, mask=None):
    x = params["token_embedding"][tokens]
    x = x if mask is None else jnp.where(mask[..., None], x, 0)
    return jnp.tanh(jnp.cumsum(x, 1) @ params["mix"]["kernel"])


def head(params, hidden, words=None):
    table = params["token_embedding"]
    return hidden @ (table if words is None else table[words]).T


def whole(params, *inputs):
    return head(params, hidden(params, *inputs))


@pytest.fixture
def model():
    return LanguageModel(
        whole, PARAMS, hidden=hidden, head=head, about={"vocabulary": V, "context": 9, "width": D}
    )


@pytest.mark.parametrize("masked", [False, True])
def test_are_the_whole_logits_rows(model, masked):
    rng = np.random.default_rng(0)
    tokens, at, words = rng.integers(V, size=(4, 6)), np.array([0, 3, 5, 2]), [7, 0, 30]
    inputs = (tokens, rng.random((4, 6)) < 0.7) if masked else (tokens,)
    few = label_words(model, words)
    expected = whole(PARAMS, *inputs)[np.arange(4), at][:, words]
    np.testing.assert_allclose(few.f(PARAMS, *inputs, at), expected, rtol=1e-6)
    traced = jax.make_jaxpr(few.f)(PARAMS, *inputs, at)
    made = [v.aval.shape for e in cost.equations(traced.jaxpr) for v in e.outvars]
    assert made
    assert not any(V in shape for shape in made)  # what is of the vocabulary's size is never made


@pytest.mark.slow
def test_gradients_are_the_whole_logits_too(model):
    rng = np.random.default_rng(1)
    tokens, at, words = rng.integers(V, size=(6, 4)), np.arange(6) % 4, np.array([3, 4])
    batch = {"labels": np.arange(6) % 2}
    few = label_words(model, words)

    def loss(f, params):
        return lz.Classify().loss(f(params, tokens, at), batch).mean()

    found = jax.grad(lambda params: loss(few.f, params))(PARAMS)
    expected = jax.grad(
        lambda params: loss(lambda p, t, at: whole(p, t)[np.arange(6), at][:, words], params)
    )(PARAMS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, expected)


def test_a_position_that_is_not_there_is_no_number(model):
    out = label_words(model, [1, 2]).f(PARAMS, np.zeros((2, 3), int), np.array([3, -1]))
    assert np.isnan(out).all()


def test_what_are_no_label_words(model):
    with pytest.raises(ValueError, match="no language-model head"):
        label_words(LanguageModel(hidden, PARAMS, hidden=hidden), [1, 2])
    for words, said in (
        ([1], "two tokens or more"),
        ([1, 1], "each of one class"),
        ([1, 31], "tokens 0 to 30: is this another model's"),
        ([-1, 3], "tokens 0 to 30"),
    ):
        with pytest.raises(ValueError, match=said):
            label_words(model, words)


def byte_pairs():
    """GPT-2's kind, of which ``Ġgreat`` and ``Ġno`` are words."""
    level = tokenizers.pre_tokenizers.ByteLevel
    alphabet = sorted(level.alphabet())
    merges = [("g", "r"), ("gr", "e"), ("gre", "a"), ("grea", "t"), ("Ġ", "great"), ("n", "o")]
    merges += [("Ġ", "no"), ("Ġ", "b"), ("b", "a")]
    made = ["".join(pair) for pair in merges]
    vocab = {w: i for i, w in enumerate(["<mask>", *alphabet, *made])}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, merges))
    backend.pre_tokenizer = level(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens([tokenizers.AddedToken("<mask>", lstrip=True, special=True)])
    return LanguageTokenizer("pairs", backend, {"mask": 0, "eos": vocab["!"]})


def word_pieces():
    listed = ["[UNK]", "[MASK]", "a", "great", "no", "bad", "##ly", "[PAD]"]
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({w: i for i, w in enumerate(listed)}, unk_token="[UNK]")
    )
    backend.normalizer = tokenizers.normalizers.BertNormalizer()
    backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    backend.add_special_tokens(["[MASK]"])
    return LanguageTokenizer("pieces", backend, {"mask": 1, "unk": 0, "pad": 7})


def sentence_pieces():
    listed = [("<unk>", 0.0), *((w, -1.0) for w in ("▁", "▁a", "▁great", "▁no", "s"))]
    backend = tokenizers.Tokenizer(tokenizers.models.Unigram(listed, 0))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    return LanguageTokenizer("unigrams", backend, {"unk": 0, "pad": 1})


@pytest.mark.parametrize("made", [byte_pairs, word_pieces, sentence_pieces])
def test_words_are_tokens_as_they_stand_after_another(made):
    tokenizer = made()
    found = word_tokens(tokenizer, ["great", " no"])
    before = tokenizer.ids(["a"])[0]
    assert [[*before, one] for one in found] == tokenizer.ids(["a great", "a no"])
    for word, said in (
        ("greats", r"'greats' is 2 tokens \(.*'s'\)|'greats' is unknown"),
        ("great", "'great' is the token of 'great'"),
        (" ", "' ' is no word"),
        ("日", r"'日' is \d tokens|'日' is unknown"),
    ):
        with pytest.raises(ValueError, match=said):
            word_tokens(tokenizer, ["great", word])


def test_one_string_is_no_list_of_words():
    """Its letters would be the words."""
    with pytest.raises(ValueError, match="words='no'; expected a list of words, one a class"):
        word_tokens(byte_pairs(), "no", spaced=False)


def test_words_at_a_text_s_beginning():
    tokenizer = byte_pairs()
    assert word_tokens(tokenizer, ["great", "no"], spaced=False) == [
        tokenizer.backend.token_to_id(word) for word in ("great", "no")
    ]
    with pytest.raises(ValueError, match=r"'ba' is 2 tokens \('Ġb', 'a'\)"):
        word_tokens(tokenizer, ["ba", "great"])


def test_prompts_ask_at_their_end_or_at_their_mask():
    tokenizer = byte_pairs()
    tokens, at = prompted(tokenizer, ["no great", "b"], 8)
    assert at.tolist() == [tokens[0].tolist().index(tokenizer.special["eos"]) - 1, 0]
    tokens, mask, at = prompted(tokenizer, ["b is <mask>.", "<mask>: b"], 8, at="mask")
    assert mask.dtype == bool
    assert (tokens[[0, 1], at] == tokenizer.mask).all()
    assert at[1] == 0
    with pytest.raises(ValueError, match=r"texts\[1\], texts\[2\] hold <mask> not once"):
        prompted(tokenizer, ["<mask>", "b", "<mask> <mask>"], at="mask")
    with pytest.raises(ValueError, match=r"texts\[0\] holds <mask> not once \(within 3 tokens\)"):
        prompted(tokenizer, ["a a a a <mask>"], 3, at="mask", cut="end")
    alone = LanguageTokenizer("here", tokenizer.backend, {})
    with pytest.raises(models.TokenizerError, match="no mask token"):
        prompted(alone, ["<mask>"], at="mask")
    with pytest.raises(ValueError, match="did you mean 'mask'"):
        prompted(tokenizer, ["b"], at="masc")
