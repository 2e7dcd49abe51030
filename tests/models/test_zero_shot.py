"""Heads of class names: templates, names, and the cache that keeps them."""

import dataclasses
import hashlib
import tomllib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linearize import functional, models
from linearize.data import VISION
from linearize.models import clip, heads, prompts

COUNTS = {
    "cars": 8,
    "dtd": 8,
    "eurosat": 3,
    "gtsrb": 3,
    "mnist_full": 1,
    "resisc45": 18,
    "sun397": 2,
    "svhn": 1,
    "imagenet": 80,
    "cifar100": 18,
    "stl10": 2,
    "flowers": 1,
    "pets": 1,
    "pcam": 1,
    "fer2013": 6,
    "emnist": 1,
    "cifar10": 18,
    "food101": 1,
    "fashion_mnist_full": 2,
    "rendered_sst2": 1,
    "kmnist": 1,
}


class Words:
    """A tokenizer of whole words that needs no vocabulary: each word has a token by its hash."""

    fingerprint = "words"

    def __init__(self):
        self.calls = 0

    def __call__(self, sentences, context=77):
        self.calls += 1
        rows = np.zeros((len(sentences), context), np.int32)
        for row, sentence in zip(rows, sentences, strict=True):
            words = [
                1 + int(hashlib.md5(w.encode()).hexdigest(), 16) % 60 for w in sentence.split()
            ]
            tokens = [62, *words[: context - 2], 63]
            row[: len(tokens)] = tokens
        return rows


@pytest.fixture(scope="module")
def text():
    """A small random text tower."""
    module = clip.TextTower(
        vocabulary=64, context=16, depth=1, width=8, heads=2, hidden=16, projection=6
    )
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 16), jnp.int32))["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: np.float32(0.5 * rng.normal(size=x.shape)), shapes)
    f, params = functional.from_linen(module, {"params": params})
    return models.TextEncoder("small", f, params, 1.5, 16, 64, 6, {"width": 8})


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LINEARIZE_CACHE", str(tmp_path))
    return tmp_path / "heads"


NAMES = ("red fox", "owl", "a very long name of many many words in a row and more")
TEMPLATES = ("a photo of a {}.", "the {}", "{} at night")


@pytest.mark.parametrize(("task", "count"), COUNTS.items())
def test_the_papers_counts(task, count):
    found = prompts.templates(task)
    assert len(found) == len(set(found)) == count
    assert {t.count("{}") for t in found} == {1}


def test_class_names_of_tfds():
    """OpenAI's names where the papers take them, TFDS's made readable elsewhere."""
    tfds = pytest.importorskip("tensorflow_datasets")
    names = {
        task: tfds.builder(builder, data_dir="/nowhere").info.features["label"].names
        for task, builder in {
            "eurosat": "eurosat/rgb",
            "gtsrb": "visual_domain_decathlon/gtsrb",
            "imagenet": "imagenet2012",
            "sun397": "sun397",
            "resisc45": "resisc45",
            "cars": "cars196",
            "dtd": "dtd",
            "svhn": "svhn_cropped",
        }.items()
    }
    said = {task: prompts.class_names(task, found) for task, found in names.items()}
    assert {t: len(n) for t, n in said.items()} == {t: len(n) for t, n in names.items()}
    pairs = {t: dict(zip(names[t], said[t], strict=True)) for t in said}
    assert pairs["imagenet"]["n01440764"] == "tench"
    assert pairs["imagenet"]["n02012849"] == "crane bird"
    assert pairs["imagenet"]["n03126707"] == "construction crane"
    assert pairs["imagenet"]["n15075141"] == "toilet paper"
    assert pairs["gtsrb"]["14"] == "stop"
    assert pairs["eurosat"]["SeaLake"] == "lake or sea"
    assert pairs["sun397"]["/a/apartment_building/outdoor"] == "apartment building outdoor"
    assert pairs["cars"]["Ram C/V Cargo Van Minivan 2012"] == "Ram C/V Cargo Van Minivan 2012"
    assert pairs["resisc45"]["baseball_diamond"] == "baseball diamond"
    assert said["svhn"] == tuple("0123456789")
    for task, row in VISION.items():
        builder = None if row.names else tfds.builder(row.tfds, data_dir="/nowhere")
        names[task] = row.names if builder is None else builder.info.features["label"].names
    pairs = {t: dict(zip(n, prompts.class_names(t, n), strict=True)) for t, n in names.items()}
    assert pairs["flowers"]["ball moss"] == "air plant"
    assert pairs["flowers"]["globe-flower"] == "globe flower"
    assert pairs["flowers"]["black-eyed susan"] == "black-eyed susan"
    assert pairs["pets"]["american_pit_bull_terrier"] == "american pit bull terrier"
    assert pairs["pets"]["Egyptian_Mau"] == "Egyptian Mau"
    assert pairs["pcam"]["1"] == "lymph node containing metastatic tumor tissue"
    assert pairs["fer2013"]["surprise"] == ("surprised", "shocked", "spooked")
    assert pairs["fer2013"]["fear"] == "fearful"
    assert pairs["emnist"]["7"] == "7"
    assert pairs["cifar100"]["pickup_truck"] == "pickup truck"
    assert pairs["food101"]["fish_and_chips"] == "fish and chips"
    assert pairs["fashion_mnist_full"]["T-shirt/top"] == "T-shirt/top"
    assert pairs["kmnist"]["tsu"] == "tsu"
    folders = [f"{i:05d}" for i in range(43)]
    assert prompts.class_names("gtsrb", folders) == said["gtsrb"]


def test_head_is_the_formula(text, cache):
    """Mean over templates of unit features, unit again, times exp(logit_scale), in float64."""
    words = Words()
    said = (*NAMES, ("smew", "white nun", "red-headed smew"))
    head = models.text_head(text, words, "birds", said, TEMPLATES)
    columns = []
    for name in said:
        called = name if isinstance(name, tuple) else (name,)
        tokens = words([t.format(word) for word in called for t in TEMPLATES], 16)
        z = np.asarray(jax.jit(text.f)(text.params, jnp.asarray(tokens)), np.float64)
        mean = (z / np.linalg.norm(z, axis=1, keepdims=True)).mean(0)
        columns.append(np.exp(1.5) * mean / np.linalg.norm(mean))
    images = np.random.default_rng(0).normal(size=(5, 6))
    unit = images / np.linalg.norm(images, axis=1, keepdims=True)
    got = heads.apply_head(head, jnp.asarray(images, jnp.float32))
    np.testing.assert_allclose(got, unit @ np.stack(columns, 1), rtol=1e-5, atol=1e-5)
    assert head.bias is None
    assert head.normalize


def test_cache_is_used_and_invalidated(text, cache):
    words = Words()

    def made(text=text, task="birds", names=NAMES, templates=TEMPLATES, words=words):
        before = words.calls
        head = models.text_head(text, words, task, names, templates)
        return head, words.calls > before

    head, fresh = made()
    assert fresh
    again, fresh = made()
    assert not fresh
    np.testing.assert_array_equal(again.kernel, head.kernel)
    np.testing.assert_array_equal(again.scale, head.scale)
    other = dataclasses.replace(
        text, params=jax.tree.map(lambda x: x + np.float32(1e-3), text.params)
    )
    words_too = Words()
    words_too.fingerprint = "other words"
    assert made(text=other)[1]
    assert made(text=dataclasses.replace(text, logit_scale=1.0))[1]
    assert made(text=dataclasses.replace(text, dtype="bfloat16"))[1]
    assert made(task="fish")[1]
    assert made(names=NAMES[::-1])[1]
    assert made(templates=TEMPLATES[:2])[1]
    assert made(words=words_too)[1]
    assert not made()[1]
    assert len(list(cache.iterdir())) == 8

    (damaged,) = [p for p in cache.iterdir() if not made()[1] and p.name.startswith("fish")]
    damaged.write_bytes(damaged.read_bytes()[:-3])
    assert made(task="fish")[1]
    assert not made(task="fish")[1]


def test_a_cache_that_cannot_be_written_costs_time_only(text, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LINEARIZE_CACHE", str(tmp_path / "file"))
    words = Words()
    for calls in (1, 2):
        models.text_head(text, words, "birds", NAMES, TEMPLATES)
        assert words.calls == calls


def test_files_of_one_s_own(tmp_path):
    own = tmp_path / "templates.toml"
    own.write_text('birds = ["{} on a branch"]\n')
    assert prompts.templates("birds", own) == ("{} on a branch",)
    with pytest.raises(models.PromptError, match="no templates for 'cars'; add cars or default"):
        prompts.templates("cars", own)
    own.write_text('birds = ["{} on a branch"]\nowls = "birds"\ndefault = ["some {}"]')  # anew
    assert prompts.templates("owls", own) == ("{} on a branch",)
    assert prompts.templates("cars", own) == ("some {}",)
    names = tmp_path / "names.toml"
    names.write_text('[digits]\n"0" = "zero"\n"1" = "one"\n')
    assert prompts.class_names("digits", ["1", "0"], names) == ("one", "zero")
    names.write_text('[birds]\nowl = ["owl", "hooter"]\nkite = "kite"\n# of several words')
    assert prompts.class_names("birds", ["kite", "owl"], names) == ("kite", ("owl", "hooter"))
    for wrong in ("[]", '["owl", ""]', '["owl", 3]', "3"):
        names.write_text(f"[birds]\nowl = {wrong}\nkite = 'kite'\n#{2 * wrong}")
        with pytest.raises(models.PromptError, match=r"birds calls a class .*expected a word or"):
            prompts.class_names("birds", ["kite", "owl"], names)
    names.write_text('[birds]\n"*" = "{}"\nowl = "eagle owl"\n')
    assert prompts.class_names("birds", ["red_kite", "owl"], names) == ("red kite", "eagle owl")
    with pytest.raises(models.PromptError, match="in the file alone owl"):
        prompts.class_names("birds", ["red_kite", "crow"], names)
    with pytest.raises(models.PromptError, match="birds calls a class '7', which is no word"):
        prompts.class_names("birds", ["7", "owl"], names)
    names.write_text('[birds]\n"*" = "a {}"\nowl = "eagle owl"  # the line is that or none')
    with pytest.raises(models.PromptError, match=r"without a name crow; in the file alone \*"):
        prompts.class_names("birds", ["crow", "owl"], names)


@pytest.mark.parametrize("task", ["eurosat", "gtsrb", "imagenet", "imagenet_sketch", "svhn"])
def test_a_file_without_the_task_leaves_it_the_packaged_names(tmp_path, task):
    """A file that names birds alone once made "0", "1" of traffic signs."""
    packaged = tomllib.loads(prompts.CLASS_NAMES.read_text())
    table = packaged[task]
    table = packaged[table] if isinstance(table, str) else table
    own = tmp_path / "names.toml"
    own.write_text('[birds]\nowl = "owl"\n')
    assert prompts.class_names(task, list(table), own) == tuple(table.values())
    with pytest.raises(models.PromptError, match=f"names of {task} in .*class_names.toml"):
        prompts.class_names(task, list(table)[1:], own)
    own.write_text(f"[{task}]\n" + "".join(f'"{name}" = "a {name}"\n' for name in table))
    assert prompts.class_names(task, list(table), own) == tuple(f"a {name}" for name in table)


def test_a_file_s_table_serves_its_own_aliases_alone(tmp_path):
    own = tmp_path / "names.toml"
    own.write_text('owls = "birds"\n[birds]\na = "snowy"\n[digits]\n0 = "zero"\n')
    assert prompts.class_names("owls", ["a"], own) == ("snowy",)
    assert prompts.class_names("digits", ["0"], own) == ("zero",)
    assert prompts.class_names("svhn", list("0123456789"), own) == tuple("0123456789")


@pytest.mark.parametrize("name", ["0", "00042", "n01440764", "sketch: n01440764", "-", " ", "３"])
def test_names_of_the_data_that_are_no_words(tmp_path, name):
    with pytest.raises(models.PromptError) as raised:
        prompts.class_names("birds", ["owl", name])
    message = str(raised.value)
    assert repr(name) in message
    assert "add a table [birds] to a TOML file of your own (--head.class-names FILE)" in message
    assert "\n" not in message
    own = tmp_path / "names.toml"
    own.write_text('[fish]\ncod = "cod"\n')
    with pytest.raises(models.PromptError, match=rf"birds calls .* to {own}, with a line"):
        prompts.class_names("birds", ["owl", name], own)
    own.write_text(f'[birds]\nowl = "owl"\n"{name}" = "snowy owl"\n')
    assert prompts.class_names("birds", ["owl", name], own) == ("owl", "snowy owl")


def test_names_of_the_data_that_are_words():
    classes = ["MiG-29", "4 wheels", "n0144", "Ólafur", "犬"]
    assert prompts.class_names("birds", classes) == tuple(classes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('birds = "{}"', "birds is '{}', which is no task there; expected a list of templates"),
        ("birds = 3", "expected a list of templates"),
        ("birds = []", "expected a list of templates"),
        ('birds = ["a photo"]', "must hold {} once"),
        ('birds = ["{} and {}"]', "must hold {} once"),
        ("birds = [", "no readable TOML"),
    ],
)
def test_templates_that_make_no_sentence(tmp_path, content, message):
    (tmp_path / "own.toml").write_text(content)
    with pytest.raises(models.PromptError, match=message):
        prompts.templates("birds", tmp_path / "own.toml")


def test_a_task_may_take_the_names_of_another(tmp_path):
    table = list(tomllib.loads(prompts.CLASS_NAMES.read_text())["imagenet"])
    assert prompts.class_names("imagenet_sketch", table) == prompts.class_names("imagenet", table)
    own = tmp_path / "own.toml"
    own.write_text('birds = ["a {}."]\nmore_birds = "birds"\n')
    assert prompts.templates("more_birds", own) == ("a {}.",)


def test_sketches_have_sentences_of_their_own():
    """Else the two styles of a class would be one column twice, where both stand in one head."""
    of_both, of_sketches = prompts.templates("imagenet"), prompts.templates("imagenet_sketch")
    assert set(of_sketches) < set(of_both)
    assert not any("photo" in sentence for sentence in of_sketches)


def test_class_names_that_do_not_match_the_data(tmp_path):
    classes = tomllib.loads(prompts.CLASS_NAMES.read_text())["eurosat"]
    with pytest.raises(models.PromptError, match=r"without a name Lake, Sea; .*alone SeaLake\."):
        prompts.class_names("eurosat", ["Lake", "Sea", *list(classes)[:-1]])
    with pytest.raises(models.PromptError, match=r"alone 42\."):
        prompts.class_names("gtsrb", [str(i) for i in range(42)])
    (tmp_path / "own.toml").write_text('[birds]\nowl = ""\nfox = "fox"\n')
    with pytest.raises(models.PromptError, match="calls a class ''"):
        prompts.class_names("birds", ["owl", "fox"], tmp_path / "own.toml")
    with pytest.raises(FileNotFoundError):
        prompts.class_names("birds", ["owl"], tmp_path / "absent.toml")


def test_too_few_classes_or_templates(text, cache):
    with pytest.raises(ValueError, match=r"1 class name\(s\), 3 template"):
        models.text_head(text, Words(), "birds", NAMES[:1], TEMPLATES)
    with pytest.raises(ValueError, match=r"3 class name\(s\), 0 template"):
        models.text_head(text, Words(), "birds", NAMES, ())
