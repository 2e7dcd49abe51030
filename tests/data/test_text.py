"""Texts to examples: readers of a user's files, tokens that fit, packing, windows."""

import csv
import itertools
import json
import random

import numpy as np
import pytest

from linearize.data import DataError, text
from linearize.data.text import Documents


class Characters:
    """A token a character; a start and an end around each text, and between those of a pair."""

    start, end = 1, 2

    def encode(self, first, second=None):
        inner = [3 + ord(c) % 50 for c in first]
        if second is not None:
            inner += [self.end, *(3 + ord(c) % 50 for c in second)]
        return [self.start, *inner, self.end]


class Plain:
    """A token a character and nothing else, as objects of the ``tokenizers`` library give them."""

    def encode(self, first):
        return type("Encoding", (), {"ids": [ord(c) for c in first]})()


def rows_of(*texts):
    return text.encoded(Documents(texts), Plain())[0]


def stream(rng, n, length):
    """Documents whose tokens are all different, so that a label says which token is meant."""
    sizes = rng.integers(1, length, n)
    return np.split(np.arange(sizes.sum(), dtype=np.int32) + 10, np.cumsum(sizes)[:-1])


def asked(examples):
    """(input token, label) wherever a label is asked for."""
    labels = examples.labels
    return list(
        zip(examples.inputs[labels >= 0].tolist(), labels[labels >= 0].tolist(), strict=True)
    )


@pytest.mark.parametrize("seed", range(5))
def test_packing_asks_for_each_token_once_after_the_one_before_it(seed):
    rng = np.random.default_rng(seed)
    rows, length = stream(rng, 7, 12), int(rng.integers(1, 9))
    within = [pair for row in rows for pair in zip(row.tolist(), row[1:].tolist(), strict=False)]
    without = text.packed(rows, length)
    assert without.inputs.shape == without.labels.shape == (len(without), length)
    assert asked(without) == within
    whole = np.concatenate([[*row, 5] for row in rows]).tolist()
    assert asked(text.packed(rows, length, end=5)) == list(itertools.pairwise(whole))
    assert len(text.packed(rows, length, end=5)) == -(-(len(whole) - 1) // length)


def hugging_face_windows(ids, context, stride):
    """The strided recipe as transformers' documentation has it: windows, targets, the shift."""
    found, previous = [], 0
    for begin in range(0, len(ids), stride):
        stop = min(begin + context, len(ids))
        window, target = ids[begin:stop], list(ids[begin:stop])
        target[: -(stop - previous)] = [-100] * (len(target) - (stop - previous))
        found += [(tuple(window[: i + 1]), target[i + 1]) for i in range(len(window) - 1)
                  if target[i + 1] != -100]  # fmt: skip
        previous = stop
        if stop == len(ids):
            break
    return found


@pytest.mark.parametrize(("context", "stride"), [(8, 4), (8, 3), (8, 1), (8, 8), (5, 5), (64, 32)])
@pytest.mark.parametrize("n", [2, 7, 8, 9, 16, 17, 40])
def test_windows_are_those_of_the_published_recipe(n, context, stride):
    ids = list(range(10, 10 + n))
    examples = text.strided([np.array(ids)], context, stride, pad=3)
    ours = [
        (tuple(tokens[: at + 1].tolist()), int(labels[at]))
        for tokens, labels in zip(examples.inputs, examples.labels, strict=True)
        for at in np.flatnonzero(labels >= 0)
    ]
    assert ours == hugging_face_windows(ids, context, stride)
    if stride < context:
        assert [label for _, label in ours] == ids[1:]


def test_recipes_by_name():
    rows = [np.arange(10, 31)]
    half, whole = (text.WINDOWS[name](rows, 6) for name in ("strided", "disjoint"))
    assert len(asked(half)) == 20
    assert len(asked(whole)) == 20 - 3  # the first token of each later window
    with pytest.raises(DataError, match="stride=7 is above context=6"):
        text.strided(rows, 6, 7)


def test_windows_do_not_reach_from_one_document_into_the_next():
    rows = stream(np.random.default_rng(0), 4, 30)
    examples = text.strided(rows, 8)
    assert asked(examples) == [
        pair for row in rows for pair in zip(row.tolist(), row[1:].tolist(), strict=False)
    ]
    whole = text.joined(Documents(("ab", "cd")), "\n\n")
    assert whole.texts == ("ab\n\ncd",)


def test_one_document_a_row():
    rows = rows_of("abc", "defgh")
    examples = text.one_a_row(rows, 4, pad=7)
    assert examples.inputs.tolist() == [[97, 98, 7, 7], [100, 101, 102, 103]]
    assert examples.labels.tolist() == [[98, 99, -1, -1], [101, 102, 103, 104]]
    ended = text.one_a_row(rows, 5, end=9)
    assert ended.labels.tolist() == [[98, 99, 9, -1, -1], [101, 102, 103, 104, 9]]
    with pytest.raises(DataError, match="document 1 has 4 tokens that others follow and length=3"):
        text.one_a_row(rows, 3)
    assert len(text.one_a_row(rows, 3, too_long="leave out")) == 1
    assert text.one_a_row(rows, 3, too_long="cut").labels[1].tolist() == [101, 102, 103]
    with pytest.raises(DataError, match="document 0 has 1 token and nothing after it"):
        text.one_a_row(rows_of("a"), 3)


def test_what_cannot_be_packed():
    with pytest.raises(DataError, match="no document"):
        text.packed([], 4)
    with pytest.raises(DataError, match="nothing to ask for"):
        text.packed(rows_of("a"), 4)
    with pytest.raises(DataError, match="nothing to ask for"):
        text.strided(rows_of("a"), 4)
    with pytest.raises(ValueError, match="length=0"):
        text.packed(rows_of("ab"), 0)
    with pytest.raises(DataError, match="did you mean 'cut'"):
        text.one_a_row(rows_of("abc"), 1, too_long="cutt")
    for row in ([1.5, 2.5], [3, -1], [[1, 2]]):
        with pytest.raises(DataError, match=r"document 1 is .*expected numbers of tokens"):
            text.strided([*rows_of("ab"), np.array(row)], 4)


@pytest.mark.parametrize("name", ["end", "pad"])
@pytest.mark.parametrize("make", [text.packed, text.one_a_row, text.strided])
def test_what_ends_and_what_pads_is_a_token(make, name):
    """Of another number a model has no embedding, and what a decoder does not see is NaN to it."""
    if name == "pad" or make is not text.strided:
        for number in (-1, -100, 1.0):
            with pytest.raises(ValueError, match=f"{name}={number}; expected an integer, 0 or"):
                make(rows_of("abc"), 5, **{name: number})


def test_buckets_hold_all_documents_once():
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 33, 50)
    found = text.buckets(sizes, [32, 8, 16])
    assert sorted(np.concatenate(list(found.values()))) == list(range(50))
    for length, rows in found.items():
        assert (sizes[rows] <= length).all()
        assert (sizes[rows] > length / 2).all() or length == 8
    with pytest.raises(DataError, match="document 1 has 40 tokens and the longest row 32"):
        text.buckets([3, 40], [32])


def test_classification():
    documents = Documents(("abc", "a"), [1, 0], ("no", "yes"))
    examples = text.classification(documents, Characters(), 6)
    tokens, mask = examples.inputs
    assert mask.sum(1).tolist() == [5, 3]
    assert tokens[0, :5].tolist() == Characters().encode("abc")
    assert not tokens[~mask].any()
    assert examples.labels.tolist() == [1, 0]
    with pytest.raises(DataError, match="no labels"):
        text.classification(Documents(("abc",)), Characters(), 6)


def test_transformers_tokenizers_are_taken_as_they_are():
    """Whose ``backend`` is a word since version 5."""
    transformers = pytest.importorskip("transformers")
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "fine", "film", "no", "yes"]
    vocabulary = {word: i for i, word in enumerate(names)}
    theirs = transformers.BertTokenizer(vocab=vocabulary)
    documents = Documents(("a fine film", "film"), [1, 0], ("no", "yes"), pairs=("a film", "fine"))
    tokens, mask = text.classification(documents, theirs, 8).inputs
    assert tokens.tolist() == [[2, 5, 6, 7, 3, 5, 7, 3], [2, 7, 3, 6, 3, 0, 0, 0]]
    assert mask.sum(1).tolist() == [8, 5]
    types = text.classification(documents, theirs, 7, too_long="cut", types=True).inputs[2]
    assert types.tolist() == [[0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 0, 0]]
    with pytest.raises(DataError, match="Characters tells no token types"):
        text.classification(documents, Characters(), 40, types=True)
    alone = Documents(documents.texts, documents.labels, documents.classes)
    assert text.answers(alone, theirs, 8).labels.tolist() == [[2, 9, 3], [2, 8, 3]]
    with pytest.raises(DataError, match=r"answer to document 0, 'grand', is unknown to the vocab"):
        text.answers(alone, theirs, 8, ["grand", "no"])


def test_answers_begin_with_the_start_and_end_as_the_tokenizer_ends_a_text():
    documents = Documents(("abc", "a"), [1, 0], ("no", "yes"))
    examples = text.answers(documents, Characters(), 6, start=0)
    answer = examples.inputs[2]
    yes, no = Characters().encode("yes"), Characters().encode("no")
    assert examples.labels.tolist() == [yes, [*no, -1]]
    assert answer.tolist() == [[0, *yes[:-1]], [0, *no[:-1], 0]]
    own = text.answers(
        Documents(("abc", "abcdefg")), Characters(), 6, ["x", "yy"], too_long="leave out"
    )
    assert own.labels.tolist() == [Characters().encode("x")]
    with pytest.raises(DataError, match="the answer to document 1 has 4 tokens and length=3"):
        text.answers(documents, Characters(), 6, ["a", "bb"], answer_length=3)
    with pytest.raises(DataError, match="words has 1 answers for 2 documents"):
        text.answers(documents, Characters(), 6, ["a"])


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("paired", [False, True])
def test_cutting_keeps_special_tokens_and_the_template(wrapped, paired):
    """By brute force: of all ways to shorten, as much as fits is kept, and the ends stay."""
    rng = random.Random(0)
    wrap = (lambda a, b: f"Q {a}. A {b or ''}?") if wrapped else None
    for _ in range(20):
        first, second = ("".join(rng.choices("abcdefg", k=rng.randint(1, 60))) for _ in "12")
        documents = Documents((first,), pairs=(second,) if paired else None)
        (whole,), _ = text.encoded(documents, Characters(), wrap=wrap)
        room = rng.randint(14, 60)
        (tokens,), _ = text.encoded(documents, Characters(), length=room, wrap=wrap, too_long="cut")
        assert len(tokens) == min(room, len(whole))
        assert (tokens[0], tokens[-1]) == (Characters.start, Characters.end)
        if wrapped:
            assert tokens[-2] == Characters().encode("?")[1]


def test_what_is_cut_keeps_a_token_of_each_text():
    """Where there is room for the frame and for one text of a pair, or for a space alone."""
    none = "document 0 has no room for any of its text in length="
    pair = Documents(("abcdef",), pairs=("xy",))
    (both,), _ = text.encoded(pair, Characters(), wrap=lambda a, b: a + b, length=4, too_long="cut")
    assert both.tolist() == Characters().encode("ax")
    with pytest.raises(DataError, match=f"{none}3"):
        text.encoded(pair, Characters(), wrap=lambda a, b: a + b, length=3, too_long="cut")
    framed = type("Framed", (), {"encode": lambda self, t: [1, *map(ord, "".join(t.split()))]})()
    late = Documents(("   abc",))
    for length, kept in ((2, None), (3, [1, ord("a"), ord("?")])):
        options = {"length": length, "too_long": "cut", "wrap": lambda a, _: f"{a} ?"}
        if kept is None:
            with pytest.raises(DataError, match=f"{none}2"):
                text.encoded(late, framed, **options)
        else:
            assert text.encoded(late, framed, **options)[0][0].tolist() == kept


def test_texts_that_do_not_fit_are_refused_or_left_out():
    documents = Documents(
        ("abcdef", "ab"), [0, 1], ("x", "y"), places=["a.csv, line 2", "a.csv, line 3"]
    )
    with pytest.raises(DataError, match=r"a\.csv, line 2 has 8 tokens and length=5; raise it"):
        text.classification(documents, Characters(), 5)
    kept = text.classification(documents, Characters(), 5, too_long="leave out")
    assert kept.labels.tolist() == [1]
    with pytest.raises(DataError, match="no room for any of its text in length=2"):
        text.classification(documents, Characters(), 2, too_long="cut")
    with pytest.raises(DataError, match="no document has at most length=3"):
        text.classification(documents, Characters(), 3, too_long="leave out")
    with pytest.raises(DataError, match="did you mean 'cut'"):
        text.encoded(documents, Characters(), too_long="cutt")


def test_a_tokenizer_of_another_model_is_refused():
    documents = Documents(("ab", "az"))
    with pytest.raises(DataError, match="document 1 has the token 122 and the model has 0 to 99"):
        text.encoded(documents, Plain(), vocabulary=100)
    with pytest.raises(DataError, match="another model's"):
        text.classification(Documents(("az",), [0], ("x", "y")), Plain(), 4, vocabulary=100)
    nested = type("Nested", (), {"encode": lambda self, text: [[1, 2]]})()
    with pytest.raises(DataError, match=r"Nested.encode gives int64\(1, 2\)"):
        text.encoded(documents, nested)
    silent = type("Silent", (), {"encode": lambda self, text: []})()
    with pytest.raises(DataError, match="document 0 has no token: 'ab'"):
        text.encoded(documents, silent)


@pytest.mark.parametrize("how", ["padding", "truncation"])
def test_a_tokenizer_that_pads_or_cuts_by_itself_is_refused(how):
    """As the files of sentence encoders' tokenizers are saved."""
    library = pytest.importorskip("tokenizers")
    words = {word: number for number, word in enumerate(["[PAD]", "a", "b"])}
    own = library.Tokenizer(library.models.WordLevel(words, unk_token="[PAD]"))
    own.pre_tokenizer = library.pre_tokenizers.WhitespaceSplit()
    documents = Documents(("a b a", "b"), [0, 1], ("x", "y"))
    plain = text.classification(documents, own, 4).inputs
    np.testing.assert_array_equal(plain[1], [[True, True, True, False], [True] + [False] * 3])
    own.enable_padding(length=4) if how == "padding" else own.enable_truncation(2)
    with pytest.raises(DataError, match=rf"own {how} would .*; call no_{how}\(\) of it first"):
        text.classification(documents, own, 4)
    getattr(own, f"no_{how}")()
    np.testing.assert_array_equal(text.classification(documents, own, 4).inputs[1], plain[1])


def test_a_frame_alone_is_no_text():
    framed = type(
        "Framed", (), {"encode": lambda self, t: [1, *(n for n in map(ord, t) if n < 128)]}
    )()
    with pytest.raises(DataError, match="document 1 has no token: '…'; leave it out"):
        text.classification(Documents(("!", "…"), [0, 1], ("x", "y")), framed, 4)
    with pytest.raises(DataError, match="document 0 has no token: '…'"):
        text.encoded(Documents(("…",)), framed, wrap=lambda own, pair: f"{own} was")


def test_answers_that_a_vocabulary_does_not_tell_apart_are_refused():
    documents, words = Documents(("ab", "cd")), ["splendid", "awful"]
    blind = type("Blind", (), {"encode": lambda self, text: [2, 1], "special": {}})()
    with pytest.raises(DataError, match="document 1, 'awful', is the tokens of the answer 'splend"):
        text.answers(documents, blind, 4, words)
    blind.special = {"unk": 2}
    with pytest.raises(DataError, match="document 0, 'splendid', is unknown to the vocabulary"):
        text.answers(documents, blind, 4, words)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"texts": "one string"}, "expected a list"),
        ({"texts": ["a", " \n"]}, "document 1 is empty"),
        ({"texts": ["a", "\u200b\ufeff \x02"]}, "document 1 is empty"),
        ({"texts": ["a", None]}, "document 1 is a NoneType"),
        ({"texts": ["a", "\ud800"]}, "document 1 holds half of a surrogate pair"),
        ({"texts": ["a"], "pairs": ["a", "b"]}, "pairs has 2 entries for 1 texts"),
        ({"texts": ["a"], "pairs": [""]}, "document 0 is empty"),
        ({"texts": ["a"], "labels": [2], "classes": ("x", "y")}, "row 0 has 2"),
        ({"texts": ["a"], "labels": [0.5], "classes": ("x", "y")}, "float64"),
    ],
)
def test_documents_that_are_none(fields, message):
    with pytest.raises(DataError, match=message):
        Documents(**fields)


HARD = [
    "plain",
    'quoted "words"',
    "two\nlines",
    "commas, and; signs",
    " spaces ",
    "ünï-cødé ☃\u2028x",
]


def write(path, content, encoding="utf-8"):
    path.write_bytes(content.encode(encoding))
    return path


@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_csv_and_json_lines_give_back_what_was_written(tmp_path, bom, ends):
    labels, groups = ["pos", "neg"] * 3, ["ann", "bob", "ann", "ann", "bob", "cy"]
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as file:
        file.write(bom)
        writer = csv.writer(file, lineterminator=ends)
        writer.writerows(
            [["id", "text", "label", "who"], *zip("012345", HARD, labels, groups, strict=True)]
        )
    lines = [
        json.dumps({"text": t, "label": y, "who": g})
        for t, y, g in zip(HARD, labels, groups, strict=True)
    ]
    write(tmp_path / "a.jsonl", bom + ends.join(lines) + ends)
    for read, name in ((text.read_csv, "a.csv"), (text.read_json_lines, "a.jsonl")):
        found = read(tmp_path / name, label="label", group="who")
        assert list(found.texts) == HARD
        assert found.classes == ("neg", "pos")
        assert found.labels.tolist() == [1, 0] * 3
        assert list(found.groups) == groups
    assert (
        text.read_csv(tmp_path / "a.csv").place(3).endswith("a.csv, line 6")
    )  # one before has two


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("text,label\na,x\nb\n", {}, "line 3 has 1 fields for 2 columns; put quotes"),
        ("text,label\na,x\nb,c,x\n", {}, "line 3 has 3 fields for 2 columns"),
        ('text,label\n"a\nb",x\n"open,y\nz,z\n', {}, "line 4: unexpected end of data; a quote"),
        ("text,label\na,x\n ,y\n", {}, "line 3 has an empty text"),
        ("text,label\na,x\nb,\n", {"label": "label"}, "line 3 has no 'label'; fill"),
        ("text,label\na,x\n", {"text": "txt"}, "text='txt' is no column .* did you mean 'text'"),
        ("text;label\na;x\n", {"label": "label"}, "cut by semicolons: pass delimiter=';'"),
        ("text,text\na,x\n", {}, "has 2 columns 'text'"),
        ("", {}, "is empty; its first line"),
        ("text,label\n", {}, "holds no document"),
        ("text,label\na,Pos\nb,pos\n", {"label": "label"}, "differ in capitals alone"),
        ("text,label\na,x\nb,y\n", {"label": "label", "classes": "xz"}, "line 3 has the label 'y'"),
        ("text,y\na,.1\nb,.2\nc,.3\nd,.3\n", {"label": "y"}, "3 different labels in 4 lines"),
    ],
)  # fmt: skip
def test_csv_files_that_are_damaged(tmp_path, content, options, message):
    path = write(tmp_path / "a.csv", content)
    with pytest.raises(DataError, match=message):
        text.read_csv(path, **options)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a", "label": 1}\n\n{"text": "b", \n', "line 3 is no JSON"),
        ('{"text": "a", "label": 1, "text": "b"}', "line 1 is no JSON .*'text' is there twice"),
        ('[{"text": "a"},\n{"text": "b"}]', "line 1 is no JSON .*a JSON object a line is expected"),
        ('[{"text": "a", "label": 1}]', "line 1 holds a list"),
        (
            '{"text": "a", "label": 1}\n{"txt": "b", "label": 1}',
            "text='text' is no key of .* line 2",
        ),
        ('{"text": 3, "label": 1}', "line 1: 'text' is 3; expected a string"),
        ('{"text": null, "label": 1}', "line 1 has an empty text"),
        ('{"text": "a", "label": null}', "line 1 has no 'label'"),
        ('{"text": "a", "label": 0.5}', "line 1: 'label' is 0.5; expected a name"),
        ('{"text": "a", "label": NaN}', "line 1: 'label' is nan; expected a name"),
        ("[" * 100_000, "line 1 is no JSON"),
    ],
)
def test_json_lines_that_are_damaged(tmp_path, content, message):
    path = write(tmp_path / "a.jsonl", content)
    with pytest.raises(DataError, match=message):
        text.read_json_lines(path, label="label")


def test_other_encodings_name_the_byte(tmp_path):
    latin = write(tmp_path / "latin.csv", "text\nfine\ncafé\n", "latin-1")
    with pytest.raises(DataError, match=r"latin\.csv is no UTF-8: byte 13 \(line 3\) is 0xe9"):
        text.read_csv(latin)
    bare = write(tmp_path / "bare.csv", "text\nfine\n", "utf-16-le")
    with pytest.raises(DataError, match=r"byte 1 \(line 1\) is 0x00; save it as UTF-8.* as CSV"):
        text.read_csv(bare)
    with pytest.raises(DataError, match="is UTF-16; save it as UTF-8"):
        text.read_json_lines(write(tmp_path / "wide.jsonl", "{}", "utf-16"))
    with pytest.raises(DataError, match="cannot be read"):
        text.read_csv(tmp_path / "absent.csv")
    with pytest.raises(DataError, match="is a directory"):
        text.read_csv(tmp_path)


def test_labels_that_are_integers_are_in_their_order(tmp_path):
    path = write(tmp_path / "a.csv", "text,y\n" + "".join(f"t{i},{i % 3 * 5}\n" for i in range(12)))
    found = text.read_csv(path, label="y")
    assert found.classes == ("0", "5", "10")
    lines = [json.dumps({"text": f"t{i}", "y": float(i % 3 * 5)}) for i in range(12)]
    again = text.read_json_lines(write(tmp_path / "a.jsonl", "\n".join(lines)), label="y")
    assert (again.classes, again.labels.tolist()) == (found.classes, found.labels.tolist())


def test_labels_that_only_look_like_integers_are_in_their_spellings_order(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(
        "text,label\n" + "".join(f"t{i},{('1', '--1', '-1')[i % 3]}\n" for i in range(9))
    )
    assert text.read_csv(path, label="label").classes == ("--1", "-1", "1")


def test_empty_texts_may_be_passed_over(tmp_path, caplog):
    path = write(tmp_path / "a.csv", "text,pair\na,b\n,c\nd,\ne,f\n")
    found = text.read_csv(path, pair="pair", on_empty="skip")
    assert (found.texts, found.pairs) == (("a", "e"), ("b", "f"))
    assert "passed over 2 lines" in caplog.text


def test_a_field_may_be_a_book(tmp_path):
    book = "word " * 60_000
    path = write(tmp_path / "a.csv", f"text\n{book}\n")
    limit = csv.field_size_limit()
    assert text.read_csv(path).texts == (book,)
    assert csv.field_size_limit() == limit


def test_folders_of_plain_text(tmp_path):
    for name in ("b.txt", "a.raw"):
        write(tmp_path / name, f"this is {name}")
    assert text.read_plain(tmp_path).texts == ("this is a.raw", "this is b.txt")
    assert text.read_plain(tmp_path / "a.raw").texts == ("this is a.raw",)
    (tmp_path / "x").mkdir()
    write(tmp_path / "x" / "c.txt", "c")
    with pytest.raises(DataError, match="holds texts beside the folders x"):
        text.read_plain(tmp_path)
    both = tmp_path / "both"
    for name in ("x", "y"):
        (both / name).mkdir(parents=True)
        write(both / name / "c.txt", f"of {name}")
    found = text.read_plain(both)
    assert (found.classes, found.labels.tolist()) == (("x", "y"), [0, 1])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no text"):
        text.read_plain(tmp_path / "empty")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        text.read_plain(tmp_path / "absent")
