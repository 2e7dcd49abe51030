"""Tokenizers of language models against transformers', from every kind of file that is read."""

import dataclasses
import json
import os
import struct

import numpy as np
import pytest

from linearize import assets, models
from linearize.data import DataError, Task
from linearize.data.text import Documents, encoded, packed
from linearize.models.language import generate, load_language
from linearize.models.language import tokens as tokenizing
from linearize.models.language.gguf import Vocabulary
from linearize.models.language.token_kinds import of_gguf
from linearize.models.language.tokens import LanguageTokenizer, load_tokens
from linearize.study.tokens import check_tokens

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

SENTENCES = [
    "A photo of a cat, unaffable and terrible.",
    "   ",
    "a  photo\tof\n a   CAT !!\r\n\r\n",
    "it's we're i'll they've she'd i'm don't 'S",
    "2012 BMW 3-Series Wagon, 1,000 km, 12.5 %",
    "Ünïcödé naïve Straße ÇA İstanbul ﬁne",
    "e\u0301 and \u00e9 \u2028 \u0085",
    "日本語のテキスト 한국어 العربية हिन्दी",
    "😀👍🏽👨‍👩‍👧 ☃️ \U0005ffff",
    "\x13control\x00 \x7f \u200bzero\u00a0width\ufeff",
    " before and after ",
    "word" * 40,
    "x",
]
SPECIAL = {
    "gpt2": ["<|endoftext|>"],
    "roberta": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
    "bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    "mpnet": ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"],
    "t5": ["<pad>", "</s>", "<unk>"],
}


def byte_pairs(special):
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(SENTENCES[:-2], trainer)
    model = json.loads(made.to_str())["model"]
    return {"vocab": model["vocab"], "merges": [tuple(pair) for pair in model["merges"]]}


def words(special, lower):
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=lower)
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=220, special_tokens=special, show_progress=False
    )
    made.train_from_iterator(SENTENCES[:7], trainer)
    return {"vocab": json.loads(made.to_str())["model"]["vocab"], "do_lower_case": lower}


def unigrams(special):
    made = tokenizers.Tokenizer(tokenizers.models.Unigram())
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=150, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator(SENTENCES[:7], trainer)
    vocab = json.loads(made.to_str())["model"]["vocab"]
    sentinels = [(f"<extra_id_{i}>", 0.0) for i in range(5)]  # behind the pieces, the last first
    return {"vocab": [*map(tuple, vocab), *sentinels[::-1]], "extra_ids": 5}


def theirs(name):
    kind, _, more = name.partition(" ")
    special = SPECIAL[kind]
    return {
        "gpt2": lambda: transformers.GPT2Tokenizer(**byte_pairs(special), add_bos_token=bool(more)),
        "roberta": lambda: transformers.RobertaTokenizer(**byte_pairs(special)),
        "bert": lambda: transformers.BertTokenizer(**words(special, not more)),
        "mpnet": lambda: transformers.MPNetTokenizer(**words(special, True)),
        "t5": lambda: transformers.T5Tokenizer(**unigrams(special)),
    }[kind]()


def sentence_pieces(listed, kind=1):
    """As SentencePiece writes them: fields of a protocol buffer, of one byte of length each."""

    def field(number, value):
        if isinstance(value, bytes):
            return bytes([8 * number + 2, len(value)]) + value
        return bytes([8 * number, value])

    pieces = [
        field(1, field(1, word.encode()) + b"\x15" + struct.pack("<f", score))
        if word != "<unk>"
        else field(1, field(1, word.encode()) + b"\x15" + struct.pack("<f", score) + field(3, 2))
        for word, score in listed
    ]
    return b"".join(pieces) + field(2, field(3, kind)) + field(3, field(1, b"identity"))


def older(reference, folder):
    """The files that earlier versions of transformers wrote, and no word on what they mean."""
    whole = json.loads(reference.backend_tokenizer.to_str())["model"]
    if "merges" in whole:
        (folder / "vocab.json").write_text(json.dumps(whole["vocab"]))
        lines = ["#version: 0.2", *(" ".join(pair) for pair in whole["merges"])]
        (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    elif isinstance(whole["vocab"], list):
        sentinels = sum(word.startswith("<extra_id_") for word, _ in whole["vocab"])
        note = {"extra_ids": sentinels}
        (folder / "tokenizer_config.json").write_text(json.dumps(note))
        (folder / "spiece.model").write_bytes(sentence_pieces(whole["vocab"][:-sentinels]))
    else:
        (folder / "vocab.txt").write_text("".join(f"{w}\n" for w in whole["vocab"]), newline="")
    if getattr(reference, "add_bos_token", False):  # which no vocabulary tells
        (folder / "tokenizer_config.json").write_text('{"add_bos_token": true}')


NAMES = ["gpt2", "gpt2 begun", "roberta", "bert", "bert cased", "mpnet", "t5"]
CASES = [(name, form) for name in NAMES for form in ("tokenizer.json", "older")]


@pytest.mark.parametrize(("name", "form"), CASES)
def test_equals_transformers(name, form, tmp_path):
    """Ids, around and without the special tokens, padding, cutting at either end, and decoding."""
    reference = theirs(name)
    reference.save_pretrained(tmp_path) if form == "tokenizer.json" else older(reference, tmp_path)
    ours = load_tokens(tmp_path, vocabulary=len(reference))
    roles = {r: getattr(reference, f"{r}_token_id") for r in tokenizing.USUAL}
    if form == "tokenizer.json" or name != "roberta":  # whose cls and sep are its bos and eos
        expected = {r: n for r, n in roles.items() if n is not None}
        assert expected.items() >= ours.special.items()
    assert ours.ids(SENTENCES, framed=True) == reference(SENTENCES)["input_ids"]
    bare = reference(SENTENCES, add_special_tokens=False)["input_ids"]
    assert ours.ids(SENTENCES) == bare
    texts = [s for s, ids in zip(SENTENCES, bare, strict=True) if ids]
    if reference.pad_token is None:
        reference.pad_token = reference.eos_token
    for cut, side in tokenizing.CUTS.items():
        reference.truncation_side = side
        found, mask = ours.encode(texts, 12, cut=cut)
        wanted = reference(texts, max_length=12, truncation=True, padding="max_length")
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, wanted["input_ids"])
        np.testing.assert_array_equal(mask, wanted["attention_mask"])
    for special in (False, True):
        said = reference.batch_decode(
            found, skip_special_tokens=not special, clean_up_tokenization_spaces=False
        )
        assert ours.decode(found, special=special) == said
    assert ours.pieces(texts[0]) == reference.tokenize(texts[0])


@pytest.mark.parametrize(("name", "form"), CASES)
def test_pairs_equal_transformers(name, form, tmp_path):
    """What stands around two texts, and which token is of which where the model is told."""
    reference = theirs(name)
    reference.save_pretrained(tmp_path) if form == "tokenizer.json" else older(reference, tmp_path)
    ours = load_tokens(tmp_path)
    firsts, seconds = SENTENCES[:1] + SENTENCES[2:4], SENTENCES[4:7]
    wanted = reference(firsts, seconds)
    found = ours.backend.encode_batch(list(zip(firsts, seconds, strict=True)))
    assert [each.ids for each in found] == wanted["input_ids"]
    if "token_type_ids" in wanted:
        assert [each.type_ids for each in found] == wanted["token_type_ids"]


def vocabulary(split, special=("<|endoftext|>", "<|im_start|>", "<|im_end|>")):
    made = byte_pairs(list(special))
    listed = sorted(made["vocab"], key=made["vocab"].get)
    return Vocabulary(
        model="gpt2",
        pre=split,
        tokens=tuple(listed),
        kinds=(3,) * len(special) + (1,) * (len(listed) - len(special)),
        merges=tuple(" ".join(pair) for pair in made["merges"]),
        scores=(),
        special={"bos": 1, "eos": 2, "padding": 2},
        add_bos=None,
        add_space=None,
        chat_template="",
    )


def published(held, splitting):
    """The tokenizer.json of the models, as their authors published it, with a GGUF's words."""
    listed, kinds = held.tokens, held.kinds
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    whole = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": w, **plain, "special": True}
            for i, w in enumerate(listed)
            if kinds[i] == 3
        ],
        "normalizer": None,
        "pre_tokenizer": splitting,
        "post_processor": None,
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": True,
            "trim_offsets": True,
            "use_regex": True,
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {w: i for i, w in enumerate(listed)},
            "merges": list(held.merges),
        },
    }
    return tokenizers.Tokenizer.from_str(json.dumps(whole))


LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
SPLITTING = {
    "gpt-2": LEVEL,
    "smollm": {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, LEVEL],
    },
}


@pytest.mark.parametrize("split", SPLITTING)
def test_gguf_s_words_are_the_published_tokenizer(split):
    held = vocabulary(split)
    ours = LanguageTokenizer("a.gguf", of_gguf(held, "a.gguf"), {"eos": 2})
    reference = published(held, SPLITTING[split])
    texts = [*SENTENCES, "<|im_start|>user\n½ 1234<|im_end|>\n", " ½ ² 12,000.50"]
    assert ours.ids(texts) == [reference.encode(text).ids for text in texts]
    assert ours.decode([[1, *ours.ids(["Hi 12"])[0], 2]]) == ["Hi 12"]


def test_gguf_that_begins_every_text():
    held = vocabulary("llama-bpe")
    ours = LanguageTokenizer("a.gguf", of_gguf(held, "a.gguf"), {})
    assert ours.ids(["1234 it"], framed=True)[0][0] == held.special["bos"] == 1
    assert ours.ids(["1234"])[0] == ours.ids(["123"])[0] + ours.ids(["4"])[0]
    pair = of_gguf(held, "a.gguf").encode("it", "is")
    assert pair.ids == [i for text in ("it", "is") for i in ours.ids([text], framed=True)[0]]
    made = of_gguf(dataclasses.replace(held, add_bos=False), "a.gguf")
    without = LanguageTokenizer("a.gguf", made, {})
    assert without.ids(["it"], framed=True) == without.ids(["it"])


def test_what_ends_a_text_is_told_beside_and_by_name(tmp_path):
    """One token or several, as transformers' generation takes them."""
    reference = theirs("gpt2")
    reference.add_special_tokens({"additional_special_tokens": ["<|im_end|>", "<|im_start|>"]})
    reference.save_pretrained(tmp_path)
    eos, end = reference.eos_token_id, reference.convert_tokens_to_ids("<|im_end|>")
    assert set(load_tokens(tmp_path).ends) == {eos, end}
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 3}))
    assert set(load_tokens(tmp_path).ends) == {3, eos, end}
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [eos, 5, 9999]}))
    assert set(load_tokens(tmp_path).ends) == {5, eos, end}
    assert load_tokens(tmp_path).eos == eos


def test_what_is_no_tokenizer_of_the_model(tmp_path):
    error = models.TokenizerError
    theirs("gpt2").save_pretrained(tmp_path / "beside")
    with pytest.raises(FileNotFoundError, match=r"smollm2.* is no file .*tokens_of"):
        load_tokens(tmp_path / "beside" / "smollm2")  # whose folder has one, of another model
    with pytest.raises(error, match=r"no tokenizer that is read beside .*vocab\.txt"):
        load_tokens(tmp_path)
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁a", -1.0)]
    for data, said in (
        (b"\n\x0e", "truncated"),
        (b"\n\x01\xff", "truncated"),
        (b"no such file", "truncated"),
        (sentence_pieces(pieces, kind=2), "no model of unigrams"),
        (sentence_pieces(pieces[2:]), "has no <pad>, </s>; it is not T5's"),
    ):
        (tmp_path / "spiece.model").write_bytes(data)
        with pytest.raises(error, match=said):
            load_tokens(tmp_path)
    reference = theirs("gpt2")
    reference.save_pretrained(tmp_path)
    for size in (392, 399, 401, 404, 405, 400 + 1032):  # MPNet's has 5 more than MiniLM's
        with pytest.raises(error, match=f"400 tokens and the model {size}: is it another"):
            load_tokens(tmp_path, vocabulary=size)
    assert load_tokens(tmp_path, vocabulary=512).vocabulary == 400  # rows up to a round number
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": {"content": "</end>"}}')
    with pytest.raises(error, match="eos_token is '</end>', which the vocabulary has not"):
        load_tokens(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(error, match=r"tokenizer\.json.* cannot be read"):
        load_tokens(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(error, match=r"vocab\.txt has neither \[CLS\]"):
        load_tokens(tmp_path)
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    for word, said in (("c", "neither GPT-2's nor RoBERTa's"), ("<|startoftext|>", "is CLIP's")):
        (tmp_path / "vocab.json").write_text(json.dumps({"a": 0, "b": 1, "ab": 2, word: 3}))
        with pytest.raises(error, match=said):
            load_tokens(tmp_path)
    held = vocabulary("smollm")
    for wrong, said in (
        ({"model": "llama"}, "of the kind model='llama'"),
        ({"pre": "qwen2"}, "pre='qwen2'"),
        ({"special": {"eos": 9999}}, "special tokens beyond its words: eos 9999"),
        ({"tokens": ("a", "a")}, "twice"),
        ({"kinds": (1,)}, "of no kind"),
        ({"add_bos": True, "special": {}}, "begins texts with a bos token, and has none"),
    ):
        with pytest.raises(error, match=said):
            of_gguf(dataclasses.replace(held, **wrong), "a.gguf")


@pytest.mark.parametrize("special", [True, False])
def test_special_tokens_behind_the_models_are_no_words(special, tmp_path):
    """Gemma 3's tokenizer.json has one for images, which its text model lacks: texts that hold it
    are refused wherever they meet the model.
    """
    model = load_language("toy_decoder", pretrained=False, blocks=1)
    listed = ["<unk>", *(f"w{i}" for i in range(1, model.vocabulary))]
    made = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({w: i for i, w in enumerate(listed)}, unk_token="<unk>")
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.add_tokens([tokenizers.AddedToken("<image>", special=special)])
    made.save(str(tmp_path / "tokenizer.json"))
    size = model.vocabulary
    if not special:
        with pytest.raises(models.TokenizerError, match=f"{size + 1} tokens and the model {size}"):
            load_tokens(tmp_path, vocabulary=size)
        return
    ours = load_tokens(tmp_path, vocabulary=size)
    assert ours.ids(["w1 <image>"]) == [[1, size]]
    assert generate(model, ["w1 w2"], tokenizer=ours, new=1).prompts == [[1, 2]]
    with pytest.raises(ValueError, match=f"from 0 to {size - 1}"):
        generate(model, ["w1 <image>"], tokenizer=ours, new=1)
    texts = Documents(("w1 w2", "w1 <image>"))
    with pytest.raises(DataError, match=f"document 1 has the token {size}"):
        encoded(texts, ours, vocabulary=size)
    rows = packed(encoded(texts, ours)[0], 2)
    with pytest.raises(ValueError, match=f"token {size}"):
        check_tokens(model, "mine", Task("mine", rows, rows, rows))
    with pytest.raises(models.TokenizerError, match=f"{size} tokens and the model {size - 8}"):
        load_tokens(tmp_path, vocabulary=size - 8)  # words are beyond them too


def test_what_is_no_text(tmp_path):
    theirs("gpt2").save_pretrained(tmp_path)
    ours = load_tokens(tmp_path)
    for texts, said in (
        ("a cat", "expected a list of one text"),
        ([], "expected a list of one text"),
        (["a", 3], r"texts\[1\] is 3, which is no string"),
        (["a", "bc\ud800"], r"texts\[1\] holds '\\ud800' at character 2, half of a character"),
        (["a", "", "b", ""], r"texts\[1\], texts\[3\] are empty"),
    ):
        with pytest.raises(ValueError, match=said):
            ours.encode(texts)
    with pytest.raises(ValueError, match=r"texts\[1\] has up to 80 tokens, more than length=9"):
        ours.encode(["a", "ab" * 40], 9)
    with pytest.raises(ValueError, match="length=0"):
        ours.encode(["a"], 0)
    with pytest.raises(ValueError, match="did you mean 'end'"):
        ours.encode(["a"], 9, cut="ends")
    with pytest.raises(ValueError, match=r"tokens\[0\]: expected rows of integers from 0"):
        ours.decode([[-1]])
    assert ours.decode([[], [399, 70000]]) == ["", ours.decode([[399]])[0]]


def test_a_special_token_that_is_missing_is_named(tmp_path):
    theirs("gpt2").save_pretrained(tmp_path)
    ours = load_tokens(tmp_path)
    with pytest.raises(models.TokenizerError, match=r"no mask token \(it has: bos '<\|endoftext"):
        _ = ours.mask
    with pytest.raises(models.TokenizerError, match="has no <none>"):
        ours.named(pad="<none>")
    with pytest.raises(ValueError, match="did you mean 'pad'"):
        ours.named(padd="a")
    word = ours.token(ours.ids(["a"])[0][0])
    named = ours.named(pad=word)
    assert named.encode(["x", "xyz"])[0][0, -1] == named.pad == ours.ids(["a"])[0][0]
    assert named.fingerprint != ours.fingerprint
    alone = LanguageTokenizer("here", ours.backend, {})
    with pytest.raises(models.TokenizerError, match="no pad token"):
        alone.encode(["x", "xyz"])
    assert alone.encode(["x", "y"])[0].shape == (2, 1)  # none is needed


@pytest.mark.slow
@pytest.mark.network
def test_smollm2_s_words_against_transformers():
    """The same file read by transformers, whose reader leaves out that digits stand alone."""
    path = assets.fetch("smollm2_135m")
    ours = load_tokens(path, vocabulary=49152)
    folder, file = os.path.split(path)
    reference = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=file)
    texts = [*SENTENCES, "<|im_start|>user\nHi<|im_end|>\n", "The treaty was signed in 1648. " * 50]
    assert ours.ids(texts) == reference(texts)["input_ids"]
    assert ours.decode(ours.ids(texts)) == reference.batch_decode(
        reference(texts)["input_ids"], skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    assert (ours.bos, ours.eos, ours.pad, ours.ends) == (1, 2, 2, (0, 2))
    # what the model's own tokenizer.json says, and llama.cpp
    assert ours.ids([" ½"])[0] == ours.ids([" "])[0] + ours.ids(["½"])[0]
