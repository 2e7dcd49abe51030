"""CLIP's tokenizer against transformers', built from the same vocabulary."""

import json

import numpy as np
import pytest

from linearize import models
from linearize.models import tokenizer as tokenizing
from linearize.models.hf import sources

pytestmark = pytest.mark.network

pytest.importorskip("tokenizers")

SENTENCES = [
    "a photo of a cat.",
    "",
    "   ",
    "a  photo\tof\n a   CAT !!",
    'a zoomed in photo of a "stop" traffic sign.',
    "it's we're i'll they've she'd i'm don't 'S",
    "end / de-restriction of 80 kph speed limit",
    "2012 BMW 3-Series Wagon, 1,000 km",
    "Ünïcödé naïve Straße ÇA İstanbul ﬁne",
    "e\u0301 and \u00e9",
    "日本語のテキスト 한국어 العربية हिन्दी",
    "😀👍🏽👨‍👩‍👧 ☃️",
    "!!a!! ... ??? --- $%^&*()_+",
    "&amp; &lt;b&gt; <html>",
    "word" * 40,
    "a long sentence of many words " * 30,
    "\u200bzero\u00a0width\ufeff",
    "<|endoftext|> in the middle <|startoftext|>",
]


@pytest.fixture(scope="module")
def openai():
    return models.load_tokenizer()


@pytest.fixture(scope="module")
def theirs(openai):
    transformers = pytest.importorskip("transformers")
    parts = json.loads(openai.backend.to_str())["model"]
    merges = [tuple(m) for m in parts["merges"]]
    return transformers.CLIPTokenizer(vocab=parts["vocab"], merges=merges, model_max_length=77)


@pytest.fixture(scope="module")
def expected(theirs):
    found = theirs(SENTENCES, padding="max_length", truncation=True, max_length=77)
    return np.where(found["attention_mask"], found["input_ids"], 0)


def test_equals_transformers(openai, expected):
    got = openai(SENTENCES)
    assert got.dtype == np.int32
    assert got.shape == (len(SENTENCES), 77)
    np.testing.assert_array_equal(got, expected)


def test_vocabulary_is_openai_s(openai):
    """Published by OpenAI: the tokens of its README's sentence, and where the vocabulary ends."""
    assert openai.vocabulary == 49408
    assert openai(["a diagram"], 5).tolist() == [[49406, 320, 22697, 49407, 0]]
    assert openai([""], 3).tolist() == [[49406, 49407, 0]]


def test_too_long_keeps_the_end(openai):
    whole, cut = openai(["one two three four five"]), openai(["one two three four five"], 4)
    np.testing.assert_array_equal(cut[0, :3], whole[0, :3])
    assert cut[0, 3] == 49407


@pytest.mark.parametrize("kind", ["tokenizer.json", "vocab.json"])
def test_files_beside_the_weights(openai, theirs, expected, tmp_path, kind):
    """A folder that transformers saved, and one in the older form; by folder and by file."""
    if kind == "tokenizer.json":
        theirs.save_pretrained(tmp_path)
    else:
        openai.backend.model.save(str(tmp_path))
    assert (tmp_path / kind).is_file()
    got = models.load_tokenizer(tmp_path)
    assert str(tmp_path) in got.source
    np.testing.assert_array_equal(got(SENTENCES), expected)
    again = models.load_tokenizer(tmp_path / "model.safetensors")
    assert again.fingerprint == got.fingerprint


def test_a_hub_repository_brings_its_own(openai, monkeypatch, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    openai.backend.save(str(tmp_path / "tokenizer.json"))

    def fetch(repository, file):
        if not (tmp_path / file).is_file():
            raise hub.errors.EntryNotFoundError(file)
        return str(tmp_path / file)

    monkeypatch.setattr(hub, "hf_hub_download", fetch)
    assert models.load_tokenizer("some/clip").source == str(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer.json").unlink()
    assert models.load_tokenizer("some/clip").source == "pypi:open_clip_torch==3.3.0"


def test_what_is_no_tokenizer_of_the_tower(openai, tmp_path, monkeypatch):
    with pytest.raises(models.TokenizerError, match=r"no tokenizer beside .* 100 tokens.*merges"):
        models.load_tokenizer(tmp_path, vocabulary=100)
    openai.backend.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(models.TokenizerError, match="49408 tokens and the text tower 100"):
        models.load_tokenizer(tmp_path, vocabulary=100)
    text = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(text[: len(text) // 2])
    with pytest.raises(models.TokenizerError, match="cannot be read"):
        models.load_tokenizer(tmp_path)
    whole = json.loads(text)
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole | {"post_processor": None}))
    with pytest.raises(models.TokenizerError, match=r"makes \[\] of an empty sentence"):
        models.load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0, "b": 1, "ab": 2}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    with pytest.raises(models.TokenizerError, match=r"no <\|startoftext\|>"):
        models.load_tokenizer(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(ModuleNotFoundError, match="pip install"):
        models.load_tokenizer(tmp_path)


def test_what_is_no_sentence(openai):
    with pytest.raises(ValueError, match="expected a list of one sentence"):
        openai("a cat")
    with pytest.raises(ValueError, match="expected a list of one sentence"):
        openai([])
    with pytest.raises(ValueError, match="3, which is no string"):
        openai(["a", 3])
    with pytest.raises(ValueError, match="context=1"):
        openai(["a"], 1)


def test_offline_says_how_to_point_to_a_folder(monkeypatch):
    """The Hub's own error of a file that is neither in its cache nor to be fetched."""
    hub = pytest.importorskip("huggingface_hub")

    def offline(repository, file):
        raise hub.errors.LocalEntryNotFoundError("outgoing traffic has been disabled")

    monkeypatch.setattr(hub, "hf_hub_download", offline)
    with pytest.raises(models.WeightsError, match=r"traffic has been disabled.*weights=FOLDER"):
        sources.read("openai/clip-vit-base-patch32")
    assert tokenizing.load_tokenizer("openai/clip-vit-base-patch32").vocabulary == 49408
