"""Scorer C, ``hatesonar``: TF-IDF words and a logistic model of three classes, in an ONNX file."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import softmax

from linearize import assets, files
from linearize.assets.asset import AssetError
from linearize.scorers.words import WordScore

NEITHER = 2
"""Of the classes hate speech, offensive language, neither."""


def load() -> WordScore:
    """1 − probability of "neither": hate speech or offensive language (Davidson et al. 2017).

    Raises:
        AssetError: the package cannot be had, or its graph is not the one that is known.
        ModuleNotFoundError: the ``onnx`` package is missing.
    """
    path = assets.fetch("hatesonar")
    try:
        import onnx
        from onnx import numpy_helper
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the scorer 'hate' needs the onnx package: pip install 'linearize[demo]'"
        ) from error
    files.check_regular(path)
    graph = onnx.load(str(path)).graph

    def attributes(kind: str, **told: Any) -> Mapping[str, Any]:
        (node,) = (node for node in graph.node if node.op_type == kind)
        found = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        other = {name: found.get(name) for name, value in told.items() if found.get(name) != value}
        if other:
            raise AssetError(f"hatesonar's {kind} is another than the known one: {other}")
        return found

    attributes("StringNormalizer", case_change_action=b"LOWER")
    pattern = attributes("Tokenizer", mark=0, mincharnum=1)["tokenexp"].decode()
    words = attributes(
        "TfIdfVectorizer", mode=b"TF", min_gram_length=1, max_gram_length=1, max_skip_count=0
    )
    line = attributes("LinearClassifier", post_transform=b"SOFTMAX", classlabels_ints=[0, 1, 2])
    (idf,) = (numpy_helper.to_array(t) for t in graph.initializer if t.name == "idfcst")
    pool = (word.decode() for word in words["pool_strings"])
    return WordScore(
        dict(zip(pool, words["ngram_indexes"], strict=True)),
        idf.astype(np.float64),
        np.array(line["coefficients"], np.float64).reshape(3, -1).T,
        np.array(line["intercepts"], np.float64),
        lambda decisions: 1 - softmax(decisions, -1)[:, NEITHER],
        pattern,
    )
