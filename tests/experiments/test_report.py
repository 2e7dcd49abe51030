"""What is no finished run of an experiment: a sentence that says what it is and what to do."""

import json

import pytest

from experiments import report
from linearize.report import ResultsError

ANEW = "run the experiment again: it is made anew"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["results.json is no readable JSON", "damaged or unfinished", ANEW]),
        ("[1, 2]", ["results.json: the file is a list; expected an object"]),
        ({"schema": 2}, ["schema is 2, this version reads 1", "run the experiment again"]),
        ({"experiment": "localisation"}, ["results.json: ", "did you mean 'localization'?"]),
        ({"experiment": 3}, ["no page is named '3'; there are: analogies, "]),
        ({}, ["is missing", "damaged, or not of experiment 'compare'", ANEW]),
        (
            {"experiment": "ensembling"},
            ["is missing; damaged, or not of experiment 'ensembling'", ANEW],
        ),
        (
            {"experiment": "ensembling", "preset": {str(n): [0.5] * 99 for n in range(999)}},
            ["preset is {'0': [0.5, ", "...}; expected a string", ANEW],
        ),
    ],
)
def test_results_that_cannot_be_shown(content, words, tmp_path):
    text = content if isinstance(content, str) else json.dumps({"schema": 1} | content)
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ResultsError) as caught:
        report.write_all(tmp_path)
    said = str(caught.value)
    assert all(each in said for each in (str(tmp_path / "results.json"), *words)), said
    assert len(said) < 500 + len(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_a_file_is_no_run_directory(tmp_path):
    for place in (tmp_path / "results.json", tmp_path / "results.json" / "inside"):
        (tmp_path / "results.json").write_text("{}")
        with pytest.raises(ResultsError, match="is no directory; give the directory of a finished"):
            report.write_all(place)
    with pytest.raises(ResultsError, match=r"no results\.json in .*/nowhere'; give the directory"):
        report.write_all(tmp_path / "nowhere")
