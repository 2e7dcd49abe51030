"""Scorer B, ``toxic-comment-classifier``: a bidirectional LSTM over words, in NumPy.

Six labels of the Jigsaw challenge's Wikipedia comments. The package's Keras 3 weights are read with
h5py, its pickled tokenizer as mappings (:mod:`linearize.assets.joblib`); the score is that of the
first label, "toxic".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from linearize import assets, files
from linearize.assets import joblib

LABELS = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")
LENGTH, VOCABULARY = 100, 20_000
_BATCH = 256
_TOKENIZER = "keras.src.legacy.preprocessing.text.Tokenizer"


@dataclass(frozen=True, eq=False)
class CommentScore:
    """Words to numbers, embedded, through an LSTM each way, the maximum over time, two layers.

    Attributes:
        words: a word's number, 1 and more.
        filters: characters that separate words as a blank does.
        weights: arrays by their path in the file of Keras.
    """

    words: Mapping[str, int]
    filters: str
    weights: Mapping[str, np.ndarray]

    def tokens(self, texts: Sequence[str]) -> np.ndarray:
        """(N, 100) int: the last known words of each text, 0 before them."""
        blanks = str.maketrans(dict.fromkeys(self.filters, " "))
        found = np.zeros((len(texts), LENGTH), np.int64)
        for row, text in zip(found, texts, strict=True):
            known = (self.words.get(w, 0) for w in text.lower().translate(blanks).split(" "))
            last = [n for n in known if 0 < n < VOCABULARY][-LENGTH:]
            row[LENGTH - len(last) :] = last
        return found

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """(N, 6) float64, of :data:`LABELS`."""
        rows = self.tokens(texts)
        parts = [self._passed(rows[i : i + _BATCH]) for i in range(0, len(rows), _BATCH)]
        return np.concatenate(parts) if parts else np.zeros((0, len(LABELS)))

    def __call__(self, texts: Sequence[str], /) -> np.ndarray:
        """(N,) float64 in [0, 1]: the probability of "toxic"."""
        return self.probabilities(texts)[:, 0]

    def _passed(self, tokens: np.ndarray) -> np.ndarray:
        w = self.weights
        x = w["embedding/vars/0"][tokens]
        ways = (("forward_layer", x), ("backward_layer", x[:, ::-1]))
        tops = [self._lstm(f"bidirectional/{way}/cell/vars", seen) for way, seen in ways]
        hidden = np.concatenate(tops, -1) @ w["dense/vars/0"] + w["dense/vars/1"]
        return expit(np.maximum(hidden, 0) @ w["dense_1/vars/0"] + w["dense_1/vars/1"])

    def _lstm(self, place: str, x: np.ndarray) -> np.ndarray:
        """The largest output over time, (N, D); gates i, f, g, o."""
        kernel, recurrent, bias = (self.weights[f"{place}/{i}"] for i in range(3))
        state = memory = np.zeros((len(x), len(recurrent)))
        top = np.full_like(state, -np.inf)
        for step in (x @ kernel + bias).swapaxes(0, 1):
            i, f, g, o = np.split(step + state @ recurrent, 4, -1)
            memory = expit(f) * memory + expit(i) * np.tanh(g)
            state = expit(o) * np.tanh(memory)
            top = np.maximum(top, state)
        return top


def load() -> CommentScore:
    """The package's model.

    Raises:
        AssetError: the package cannot be had, or its files are not those that are known.
        ModuleNotFoundError: h5py is missing.
    """
    paths = assets.fetch_all(["comments_weights", "comments_words"])
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the scorer 'comments' reads its weights with h5py: pip install 'linearize[demo]'"
        ) from error
    told = joblib.read(paths["comments_words"], _TOKENIZER).state
    if (told["lower"], told["split"], told["char_level"], told["oov_token"]) != (
        True, " ", False, None,
    ):  # fmt: skip
        raise assets.AssetError(
            "toxic-comment-classifier's tokenizer is another than the known one"
        )
    files.check_regular(paths["comments_weights"])
    weights: dict[str, np.ndarray] = {}
    with h5py.File(paths["comments_weights"], "r") as file:

        def keep(name: str, found: object) -> None:
            if isinstance(found, h5py.Dataset):
                weights[name] = found[()].astype(np.float64)

        file["layers"].visititems(keep)
    return CommentScore(told["word_index"], told["filters"], weights)
