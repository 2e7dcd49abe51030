"""Logistic scores of TF-IDF weighted words, as scikit-learn defines them, in NumPy.

A text's words, in lower case, are counted, weighted by their inverse document frequency, and the
vector is divided by its Euclidean norm; words that are not in the vocabulary count for nothing.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import expit, log_expit

WORD = r"(?u)\b\w\w+\b"
"""scikit-learn's: two letters, digits or underscores and more."""

Link = Callable[[np.ndarray], np.ndarray]
"""Decision values (N, K) to scores (N,)."""


def first_sigmoid(decisions: np.ndarray) -> np.ndarray:
    """Of the one decision that there is."""
    return expit(decisions[:, 0])


@dataclass(frozen=True, eq=False)
class WordScore:
    """``link(x @ kernel + bias)`` of a text's words x.

    Attributes:
        vocabulary: column of each word.
        idf: (W,) float64, weight of each column.
        kernel: (W, K) float64.
        bias: (K,) float64.
        link: decisions to scores.
        word: what a word is, a regular expression.
    """

    vocabulary: Mapping[str, int]
    idf: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray
    link: Link = first_sigmoid
    word: str = WORD

    def __post_init__(self) -> None:
        width = len(self.idf)
        columns = self.vocabulary.values()
        shapes = self.kernel.shape == (width, len(self.bias)) and self.idf.shape == (width,)
        if not shapes or min(columns, default=0) < 0 or max(columns, default=-1) >= width:
            raise ValueError(
                f"{len(self.vocabulary)} words, idf {self.idf.shape}, kernel {self.kernel.shape} "
                f"and bias {self.bias.shape}; expected columns below W, (W,), (W, K) and (K,)"
            )

    def features(self, texts: Sequence[str]) -> sparse.csr_array:
        """TF-IDF of the texts, (N, W) float64, rows of norm 1, or 0 where no word is known."""
        return _weighted(counted(texts, self.vocabulary, len(self.idf), self.word), self.idf)

    def decisions(self, texts: Sequence[str]) -> np.ndarray:
        """(N, K) float64."""
        return self.features(texts) @ self.kernel + self.bias

    def __call__(self, texts: Sequence[str], /) -> np.ndarray:
        """(N,) float64 in [0, 1]."""
        return self.link(self.decisions(texts))


def _weighted(counts: sparse.csr_array, idf: np.ndarray) -> sparse.csr_array:
    weighted = counts @ sparse.diags_array(idf)
    norms = np.sqrt(np.asarray(weighted.multiply(weighted).sum(1)).ravel())
    return sparse.diags_array(1 / np.where(norms > 0, norms, 1)) @ weighted


def words(text: str, word: str = WORD) -> list[str]:
    """A text's words in lower case.

    >>> words("The treaty, signed in 1648.")
    ['the', 'treaty', 'signed', 'in', '1648']
    """
    return re.findall(word, text.lower())


def counted(
    texts: Sequence[str], vocabulary: Mapping[str, int], width: int, word: str = WORD
) -> sparse.csr_array:
    """How often each word of a vocabulary occurs, (N, width) float64."""
    found = [Counter(w for w in words(text, word) if w in vocabulary) for text in texts]
    rows = np.repeat(np.arange(len(texts)), [len(each) for each in found])
    columns = [vocabulary[w] for each in found for w in each]
    values = np.array([n for each in found for n in each.values()], np.float64)
    return sparse.csr_array((values, (rows, columns)), shape=(len(texts), width))


def fit(
    texts: Sequence[str], positive: Iterable[bool], *, l2: float = 1e-4, in_texts: int = 3
) -> WordScore:
    """The logistic score of least mean cross-entropy + (l2 / 2) ‖kernel‖².

    Both kinds weigh the same, however many texts there are of each. The optimum is unique; L-BFGS
    stops where the gradient's norm is below 1e-6.

    Args:
        texts: N of them.
        positive: (N,) whether each is of the kind.
        l2: > 0.
        in_texts: a word is known that occurs in so many of them.

    Raises:
        ValueError: no text of one kind, or no word that occurs often enough.
    """
    y = np.asarray(list(positive), bool)
    if len(y) != len(texts) or not y.any() or y.all():
        raise ValueError(
            f"{len(texts)} texts, of which {int(y.sum())} of {len(y)} are positive; give some of "
            "either kind"
        )
    if not l2 > 0:
        raise ValueError(f"l2={l2}; expected a positive number")
    frequency = Counter(w for text in texts for w in set(words(text)))
    known = sorted(w for w, n in frequency.items() if n >= in_texts)
    if not known:
        raise ValueError(f"no word occurs in {in_texts} of the {len(texts)} texts; give more")
    vocabulary = {w: column for column, w in enumerate(known)}
    idf = np.log((1 + len(texts)) / (1 + np.array([frequency[w] for w in known]))) + 1
    x = _weighted(counted(texts, vocabulary, len(known)), idf)
    sign = np.where(y, 1.0, -1.0)
    share = np.where(y, 0.5 / y.sum(), 0.5 / (~y).sum())

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (x @ theta[:-1] + theta[-1])
        pull = -share * sign * expit(-margin)
        loss = -share @ log_expit(margin) + l2 / 2 * theta[:-1] @ theta[:-1]
        return loss, np.append(x.T @ pull + l2 * theta[:-1], pull.sum())

    start = np.zeros(len(known) + 1)
    done = minimize(
        objective, start, jac=True, method="L-BFGS-B",
        options={"gtol": 1e-7, "ftol": 0, "maxiter": 5000, "maxfun": 10000},
    )  # fmt: skip
    return WordScore(vocabulary, idf, done.x[:-1, None], done.x[-1:])
