"""Prompts: the paper's templates piece by piece, cuts, places of the mask, and what is refused."""

import numpy as np
import pytest

from linearize.data import DataError
from linearize.data.text import TEXT_SETS, Documents
from linearize.data.text.prompts import KLM, Prompt

PAD, MASK, FIRST, LAST = 0, 1, 2, 3


class Letters:
    """A token a character, framed as RoBERTa does."""

    special = {"pad": PAD, "mask": MASK}

    def ids(self, texts, *, framed=False):
        found = [[ord(letter) for letter in text] for text in texts]
        return [[FIRST, *ids, LAST] for ids in found] if framed else found


class NoMask(Letters):
    special = {"eos": 7}


class Bare(NoMask):
    """As GPT-2 does: nothing stands around a text."""

    def ids(self, texts, *, framed=False):
        return super().ids(texts)


def shown(tokens, mask=None):
    names = {MASK: "<mask>", FIRST: "<s>", LAST: "</s>"}
    seen = tokens if mask is None else tokens[mask]
    return "".join(names.get(int(t)) or chr(t) for t in seen)


PAIRS = ("qnli", "mnli", "snli", "rte", "mrpc", "qqp")
EXPECTED = {
    # as LM-BFF's *cls**sent_0*_It_was*mask*.*sep+* and its kin write one example
    "sst2": "<s>A fine film. It was<mask>.</s>",
    "subj": "<s>A fine film. This is<mask>.</s>",
    "trec": "<s><mask>: A fine film.</s>",
    "ag_news": "<s>A fine film. This article is about<mask> news.</s>",
    "mnli": "<s>A fine film?<mask>, it ran.</s>",
    "mrpc": "<s>A fine film.<mask>, it ran.</s>",
    "cola": "<s>A fine film. This is<mask>.</s>",
}


@pytest.mark.parametrize("task", EXPECTED)
def test_the_papers_templates(task):
    pair = ["It ran."] if task in PAIRS else None
    tokens, mask, at = KLM[task].encode(
        Documents(["A fine film."], pairs=pair), Letters(), masked=True, cut="tail"
    )
    assert tokens.shape == mask.shape == (1, KLM[task].length)
    assert tokens.dtype == at.dtype == np.int32
    assert shown(tokens[0], mask[0]) == EXPECTED[task]
    assert tokens[0, at[0]] == MASK
    assert (tokens[~mask] == PAD).all()


def test_every_task_of_the_paper_has_a_word_a_class():
    assert len(KLM) == 15  # those of its table, and both of SST
    assert all(KLM[name].of_pairs == (name in PAIRS) for name in KLM)
    assert [len(KLM[name].words) for name in ("sst5", "trec", "ag_news", "mnli")] == [5, 6, 4, 3]


def test_words_follow_the_names_of_classes():
    """Sets of TFDS have their classes in another order than the paper's files."""
    for task, name in {"mnli": "glue/mnli", "snli": "snli", "qnli": "glue/qnli"}.items():
        words = dict(
            zip(TEXT_SETS[name].classes, KLM[task].words_for(TEXT_SETS[name].classes), strict=True)
        )
        assert words["entailment"] == "Yes"
        assert words.get("contradiction", words.get("not_entailment")) == "No"
    trec = TEXT_SETS["trec"].classes
    words = dict(zip(trec, KLM["trec"].words_for(trec), strict=True))
    assert (words["NUM"], words["LOC"]) == ("Number", "Location")
    assert Prompt("{text} {mask}", ("x", "y")).words_for(("b", "a")) == ("x", "y")
    with pytest.raises(DataError, match="has words for"):
        KLM["rte"].words_for(("yes", "no"))
    with pytest.raises(DataError, match="3 classes"):
        Prompt("{text} {mask}", ("x", "y")).words_for(("a", "b", "c"))


PUBLISHED = {
    # by number: the features of TFDS' and the Hub's sets, and of the paper's own files
    "sst2": ("negative", "positive"),
    "sst5": ("very negative", "negative", "neutral", "positive", "very positive"),
    "mr": ("negative", "positive"),
    "cr": ("negative", "positive"),
    "mpqa": ("negative", "positive"),
    "ag_news": ("World", "Sports", "Business", "Sci/Tech"),
    "mrpc": ("not_equivalent", "equivalent"),
    "qqp": ("not_duplicate", "duplicate"),
    "cola": ("unacceptable", "acceptable"),
    "mnli": ("entailment", "neutral", "contradiction"),
    "snli": ("entailment", "neutral", "contradiction"),
    "qnli": ("entailment", "not_entailment"),
    "rte": ("entailment", "not_entailment"),
    "trec": ("DESC", "ENTY", "ABBR", "HUM", "NUM", "LOC"),
}


@pytest.mark.parametrize("task", KLM)
def test_numbers_are_classes_where_they_are_published_in_the_words_order(task):
    """Of *subj* there are files in either order."""
    prompt, numbers = KLM[task], tuple(map(str, range(len(KLM[task].words))))
    if task in PUBLISHED and prompt.classes == PUBLISHED[task]:
        assert prompt.words_for(numbers) == prompt.words_for(PUBLISHED[task])
        return
    with pytest.raises(DataError, match=r"which number is which of .* is not told") as error:
        prompt.words_for(numbers)
    assert str(prompt.classes) in str(error.value)


def test_a_decoder_reads_up_to_the_mask():
    prompt = Prompt("{text} It was {mask}.", ("bad", "good"))
    for tokenizer, begin in ((Bare(), ""), (NoMask(), "<s>")):  # as the rows that it is trained on
        tokens, at = prompt.encode(Documents(["Fine.", "So so."]), tokenizer, 20, masked=False)
        assert [shown(row[: n + 1]) for row, n in zip(tokens, at, strict=True)] == [
            f"{begin}Fine. It was",
            f"{begin}So so. It was",
        ]
        long, room = Documents(["abcdefgh"]), 6 - bool(begin)
        cuts = ("texts", (None, None), "abcdef"[:room]), ("tail", (5, None), "abcde")
        for cut, limits, text in cuts:
            cutting = Prompt("{text}? {mask}", ("bad", "good"), limits)
            (row,), (last,) = cutting.encode(long, tokenizer, 7, masked=False, cut=cut)
            assert shown(row[: last + 1]) == f"{begin}{text}?"
    with pytest.raises(DataError, match="asks before it has read all"):
        KLM["trec"].encode(Documents(["Who?"]), Letters(), masked=False)


def test_texts_give_way_and_the_template_stays():
    prompt = Prompt("{text}? {mask}, {pair}", ("No", "Yes"))
    documents = Documents(["aaaaaaaa", "a"], pairs=["bbbb", "bbbbbbbbbbb"])
    tokens, mask, at = prompt.encode(documents, Letters(), 13, masked=True)
    assert [shown(t, m) for t, m in zip(tokens, mask, strict=True)] == [
        "<s>aaaa?<mask>, bbb</s>",
        "<s>a?<mask>, bbbbbb</s>",
    ]
    assert at.tolist() == [6, 3]
    with pytest.raises(DataError, match=r"row 1.*leaves no token"):
        prompt.encode(Documents(["a"], pairs=["b"], places=["row 1"]), Letters(), 6, masked=True)


def test_the_tail_is_cut_as_in_the_paper():
    """First the sentence's own limit; then whatever is behind goes, the closing token too."""
    prompt = Prompt("{text} It was {mask}.", ("bad", "good"), (5, None), 14)
    long = Documents(["abcdefghij"], places=["line 7"])
    tokens, mask, _ = prompt.encode(long, Letters(), masked=True, cut="tail")
    assert shown(tokens[0], mask[0]) == "<s>abcde It was<mask>"
    with pytest.raises(DataError, match="line 7: the mask is behind length=12"):
        prompt.encode(long, Letters(), 12, masked=True, cut="tail")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Prompt("{text} It was great.", ("a", "b")), "{mask} 0 times"),
        (lambda: Prompt("It was {mask}.", ("a", "b")), "{text} 0 times"),
        (lambda: Prompt("{text} {text} {mask}", ("a", "b")), "{text} 2 times"),
        (lambda: Prompt("{text.upper} {mask}", ("a", "b")), "holds {text.upper}; there are"),
        (lambda: Prompt("{sentence} {mask}", ("a", "b")), "holds {sentence}; there are"),
        (lambda: Prompt("{text} {mask}", ("a", "a")), "each of one class"),
    ],
)
def test_a_template_that_asks_nothing_is_refused(make, message):
    with pytest.raises(DataError) as error:
        make()
    assert message in str(error.value)


def test_what_does_not_fit_the_documents_is_refused():
    prompt, one = KLM["sst2"], Documents(["Fine."])
    with pytest.raises(DataError, match="single texts, and the documents are pairs"):
        prompt.encode(Documents(["a"], pairs=["b"]), Letters(), masked=True)
    with pytest.raises(DataError, match="is of pairs, and the documents are not"):
        KLM["rte"].encode(one, Letters(), masked=True)
    with pytest.raises(DataError, match="no mask token"):
        prompt.encode(one, NoMask(), masked=True)
    with pytest.raises(DataError, match="give the most tokens"):
        Prompt("{text} {mask}", ("a", "b")).encode(one, Letters(), masked=True)
