"""The papers' claims that a run touches, and whether they held."""

from collections.abc import Sequence
from dataclasses import dataclass

from linearize.report.node import Node, ResultsError
from linearize.report.page import Section
from linearize.report.table import Cell, Table, freeze

DECIDED = (
    "Decided by the numbers of this run alone: held, or not, where the 95 % t interval over "
    "seeds lies on one side of zero."
)


@dataclass(frozen=True)
class Claim:
    """A statement of the papers, whether it held here (None: not decided), and the evidence."""

    text: str
    held: bool | None
    evidence: str


def read(node: Node) -> tuple[Claim, ...]:
    """The ``claims`` of a result file.

    Raises:
        ResultsError: one that is no claim.
    """
    return tuple(_claim(child) for child in node.children("claims"))


def _claim(node: Node) -> Claim:
    held = node.get("held", default=None)
    if held is not None and not isinstance(held, bool):
        raise ResultsError(f"{node.path}/held is {held!r}; expected true, false or null")
    return Claim(str(node.get("claim")), held, str(node.get("evidence", default="")))


def claims_table(claims: Sequence[Claim], caption: str = DECIDED) -> Table:
    """Each claim, whether it held, and by what; the caption says how that was decided."""
    verdict = {True: "held", False: "did not hold", None: "not decided"}
    return Table(
        "claims",
        "Claims of the papers",
        caption,
        ("Claim", "Held?", "Evidence"),
        freeze([Cell(c.text), Cell(verdict[c.held]), Cell(c.evidence)] for c in claims),
    )


def claims_section(
    node: Node, title: str = "Claims of the papers", caption: str = DECIDED
) -> Section:
    """The section of a page that shows the ``claims`` of a result file.

    Raises:
        ResultsError: one that is no claim.
    """
    return Section("claims", title, (claims_table(read(node), caption),))
