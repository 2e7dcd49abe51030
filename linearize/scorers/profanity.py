"""Scorer A, ``alt-profanity-check``: TF-IDF words, a linear SVM, Platt's calibration.

The package holds scikit-learn's objects in files of joblib; these are read as arrays
(:mod:`linearize.assets.joblib`), and scored by their formula.
"""

from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from linearize import assets
from linearize.assets import joblib
from linearize.scorers.words import WordScore

_MODEL = (
    "sklearn.calibration.CalibratedClassifierCV",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.svm._classes.LinearSVC",
)
_VECTORIZER = (
    "sklearn.feature_extraction.text.TfidfVectorizer",
    "sklearn.feature_extraction.text.TfidfTransformer",
)
_TOLD = {
    "lowercase": True, "ngram_range": (1, 1), "norm": "l2", "sublinear_tf": False, "binary": False,
    "token_pattern": r"(?u)\b\w\w+\b", "analyzer": "word", "strip_accents": None,
}  # fmt: skip


def load() -> WordScore:
    """The package's score.

    Raises:
        AssetError: the package cannot be had, or its files are not those that are known.
    """
    paths = assets.fetch_all(["profanity_model", "profanity_vectorizer"])
    return read(paths["profanity_model"], paths["profanity_vectorizer"])


def read(model_file: Path, vectorizer_file: Path) -> WordScore:
    """Mean over calibrated linear SVMs of their probabilities of the second class.

    Args:
        model_file: a ``CalibratedClassifierCV`` of ``LinearSVC`` by Platt's sigmoid, two classes.
        vectorizer_file: the ``TfidfVectorizer`` of its words.

    Raises:
        AssetError: they are not, or words are counted otherwise.
    """
    model = joblib.read(model_file, *_MODEL).state
    vectorizer = joblib.read(vectorizer_file, *_VECTORIZER).state
    other = {name: vectorizer[name] for name, value in _TOLD.items() if vectorizer[name] != value}
    if other:
        raise assets.AssetError(f"{vectorizer_file}: words are counted otherwise: {other}")
    machines = [each.state for each in model["calibrated_classifiers_"]]
    lines = [each["estimator"].state for each in machines]
    slope, offset = np.array([_platt(each) for each in machines]).T
    return WordScore(
        vectorizer["vocabulary_"],
        np.asarray(vectorizer["_tfidf"].state["idf_"], np.float64),
        np.stack([line["coef_"].ravel() for line in lines], -1),
        np.concatenate([line["intercept_"].ravel() for line in lines]),
        lambda decisions: expit(-(slope * decisions + offset)).mean(-1),
    )


def _platt(machine: Any) -> tuple[float, float]:
    (calibrator,) = machine["calibrators"]
    return float(calibrator.state["a_"]), float(calibrator.state["b_"])
