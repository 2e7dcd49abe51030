"""Generation: steps against whole sequences, in both views; which tokens; and rows on their own."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import linearize as lz
from experiments import hlo
from linearize import models, taylor, tree
from linearize.models.language import LanguageModel, LanguageTokenizer, generation
from linearize.models.language.gpt2 import GPT2Decoder
from linearize.models.language.llama import Decoder
from linearize.models.language.rotary import Linear
from linearize.models.language.sampling import Sampling
from linearize.models.language.t5 import T5

V, NEW = 23, 6
SIZES = {"vocabulary": V, "context": 24, "depth": 2, "width": 12, "hidden": 16, "scan": True}
T5_SIZES = {**SIZES, "decoder_depth": 2, "heads": 3, "head_width": 5, "start": 2}
MODULES = {
    "t5": partial(T5, **{n: x for n, x in T5_SIZES.items() if n != "context"}),
    "gpt2": partial(GPT2Decoder, **SIZES, heads=3),
    "llama": partial(Decoder, **SIZES, heads=3, shared=1, head_width=4),
    "gemma": partial(
        Decoder,
        **SIZES,
        heads=3,
        shared=1,
        head_width=4,
        head_norms=True,
        post_norms=True,
        norm_offset=1.0,
        window=3,
        local=(True, False),
        local_theta=10.0,
        stretch=Linear(2.0),
        attention_cap=2.0,
        logit_cap=3.0,
    ),
}
PROMPTS = [[3, 1, 4, 1, 5], [9], [2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6, 2], [0, 22]]


def made(name):
    module = MODULES[name]()
    tokens = jnp.zeros((1, 2), int)
    inputs = (tokens, tokens == 0, tokens) if name == "t5" else (tokens,)
    drawn = module.init(jax.random.key(0), *inputs)["params"]
    keys = iter(jax.random.split(jax.random.key(1), len(jax.tree.leaves(drawn))))
    params = jax.tree.map(lambda x: 0.5 * jax.random.normal(next(keys), x.shape), drawn)

    def method(name):
        def f(params, *args):
            return module.apply({"params": params}, *args, method=name)

        return f if hasattr(module, name) else None

    hidden, head = method("__call__"), method("logits")
    return LanguageModel(
        lambda params, *inputs: head(params, hidden(params, *inputs)),
        params,
        name=name,
        about={"vocabulary": V, "context": module.context, "width": 12, "architecture": T5_SIZES},
        hidden=hidden,
        head=head,
        step=method("step"),
        cache=getattr(module, "cache", None),
        encode=method("encode"),
    )


@pytest.fixture(scope="module")
def decoder():
    known = {}

    def get(name):
        if name not in known:
            known[name] = made(name)
        return known[name]

    return get


@pytest.fixture(scope="module")
def tau(decoder):
    def get(name):
        rng = np.random.default_rng(2)
        flat = tree.flatten(decoder(name).params)
        return {n: np.float32(0.2 * rng.normal(size=x.shape)) for n, x in flat.items()}

    return get


def whole(model, tau, alpha, view):
    """Logits after every token of a sequence, by no cache."""
    if tau is None:
        return jax.jit(partial(model.f, model.params))
    scaled = {n: alpha * x for n, x in tau.items()}
    f = {"tangent": taylor.tangent, "displaced": taylor.displaced}[view](model.f)
    return jax.jit(partial(f, model.params, scaled))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "view"),
    [("gpt2", "displaced"), ("gpt2", "tangent"), ("llama", None), ("gemma", "tangent")],
)
def test_greedy_steps_follow_whole_sequences(decoder, tau, name, view):
    """Each token is the likeliest of the whole sequence's logits before it, in every row."""
    model, moved = decoder(name), None if view is None else tau(name)
    found = lz.generate(
        model, PROMPTS, new=NEW, temperature=0, tau=moved, alpha=0.7, view=view or "displaced"
    )
    full = np.zeros((len(PROMPTS), 24), np.int32)  # one length, one program
    for row, prompt, more in zip(full, PROMPTS, found.tokens, strict=True):
        row[: len(prompt) + NEW] = [*prompt, *more]
    logits = np.asarray(whole(model, moved, 0.7, view)(full))
    for row, prompt, more in zip(logits, PROMPTS, found.tokens, strict=True):
        at = np.arange(NEW) + len(prompt) - 1
        picked = row[at, more]
        assert (picked >= row[at].max(-1) - 1e-4 * np.abs(row[at]).max()).all()
    assert found.lengths.tolist() == [NEW] * 4
    assert not found.finished.any()


@pytest.mark.slow
@pytest.mark.parametrize("view", ["displaced", "tangent"])
def test_an_encoder_decoder_answers(decoder, tau, view):
    """Each token is the likeliest after the start token and the answer so far, of each text."""
    model, moved = decoder("t5"), tau("t5")
    found = lz.generate(model, PROMPTS, new=NEW, temperature=0, tau=moved, alpha=0.7, view=view)
    tokens, lengths = np.zeros((4, 16), np.int32), [len(prompt) for prompt in PROMPTS]
    for row, prompt in zip(tokens, PROMPTS, strict=True):
        row[: len(prompt)] = prompt
    mask = np.arange(16) < np.array(lengths)[:, None]
    start = np.full((4, 1), T5_SIZES["start"])
    answer = np.concatenate([start, found.tokens[:, :-1]], 1)
    logits = np.asarray(whole(model, moved, 0.7, view)(tokens, mask, answer))
    picked = np.take_along_axis(logits, found.tokens[..., None], -1)[..., 0]
    assert (picked >= logits.max(-1) - 1e-4 * np.abs(logits).max()).all()
    assert len(np.unique(found.tokens, axis=0)) > 1
    assert found.lengths.tolist() == [NEW] * 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "gemma"])
def test_cached_steps_equal_whole_sequences_in_the_tangent(decoder, tau, name):
    """f0 + α J τ by one token after another, cache and derivative, at every position: 1e-5."""
    model, moved = decoder(name), tau(name)
    tokens = np.random.default_rng(3).integers(V, size=(2, 11))
    expected = np.asarray(whole(model, moved, 0.7, "tangent")(tokens))
    scaled = {n: jnp.asarray(0.7 * x) for n, x in moved.items()}
    cache = model.cache(2, 11)
    pushed = {n: jnp.zeros_like(x) for n, x in cache.items() if n != "seen"}

    @jax.jit
    def advance(token, cache, pushed):
        def forward(params, cache):
            hidden, cache = model.step(params, token, cache)
            return model.head(params, hidden[:, -1]), cache

        return generation._advanced(forward, model.params, scaled, cache, pushed)

    for at in range(11):
        logits, cache, pushed = advance(tokens[:, at : at + 1], cache, pushed)
        np.testing.assert_allclose(logits, expected[:, at], atol=1e-5 * np.abs(expected).max())
    assert int(cache["seen"]) == 11


def test_a_token_copies_neither_weights_nor_the_cache(decoder):
    """Of scanned blocks: in the loop over tokens less is moved than the smallest matrix has."""
    model = decoder("gpt2")
    program = generation._run.lower(
        generation._Decoder.of(model), Sampling(0), 15, True, False,
        model.params, None, jnp.float32(1), jnp.zeros(V, bool),
        jnp.zeros((4, 9), jnp.int32), jnp.full(4, 9), jax.random.split(jax.random.key(0), 4),
    )  # fmt: skip
    kernels = [x[0].nbytes for x in jax.tree.leaves(model.params["blocks"]) if x.ndim == 3]
    assert hlo.copied(program.compile().as_text()) < min(kernels)


@pytest.mark.slow
def test_a_row_is_the_same_in_any_batch(decoder):
    """Other neighbours, other batches and another padding: the same draws."""
    model = decoder("gpt2")
    draw = partial(lz.generate, model, new=NEW, temperature=6, ends=7)
    found = draw(PROMPTS, seed=5)
    assert not np.array_equal(found.tokens, draw(PROMPTS, seed=6).tokens)
    split = draw(PROMPTS, seed=5, batch_size=3)  # the last batch is filled up
    np.testing.assert_array_equal(split.tokens, found.tokens)
    swapped = draw([PROMPTS[0], *PROMPTS[:0:-1]], seed=5)
    np.testing.assert_array_equal(swapped.tokens[0], found.tokens[0])
    other = draw([[7] * 14, PROMPTS[1], [8], [8]], seed=5)
    np.testing.assert_array_equal(other.tokens[1], found.tokens[1])
    alone = draw([[9], [9]], seed=5)  # prompts of one length, which share their positions
    np.testing.assert_array_equal(alone.tokens[1], found.tokens[1])


@pytest.mark.slow
def test_a_row_ends_at_its_own_end(decoder):
    model = decoder("gpt2")
    free = lz.generate(model, PROMPTS, new=NEW, temperature=6, seed=5)
    ends = [int(free.tokens[0, 2]), int(free.tokens[1, 0])]
    found = lz.generate(model, PROMPTS, new=NEW, temperature=6, seed=5, ends=ends)
    for row, unbound, count, done in zip(
        found.tokens, free.tokens, found.lengths, found.finished, strict=True
    ):
        stop = next((i for i, token in enumerate(unbound) if token in ends), None)
        assert done == (stop is not None)
        assert count == (NEW if stop is None else stop + 1)
        np.testing.assert_array_equal(row[:count], unbound[:count])
        assert (row[count:] == row[count - 1]).all()
    assert found.lengths[1] == 1
    swapped = [PROMPTS[0], *PROMPTS[:0:-1]]  # other neighbours, and another number of each
    other = lz.generate(model, swapped, new=NEW, temperature=6, seed=5, ends=ends)
    np.testing.assert_array_equal(other.tokens[0], found.tokens[0])
    again = lz.generate(model, PROMPTS, new=NEW, temperature=6, seed=6)
    assert np.mean(again.tokens == free.tokens) < 0.5
    everywhere = lz.generate(model, PROMPTS, new=NEW, temperature=6, ends=range(V))
    assert everywhere.lengths.tolist() == [1] * 4  # at once
    assert everywhere.finished.all()


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma"])
def test_a_text_beyond_the_context_is_refused(name):
    """Rotations reach on where the weights do not."""
    module = MODULES[name]()
    params = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 2), int))

    def states(length):
        return jax.eval_shape(module.apply, params, jnp.zeros((2, length), int))

    assert states(24).shape == (2, 24, 12)
    with pytest.raises(ValueError, match=r"tokens are \(2, 25\): longer than the context of 24"):
        states(25)


@pytest.mark.slow(but=["sampling2"])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.7), Sampling(1.3, top_k=4, top_p=0.8)])
def test_frequencies_are_the_softmax(sampling):
    """20,000 draws with keys of their own: χ² of the tokens that may come, at level 1e-3."""
    logits = jnp.asarray(np.random.default_rng(0).normal(size=9), jnp.float32) * 2
    count = 20_000
    keys = jax.random.split(jax.random.key(0), count)
    drawn = np.asarray(sampling.draw(keys, jnp.broadcast_to(logits, (count, 9))))
    expected = np.exp(kept_logits(np.asarray(logits, np.float64), sampling))
    expected = count * expected / expected.sum()
    seen = np.bincount(drawn, minlength=9)
    assert (seen[expected == 0] == 0).all()
    assert stats.chisquare(seen[expected > 0], expected[expected > 0]).pvalue > 1e-3


def kept_logits(logits, sampling):
    """By its definition, token by token."""
    scores = logits / sampling.temperature
    order = np.sort(scores)[::-1]
    if sampling.top_k is not None:
        scores = np.where(scores >= order[min(sampling.top_k, len(order)) - 1], scores, -np.inf)
    if sampling.top_p is not None and sampling.top_p < 1:
        share = np.exp(scores - scores.max())
        share /= share.sum()
        likelier = np.array([share[share > p].sum() for p in share])
        scores = np.where(likelier < sampling.top_p, scores, -np.inf)
    return scores


@pytest.mark.parametrize(
    ("top_k", "top_p"),
    [
        (1, None),
        (5, None),
        (400, None),
        (None, 0.3),
        (None, 0.9),
        (None, 1),
        (7, 0.6),
        (None, 1e-9),
    ],
)
def test_top_k_and_top_p_are_their_definitions(top_k, top_p):
    rng = np.random.default_rng(4)
    logits = np.float32(3 * rng.normal(size=(5, 211)))
    logits[1] = np.round(logits[1])  # many of one probability
    logits[2] = 0
    logits[3, 7] = 80  # all but certain
    sampling = Sampling(0.9, top_k, top_p)
    found = np.asarray(sampling.scores(jnp.asarray(logits)))
    for row, mine in zip(logits, found, strict=True):
        expected = kept_logits(np.asarray(row, np.float64), sampling)
        np.testing.assert_array_equal(np.isfinite(mine), np.isfinite(expected))
        kept = np.isfinite(mine)
        np.testing.assert_allclose(mine[kept], expected[kept], rtol=1e-6)


def test_no_temperature_takes_the_first_of_the_likeliest():
    logits = jnp.asarray([[0.0, 2.0, 2.0], [3.0, 1.0, 2.0]])
    keys = jax.random.split(jax.random.key(0), 2)
    assert Sampling(0).draw(keys, logits).tolist() == [1, 0]


@pytest.mark.parametrize("more", [{}, {"top_k": 2}, {"top_p": 0.9}, {"top_k": 2, "top_p": 0.5}])
@pytest.mark.parametrize("temperature", [1e-10, 1e-20, 1e-30, 1e-38, 1e-40, 1e-46])
def test_a_tiny_temperature_takes_the_likeliest(temperature, more):
    """Quotients beyond float32, and temperatures below its least; tokens that cannot come too."""
    logits = [[1.0, 5.0, 2.0], [3.0, 1.0, 2.0], [-9.0, -7.0, -8.0], [-np.inf, -3.0, 0.0]]
    logits += [[-np.inf, -np.inf, -1.0], [0.0, -0.0, -1e-4]]
    keys = jax.random.split(jax.random.key(0), len(logits))
    found = Sampling(temperature, **more).draw(keys, jnp.asarray(logits)).tolist()
    assert found[:-1] == Sampling(0).draw(keys, jnp.asarray(logits)).tolist()[:-1]
    assert found[-1] < 2  # of two likeliest either
    none = Sampling(temperature).scores(jnp.full((1, 3), -jnp.inf))
    assert (np.asarray(none) == -np.inf).all()


def letters(size=V, words=None, **special):
    """A tokenizer whose words are letters, and some others in their place."""
    tokenizers = pytest.importorskip("tokenizers")
    taken = {number: word for word, number in (words or {}).items()}
    words = {taken.get(i, chr(97 + i)): i for i in range(size)}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="a"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    backend.decoder = tokenizers.decoders.Fuse()
    return LanguageTokenizer("letters", backend, special)


def test_texts_in_and_out(decoder):
    model, tokenizer = decoder("gpt2"), letters(bos=3, eos=7)
    options = {"new": NEW, "temperature": 6, "seed": 5}
    found = lz.generate(model, ["dbebf", "", "cg", "b"], tokenizer=tokenizer, **options)
    same = lz.generate(model, [[3, 1, 4, 1, 5], [3], [2, 6], [1]], ends=7, **options)
    np.testing.assert_array_equal(found.tokens, same.tokens)
    assert same.texts is None
    for text, row, count in zip(found.texts, found.tokens, found.lengths, strict=True):
        assert text == "".join(chr(97 + i) for i in row[:count])
    rows, seen = letters(pad=0, eos=7).encode(["dbebf", "cg"])
    with pytest.raises(ValueError, match=r"prompts\[1\]: padding at an end.*row\[mask\]"):
        lz.generate(model, rows, tokenizer=letters(pad=0, eos=7), new=NEW)
    with pytest.raises(ValueError, match=r"prompts\[1\]: padding"):  # before, and as the end token
        lz.generate(model, np.where(seen, rows, 7)[:, ::-1], tokenizer=tokenizer, new=NEW)
    with pytest.raises(models.TokenizerError, match="no bos token"):
        lz.generate(model, [""], tokenizer=letters(), new=NEW)
    with pytest.raises(models.TokenizerError, match=r"has 24 tokens and the model 23"):
        lz.generate(model, ["a"], tokenizer=letters(24), new=NEW)


def test_a_decoder_goes_on_from_the_text_and_not_from_what_is_set_behind_it(decoder):
    """As tokenizers do that were told to add an end; an encoder–decoder reads it."""
    tokenizer = letters(bos=3, eos=7)
    assert tokenizer.behind == 0
    processors = pytest.importorskip("tokenizers").processors
    tokenizer = letters(bos=3, eos=7)
    tokenizer.backend.post_processor = processors.TemplateProcessing(
        single="d $A h", pair="d $A h $B h", special_tokens=[("d", 3), ("h", 7)]
    )
    assert tokenizer.behind == 1
    options = {"new": NEW, "temperature": 6, "seed": 5, "ends": ()}
    found = lz.generate(decoder("gpt2"), ["be", "a"], tokenizer=tokenizer, **options)
    assert found.prompts == [[3, 1, 4], [3, 0]]
    same = lz.generate(decoder("gpt2"), [[3, 1, 4], [3, 0]], **options)
    np.testing.assert_array_equal(found.tokens, same.tokens)
    whole = lz.generate(decoder("t5"), ["be"], tokenizer=tokenizer, **options)
    assert whole.prompts == [[3, 1, 4, 7]]
    tokens, at = models.language.prompted(tokenizer, ["be", "a"])
    assert tokens[[0, 1], at].tolist() == [4, 0]


def test_every_token_that_ends_a_text_or_a_turn_ends_a_continuation(decoder):
    """As many as the tokenizer knows, by role, by name, and by what lies beside."""
    model, plain = decoder("gpt2"), letters(eos=7)
    options = {"new": NEW, "temperature": 6, "seed": 5}
    plain.backend.add_special_tokens(["<|im_end|>", "<mask>"])  # 23 and 24, no words of the model
    assert plain.ends == (7, 23)
    named = letters(words={"<|im_end|>": 4, "<mask>": 9}, eos=7)
    named.backend.add_special_tokens(["<|im_end|>", "<mask>"])
    for tokenizer, ends in (
        (plain, [7]),
        (named, [4, 7]),
        (dataclasses.replace(named, closing=(1, 7)), [1, 4, 7]),
        (letters(), ()),
    ):
        found = lz.generate(model, PROMPTS, tokenizer=tokenizer, **options)
        same = lz.generate(model, PROMPTS, ends=ends, **options)
        np.testing.assert_array_equal(found.tokens, same.tokens)
        np.testing.assert_array_equal(found.lengths, same.lengths)


@pytest.mark.parametrize(
    ("prompts", "options", "said"),
    [
        ("a text", {}, "expected a list of one prompt"),
        ([], {}, "expected a list of one prompt"),
        (["a"], {}, "give tokenizer="),
        ([[1], [], [2, 23]], {}, r"prompts\[1\], prompts\[2\]: .*each from 0 to 22"),
        ([[1.5]], {}, r"prompts\[0\]"),
        ([[[1]]], {}, r"prompts\[0\]"),
        ([[1], [1] * 20], {"new": 5}, r"prompts\[1\]: up to 20 tokens and new=5 .*context of 24"),
        ([[1]], {"new": 0}, "new=0"),
        ([[1]], {"batch_size": 0}, "batch_size=0"),
        ([[1]], {"new": 1.5}, "new=1.5; expected an integer, 1 or more"),
        ([[1]], {"new": True}, "new=True; expected an integer, 1 or more"),
        ([[1]], {"batch_size": 2.5}, "batch_size=2.5; expected an integer, 1 or more"),
        ([[1]], {"top_k": np.nan}, "top_k=nan; expected an integer, 1 or more"),
        ([[1]], {"seed": 1.5}, "seed=1.5; expected an integer, 0 or more"),
        ([[1]], {"seed": -1}, "seed=-1; expected an integer, 0 or more"),
        ([[1]], {"seed": 2**32}, "seed=4294967296; expected an integer from 0 to 4294967295"),
        ([[1]], {"temperature": None}, "temperature=None; expected a finite number"),
        ([[1]], {"alpha": "1"}, "alpha='1'; expected a finite number"),
        ([[1]], {"temperature": -1}, "temperature=-1"),
        ([[1]], {"temperature": np.nan}, "temperature=nan"),
        ([[1]], {"top_k": 0}, "top_k=0"),
        ([[1]], {"top_p": 0}, "top_p=0; .*temperature=0"),
        ([[1]], {"top_p": 1.1}, "top_p=1.1"),
        ([[1]], {"alpha": np.inf}, "alpha=inf"),
        ([[1]], {"ends": [3, 23]}, r"ends=\[3, 23\]"),
        ([[1]], {"view": "tangents"}, "did you mean 'tangent'"),
        ([[1]], {"tau": {"nothing": np.zeros(3)}}, "tau"),
    ],
)
def test_bad_input_is_named(decoder, prompts, options, said):
    with pytest.raises(ValueError, match=said):
        lz.generate(decoder("gpt2"), prompts, **{"new": NEW, **options})


def test_a_model_that_is_no_decoder(decoder):
    model = decoder("gpt2")
    encoder = LanguageModel(model.f, model.params, name="bert", hidden=model.hidden)
    with pytest.raises(ValueError, match="bert is no decoder"):
        lz.generate(encoder, PROMPTS)


def test_a_task_vector_of_another_theta_is_refused(decoder, tau):
    model = decoder("gpt2")
    other = lz.TaskVector(tau("gpt2"), base="0123")
    with pytest.raises(tree.StructureMismatch, match="base"):
        lz.generate(model, PROMPTS, new=NEW, tau=other)


@pytest.mark.slow
def test_logits_that_are_no_numbers_are_refused(decoder):
    model = decoder("gpt2")
    tau = {"norm/bias": np.full(12, 1e30, np.float32)}
    with pytest.raises(tree.NonFiniteError, match=r"prompts\[0\].*alpha=1e\+20"):
        lz.generate(model, PROMPTS, new=NEW, temperature=6, tau=tau, alpha=1e20)
