"""Span corruption: what is taken out is in the answer, and the shares are T5's."""

import numpy as np
import pytest

from linearize.data.records import DataError
from linearize.data.text.spans import corrupted
from linearize.objectives import CausalLM

END, START, SENTINELS = 1, 0, range(99, 89, -1)
ROWS = [np.arange(10, 10 + n) for n in (2, 40, 7, 75)]


def together(tokens, labels):
    """The text again: each sentinel's place filled with what the answer says of it."""
    said, found = {}, []
    for token in labels:
        if token in SENTINELS:
            now = said.setdefault(token, [])
        elif token != END:
            now.append(token)
    for token in tokens:
        found += said.get(token, [token])
    return found


@pytest.mark.parametrize(("density", "span"), [(0.15, 3.0), (0.5, 1.0)])
def test_text_and_answer_make_the_document(density, span):
    length = 20 if density == 0.5 else 41
    made = corrupted(ROWS, length, SENTINELS, end=END, density=density, span=span)
    tokens, mask, answer = made.inputs
    labels = np.asarray(made.targets["labels"])
    pieces = [row[i : i + length - 1] for row in ROWS for i in range(0, len(row), length - 1)]
    pieces = [piece for piece in pieces if len(piece) > 1]
    assert len(made) == len(pieces)
    whole = corrupted([np.arange(10, 9 + length)], length, SENTINELS, end=END, density=density,
                      span=span)  # fmt: skip
    assert labels.shape[1] == (np.asarray(whole.targets["labels"]) >= 0).sum()
    for piece, x, m, y, z in zip(pieces, tokens, mask, answer, labels, strict=True):
        real, said = x[m].tolist(), z[z >= 0].tolist()
        assert together(real[:-1], said) == piece.tolist()
        assert (real[-1], said[-1], y[0]) == (END, END, START)
        np.testing.assert_array_equal(y[1 : len(said)], said[:-1])
        taken = len(set(said) - {END, *SENTINELS})
        assert taken == min(max(round(len(piece) * density), 1), len(piece) - 1)
        spans = len(set(said) & set(SENTINELS))
        assert spans == max(min(round(taken / span), len(piece) - taken), 1)
        assert [t for t in real if t in SENTINELS] == list(SENTINELS)[:spans]
        assert not x[~m].any()


def test_spans_are_as_likely_everywhere_behind_the_first_kept_token():
    """Of one span of one token among n, the cut is where it must be; of many, uniform."""
    made = corrupted([np.arange(10, 16)] * 4000, 8, SENTINELS, end=END, density=0.5, span=1.5)
    kept = np.asarray(made.inputs[0])
    first = (kept[:, :4] == SENTINELS[0]).argmax(1)  # of 3 kept tokens 1 or 2 stand before
    assert set(first.tolist()) == {1, 2}
    assert abs((first == 1).mean() - 0.5) < 4 * 0.5 / np.sqrt(4000)


def test_a_seed_draws_anew_and_labels_are_what_a_decoder_is_asked():
    one, again, other = (
        corrupted(ROWS, 41, SENTINELS, end=END, seed=seed).inputs[0] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    made = corrupted(ROWS, 41, SENTINELS, end=END)
    CausalLM().check(np.zeros((*made.targets["labels"].shape, 100)), made.targets)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": [np.array([5])]}, "no document has two tokens"),
        ({"rows": [np.array([5, 95])]}, "document 0 holds the token 95, which is a sentinel"),
        ({"sentinels": [99]}, "has 2 spans and there are 1 sentinels"),
        ({"density": 1.0}, "density=1.0"),
        ({"span": 0.5}, "span=0.5"),
        ({"length": 2}, "length"),
        ({"seed": -1}, "seed=-1; expected an integer, 0 or more"),
        ({"sentinels": [99, 98, 99]}, "expected tokens, each once"),
        ({"sentinels": [99, END]}, "neither start nor end"),
    ],
)
def test_what_cannot_be_taken_apart_is_refused(change, message):
    given = {"rows": ROWS, "length": 41, "sentinels": SENTINELS, "end": END} | change
    with pytest.raises((DataError, ValueError), match=message):
        corrupted(**given)
