"""A user's own texts by path, and the configurations that tell of them."""

import csv
import itertools
import json
import random
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from linearize.config import ConfigError, LanguageModelConfig, TextDataConfig, from_dict, to_dict
from linearize.data import DataError, text


def reviews(n, first=0):
    """Texts that share few words, and a class each."""
    return [
        (" ".join(random.Random(i).choices(WORDS, k=8)), ("bad", "good")[i % 2])
        for i in range(first, first + n)
    ]


def write_csv(path, rows):
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([("review", "stars"), *rows])
    return path


def write_lines(path, rows):
    path.write_text("\n".join(json.dumps({"review": t, "stars": y}) for t, y in rows))
    return path


WORDS = [f"{a}{b}{c}" for a in "bdfgkl" for b in "aeiou" for c in "mnrstx"]
COLUMNS = {"text": "review", "label": "stars"}


def test_a_path_is_no_packaged_task_and_a_packaged_task_takes_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path("spam")  # as a packaged task is called
    for label, split in itertools.product(("good", "bad"), ("train", "validation", "test")):
        (folder / split / label).mkdir(parents=True)
        (folder / split / label / "a.txt").write_text(f"{label} {split}")
    assert text.open_text(folder).classes == ("bad", "good")
    own = text.open_text("./spam", name="mine")
    monkeypatch.setattr("linearize.data.text.own.load_text", lambda name, **options: own)
    assert text.open_text("spam").name == "mine"
    assert text.open_text("spam", name="mail").name == "mail"


def test_one_file_is_split(tmp_path):
    rows = reviews(60)
    task = text.open_text(write_csv(tmp_path / "mine.csv", rows), **COLUMNS)
    assert (task.name, task.classes) == ("mine", ("bad", "good"))
    assert sum(task.counts.values()) == 60
    again = text.open_text(write_lines(tmp_path / "mine.jsonl", rows[::-1]), **COLUMNS)
    for split in ("train", "validation", "test"):
        assert task.split(split).texts == again.split(split).texts
        assert [dict(rows)[t] for t in task.split(split).texts] == [
            task.classes[y] for y in task.split(split).labels
        ]


def test_a_folder_of_splits(tmp_path):
    train, test = reviews(40), reviews(20, 100)
    write_csv(tmp_path / "Train.csv", [*train, test[3]])
    write_lines(tmp_path / "test_set.jsonl", test)
    task = text.open_text(tmp_path, name="both", **COLUMNS)
    assert set(task.test.texts) == {t for t, _ in test}
    assert task.counts["train"] + task.counts["validation"] == 40
    assert list(task.skipped.values()) == [1]
    write_lines(tmp_path / "dev.jsonl", [("a new one entirely", "fair")])
    with pytest.raises(DataError, match=r"dev.jsonl, line 1 has the label 'fair'.*'bad'"):
        text.open_text(tmp_path, **COLUMNS)
    write_lines(tmp_path / "validation.jsonl", reviews(3, 200))
    with pytest.raises(DataError, match=r"dev.jsonl and validation.jsonl; keep one"):
        text.open_text(tmp_path, **COLUMNS)


def test_folders_of_plain_text_by_split_and_class(tmp_path):
    for split, n, first in (("train", 20, 0), ("test", 10, 50)):
        for i, (words, name) in enumerate(reviews(n, first)):
            (tmp_path / split / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / split / name / f"{i}.txt").write_text(words)
    task = text.open_text(tmp_path)
    assert task.classes == ("bad", "good")
    assert task.counts["test"] == 10


def test_a_class_may_be_called_like_a_split(tmp_path):
    for name in ("train", "plane"):
        (tmp_path / name).mkdir()
        for i, (words, _) in enumerate(reviews(12, 100 * len(name))):
            (tmp_path / name / f"{i}.txt").write_text(f"{name} {words} {i}")
    task = text.open_text(tmp_path)
    assert task.classes == ("plane", "train")
    assert sum(task.counts.values()) == 24
    (tmp_path / "test").mkdir()
    with pytest.raises(DataError, match="named like splits, beside plane"):
        text.open_text(tmp_path)


def test_what_an_error_tells_to_pass_can_be_passed(tmp_path):
    rows = reviews(60)
    (tmp_path / "one").mkdir()
    write_csv(tmp_path / "one" / "train.csv", [row for row in rows[:40] if row[1] == "good"])
    write_csv(tmp_path / "one" / "test.csv", rows[40:])
    with pytest.raises(DataError, match=r"'bad'.*none of classes=.*pass classes= with all"):
        text.open_text(tmp_path / "one", **COLUMNS)
    found = text.open_text(tmp_path / "one", **COLUMNS, classes=("good", "bad"))
    assert (found.classes, set(found.train.labels.tolist())) == (("good", "bad"), {0})
    for i, (words, name) in enumerate(rows):
        folder = tmp_path / "folders" / ("train" if i < 40 else "test") / name
        folder.mkdir(parents=True, exist_ok=True)
        if i < 40 or name == "good":  # the test set has one class
            (folder / f"{i}.TXT").write_text(words)
    whole = text.open_text(tmp_path / "folders")
    assert (whole.counts["test"], whole.classes) == (10, ("bad", "good"))
    lines = "".join(f"{words};{name}\n" for words, name in [*rows, ("", "bad")])
    path = tmp_path / "mine.csv"
    path.write_text("review;stars\n" + lines)
    with pytest.raises(DataError, match="pass delimiter=';'"):
        text.open_text(path, **COLUMNS)
    with pytest.raises(DataError, match="pass on_empty='skip'"):
        text.open_text(path, **COLUMNS, delimiter=";")
    opened = text.open_text(path, **COLUMNS, delimiter=";", on_empty="skip")
    assert sum(opened.counts.values()) == 60
    path.write_text("review\n" + "\n".join(words for words, _ in rows))
    with pytest.raises(DataError, match="or pass label=None if texts are all there is"):
        text.open_text(path, text="review")
    assert not text.open_text(path, text="review", label=None).classes
    with pytest.raises(DataError, match="delimiter=';' is of CSV files"):
        text.open_text(write_lines(tmp_path / "mine.jsonl", rows), **COLUMNS, delimiter=";")


def test_numbers_that_are_written_in_two_ways_are_no_two_classes(tmp_path):
    rows = [
        (words, "1.0" if i % 4 == 0 else "12"[i % 2]) for i, (words, _) in enumerate(reviews(60))
    ]
    with pytest.raises(DataError, match=r"labels '1', '1.0', which differ .* how a number"):
        text.open_text(write_csv(tmp_path / "mine.csv", rows), **COLUMNS)


def test_what_is_neither_a_name_nor_a_path():
    with pytest.raises(DataError, match=r"'revews.csv' is neither a file or folder nor a task"):
        text.open_text("revews.csv")
    with pytest.raises(DataError, match="did you mean 'glue/sst2'"):
        text.open_text("glue/sst")


def test_texts_as_a_configuration(tmp_path):
    path = str(write_csv(tmp_path / "mine.csv", reviews(60)))
    told = TextDataConfig(tasks=(path,), train=10, validation=4, test=6, **COLUMNS)
    assert from_dict(TextDataConfig, to_dict(told)) == told
    assert tuple(told.load(path).counts.values()) == (10, 4, 6)
    with pytest.raises(ConfigError, match=r"data: label='label' is no column of .* 'stars'"):
        TextDataConfig(tasks=(path,), text="review").load(path)
    for fields, message in (
        ({"tasks": ()}, "data.tasks=.*name 1 or more"),
        ({"tasks": ("a", "a")}, "name each once"),
        ({"tasks": ("a",), "control": "a"}, "the control task must not be"),
        ({"too_long": "cutt"}, "did you mean 'cut'"),
        ({"length": 0}, "data.length=0"),
    ):
        with pytest.raises(ConfigError, match=message):
            TextDataConfig(**fields)


def test_models_as_a_configuration():
    told = LanguageModelConfig(weights="folder", blocks=2, dtype="bfloat16")
    assert from_dict(LanguageModelConfig, to_dict(told)) == told
    with pytest.raises(ConfigError, match=r"model.weights='': give a path"):
        LanguageModelConfig(weights="")
    with pytest.raises(ConfigError, match=r"model: .*did you mean 'smollm2_135m'"):
        LanguageModelConfig("smollm2_135").load()


def test_texts_become_examples_of_one_length(tmp_path):
    path = write_csv(tmp_path / "mine.csv", [*reviews(40), ("long " * 90, "good")])
    letters = type("Letters", (), {"encode": lambda self, t: [ord(c) for c in t]})()
    made = text.open_text(path, **COLUMNS)
    task = made.examples(partial(text.classification, tokenizer=letters, length=48, too_long="cut"))
    parts = (task.train, task.validation, task.test)
    assert {part.inputs[0].shape[1] for part in parts} == {48}
    assert max(np.max(part.inputs[1].sum(1)) for part in parts) == 48
