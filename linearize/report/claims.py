"""The papers' claims that a run touches, and whether they held."""

from collections.abc import Sequence
from dataclasses import dataclass

from linearize.report.schema import key
from linearize.report.table import Cell, Table, freeze

DECIDED = (
    "Decided by the numbers of this run alone: held, or not, where the 95 % t interval over "
    "seeds lies on one side of zero."
)
IN_ONE_SEED = (
    " In one seed: where the 95 % binomial interval of its test examples does (of ξ, of those that "
    "its map looks at), which says nothing of other seeds."
)
"""Where that is said of some."""


@dataclass(frozen=True)
class Verdict:
    """A statement of the papers, whether it held here (None: not decided), and the evidence."""

    text: str = key("claim")
    held: bool | None = None
    evidence: str = ""
    scope: str = ""
    """Of what that was decided, where not of the seeds' population."""


def table(verdicts: Sequence[Verdict], caption: str = DECIDED) -> Table:
    """Each claim, whether it held, and by what; the caption says how that was decided."""
    return Table(
        "claims",
        "Claims of the papers",
        caption + IN_ONE_SEED * any(verdict.scope for verdict in verdicts),
        ("Claim", "Held?", "Evidence"),
        freeze([Cell(v.text), Cell(_held(v)), Cell(v.evidence)] for v in verdicts),
    )


def _held(verdict: Verdict) -> str:
    if verdict.held is None:
        return "not decided"
    return " ".join(filter(None, ["held" if verdict.held else "did not hold", verdict.scope]))
