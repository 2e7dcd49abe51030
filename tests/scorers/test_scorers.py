"""Scorers of texts: beside scikit-learn, torch and onnxruntime; what they refuse."""

import joblib as real_joblib
import numpy as np
import onnx
import pytest
from scipy.special import expit

from linearize import assets, narration, scorers
from linearize.assets import UnsafePickleError, joblib
from linearize.scorers import comments, hate, profanity, scorer, words

close = np.testing.assert_allclose
KIND = ["a lovely day in the garden", "roses and a lovely cup of tea", "tea in the garden, roses"]
SALE = ["buy cheap watches now", "cheap loans, buy now", "watches and loans, now cheap!"]
TEXTS = ["", "Buy a cup of tea NOW", "naïve CAFÉ \u212a", "a", "loans loans garden", *KIND]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """scikit-learn's own vectorizer and calibrated machines, and the files that it writes."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.svm import LinearSVC

    folder = tmp_path_factory.mktemp("scikit")
    vectorizer = TfidfVectorizer(stop_words="english")
    x = vectorizer.fit_transform(KIND + SALE)
    model = CalibratedClassifierCV(LinearSVC(), cv=3).fit(x, [0] * 3 + [1] * 3)
    real_joblib.dump(model, folder / "model")
    real_joblib.dump(vectorizer, folder / "vectorizer")
    return folder, model, vectorizer


def test_calibrated_machines_are_scikit_learns(trained):
    folder, model, vectorizer = trained
    expected = model.predict_proba(vectorizer.transform(TEXTS))[:, 1]
    found = profanity.read(folder / "model", folder / "vectorizer")
    close(scorers.scores(found, TEXTS), expected, atol=1e-12)
    assert np.ptp(expected) > 0.01


def test_words_counted_otherwise_are_refused(trained, tmp_path):
    from sklearn.feature_extraction.text import TfidfVectorizer

    folder, *_ = trained
    real_joblib.dump(TfidfVectorizer(ngram_range=(1, 2)).fit(KIND), tmp_path / "pairs")
    with pytest.raises(assets.AssetError, match=r"counted otherwise: \{'ngram_range': \(1, 2\)\}"):
        profanity.read(folder / "model", tmp_path / "pairs")


def test_a_fit_is_scikit_learns():
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    texts, y = [*KIND, *SALE[:2]] * 3, [False] * 9 + [True] * 6
    y = [t in SALE for t in texts]
    found = scorers.fit(texts, y, l2=1e-2, in_texts=1)
    vectorizer = TfidfVectorizer()
    x = vectorizer.fit_transform(texts)
    # its objective is Σ weight · loss + ‖w‖² / (2 C); "balanced" weights add up to N
    machine = LogisticRegression(
        C=1 / (1e-2 * len(texts)), class_weight="balanced", tol=1e-9, max_iter=10_000
    )
    machine.fit(x, y)
    close(found(TEXTS), machine.predict_proba(vectorizer.transform(TEXTS))[:, 1], atol=1e-5)


@pytest.mark.slow
def test_a_bidirectional_lstm_is_torchs():
    import torch

    rng = np.random.default_rng(0)
    names = {"the": 1, "cat": 2, "sat": 3, "far": comments.VOCABULARY}
    lstm = torch.nn.LSTM(5, 4, bidirectional=True, batch_first=True, dtype=torch.float64)
    weights = {"embedding/vars/0": rng.normal(size=(4, 5))}
    for way, end in (("forward_layer", ""), ("backward_layer", "_reverse")):
        parts = [getattr(lstm, f"{name}_l0{end}").detach().numpy() for name in
                 ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]  # fmt: skip
        place = f"bidirectional/{way}/cell/vars"
        weights[f"{place}/0"], weights[f"{place}/1"] = parts[0].T, parts[1].T
        weights[f"{place}/2"] = parts[2] + parts[3]
    weights |= {"dense/vars/0": rng.normal(size=(8, 3)), "dense/vars/1": rng.normal(size=3)}
    weights |= {"dense_1/vars/0": rng.normal(size=(3, 6)), "dense_1/vars/1": rng.normal(size=6)}
    score = comments.CommentScore(names, "!,.", weights)
    texts = ["The cat. Sat,the far!unknown", "", "cat " * 130 + "the"]
    tokens = score.tokens(texts)
    assert tokens.shape == (3, 100)
    assert tokens[0, -4:].tolist() == [1, 2, 3, 1]
    assert not tokens[0, :-4].any()
    assert not tokens[1].any()
    assert tokens[2].tolist() == [2] * 99 + [1]
    seen, _ = lstm(torch.from_numpy(weights["embedding/vars/0"][tokens]))
    top = seen.detach().numpy().max(1)
    hidden = np.maximum(top @ weights["dense/vars/0"] + weights["dense/vars/1"], 0)
    expected = expit(hidden @ weights["dense_1/vars/0"] + weights["dense_1/vars/1"])
    close(score.probabilities(texts), expected, atol=1e-12)
    close(score(texts), expected[:, 0], atol=1e-12)


def test_a_file_of_joblib_runs_nothing(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("ran",))

    real_joblib.dump({"a": Evil()}, tmp_path / "evil")
    with pytest.raises(UnsafePickleError, match=r"names 'builtins.print'.*nothing was run"):
        joblib.read(tmp_path / "evil")
    real_joblib.dump(np.array([{}], object), tmp_path / "objects")
    with pytest.raises(UnsafePickleError, match="not an array of numbers"):
        joblib.read(tmp_path / "objects")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f8", "<i4", "?"])
def test_arrays_of_joblib_are_read(tmp_path, dtype, order):
    array = np.array([[1, 0, 3], [0, 5, 6]], dtype, order=order)
    real_joblib.dump({"x": array, "n": np.float64(2.5), "after": "here"}, tmp_path / "file")
    found = joblib.read(tmp_path / "file")
    np.testing.assert_array_equal(found["x"], array)
    assert found["x"].dtype == array.dtype
    assert (float(found["n"]), found["after"]) == (2.5, "here")
    raw = (tmp_path / "file").read_bytes()
    (tmp_path / "cut").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(UnsafePickleError):
        joblib.read(tmp_path / "cut")


def _odd(texts):
    return [0.5] * (len(texts) + 1)


def _beyond(texts):
    return np.linspace(0.5, 1.5, len(texts))


def _nothing(texts):
    return [None for _ in texts]


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (_odd, r"shape \(4,\) for 3 texts"),
        (_beyond, r"1.5 for text 2 \(1 of 3 such\)"),
        (lambda texts: [np.nan, 0.1, 0.2], "nan for text 0"),
        (_nothing, "nan for text 0"),
        (lambda texts: ["a", "b", "c"], "no numbers for 3 texts"),
    ],
)
def test_answers_that_are_no_scores_are_refused(score, message):
    with pytest.raises(scorers.ScorerError, match=f"mine gave.*{message}"):
        scorers.scores(score, ["a", "b", "c"], "mine")


def test_many_texts_are_scored_in_blocks_and_say_how_far_they_are(monkeypatch, caplog):
    monkeypatch.setattr(scorer, "BLOCK", 3)
    monkeypatch.setattr(narration, "SILENCE", 0.0)
    texts, given = [str(n) for n in range(8)], []

    def tenths(block):
        given.append(len(block))
        return [int(text) / 10 for text in block]

    with caplog.at_level("INFO", "linearize"):
        close(scorers.scores(tenths, texts, "mine"), np.arange(8) / 10)
    assert given == [3, 3, 2]
    assert "texts scored by mine: 6 of 8" in caplog.messages
    with pytest.raises(scorers.ScorerError, match=r"-0.2 for text 5 \(1 of 8 such\)"):
        scorers.scores(lambda block: [-0.2 if t == "5" else 0.5 for t in block], texts, "mine")


def test_texts_are_strings():
    with pytest.raises(ValueError, match="one string; expected a list"):
        scorers.scores(_odd, "text")
    with pytest.raises(ValueError, match="holds a int"):
        scorers.scores(_odd, ["a", 1])
    assert scorers.scores(_beyond, []).shape == (0,)


def test_a_function_of_ones_own_is_found_by_name():
    row = scorers.named("linearize.scorers.words:words")
    assert row.load() is words.words
    for name, message in {
        "profanty": "did you mean 'profanity'",
        "nowhere.at_all:f": "No module named 'nowhere'",
        "linearize.scorers:none": "has no attribute 'none'",
        "linearize.scorers:SCORERS": "is a dict; expected a function",
        ":f": "module:function",
    }.items():
        with pytest.raises(scorers.ScorerError, match=message):
            scorers.named(name)


def test_a_fit_wants_both_kinds_and_words():
    with pytest.raises(ValueError, match="some of either kind"):
        scorers.fit(KIND, [True] * 3)
    with pytest.raises(ValueError, match="no word occurs in 9"):
        scorers.fit(KIND + SALE, [False] * 3 + [True] * 3, in_texts=9)


HARMLESS = ["The treaty was signed in 1648.", "You are so dumb and stupid!", "", "Thanks, 2nd one"]


@pytest.mark.network
@pytest.mark.slow
def test_comments_are_scored_as_its_package_does():
    """Keras's values of these texts (LANGUAGE.md)."""
    found = comments.load().probabilities(HARMLESS[:2])
    close(found[1], [0.989, 0.073, 0.620, 0.019, 0.866, 0.041], atol=6e-4)
    close(found[0, 0], 0.002, atol=6e-4)


@pytest.mark.network
@pytest.mark.slow
def test_hatesonar_is_onnxruntimes():
    onnxruntime = pytest.importorskip("onnxruntime")
    model = onnx.load(assets.fetch("hatesonar"))
    (lower,) = (node for node in model.graph.node if node.op_type == "StringNormalizer")
    lower.attribute.append(onnx.helper.make_attribute("locale", "C"))  # en_US is not everywhere
    session = onnxruntime.InferenceSession(model.SerializeToString())
    _, classes = session.run(None, {"text": np.array(HARMLESS, object)})
    expected = [1 - each[hate.NEITHER] for each in classes]
    close(hate.load()(HARMLESS), expected, atol=1e-6)


@pytest.mark.network
@pytest.mark.slow
def test_profanity_tells_a_kind_sentence_from_an_insult():
    low, high = profanity.load()(["Have a lovely day, my friend.", HARMLESS[1]])
    assert low < 0.05
    assert high > 0.95
