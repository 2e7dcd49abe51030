"""What pages say of how many examples were looked at, and of heads, is what they were told."""

import pytest

from experiments import told


@pytest.mark.parametrize(
    ("own", "data", "said"),
    [
        (None, None, "all test examples"),
        (200, None, "at most 200 test examples"),
        (None, 100, "at most 100 test examples"),
        (200, 100, "at most 100 test examples"),
        (50, 100, "at most 50 test examples"),
    ],
)
def test_examples_are_all_or_at_most_the_smaller_limit(own, data, said):
    assert told.examples({"test": own, "data": {"test": data}}, "test") == said


@pytest.mark.parametrize(
    ("kind", "normalize", "does"),
    [("prototype", True, True), ("prototype", False, False), ("text", True, True),
     ("probe", True, False)],
)  # fmt: skip
def test_a_probe_never_normalizes(kind, normalize, does):
    assert told.normalizes({"head": {"kind": kind, "normalize": normalize}}) is does
