"""The papers' claims that a run touches, and whether they held."""

from collections.abc import Sequence
from dataclasses import dataclass

from linearize.report.schema import key
from linearize.report.table import Cell, Table, freeze

DECIDED = (
    "Decided by the numbers of this run alone: held, or not, where the 95 % t interval over "
    "seeds lies on one side of zero."
)


@dataclass(frozen=True)
class Verdict:
    """A statement of the papers, whether it held here (None: not decided), and the evidence."""

    text: str = key("claim")
    held: bool | None = None
    evidence: str = ""


def table(verdicts: Sequence[Verdict], caption: str = DECIDED) -> Table:
    """Each claim, whether it held, and by what; the caption says how that was decided."""
    words = {True: "held", False: "did not hold", None: "not decided"}
    return Table(
        "claims",
        "Claims of the papers",
        caption,
        ("Claim", "Held?", "Evidence"),
        freeze([Cell(v.text), Cell(words[v.held]), Cell(v.evidence)] for v in verdicts),
    )
