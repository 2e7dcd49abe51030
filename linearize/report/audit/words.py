"""An audit in sentences: which vectors will harm which tasks and where, and what is not decided."""

import numpy as np

from linearize.report.audit.results import Audited, Cell, Results
from linearize.report.table import fixed

_HALF = 0.5
_NAMED = 2
_SAID = 3


def sentence(results: Results) -> str:
    """Of every set of vectors; of several a line each, its label in front."""
    told = [of_one(each, results.tasks) for each in results.audited.values()]
    if len(told) == 1:
        return told[0]
    labels = (each.label for each in results.audited.values())
    return "\n".join(f"{label}: {words}" for label, words in zip(labels, told, strict=True))


def of_one(audited: Audited, tasks: tuple[str, ...]) -> str:
    """The worst cell, where it comes from, and how many others it is not told apart from; the
    worst pair in both directions, each with its layers; the least.
    """
    cells = audited.cells(tasks)
    known = [cell for cell in cells if np.isfinite(cell.value)]
    if not known:
        return "No task's own vector moves its outputs, so nothing can be said in its units."
    worst, least = known[0], known[-1]
    said = [
        f"The vector of {worst.vector} moves the outputs on {worst.task} farthest, {times(worst)} "
        f"as far as their own does, {where(audited, worst)}{_apart(worst, known[1:])}."
    ]
    by_place = {cell.at: cell for cell in known}
    mutual = [
        (cell, by_place[cell.at[::-1]])
        for cell in known
        if cell.at[0] < cell.at[1] and cell.at[::-1] in by_place
    ]
    if mutual:
        one, other = max(mutual, key=lambda pair: min(each.value for each in pair))
        first, second = (one, other) if one.value >= other.value else (other, one)
        said.append(
            f"Of pairs, {first.vector} and {second.vector} disturb each other most: "
            f"{fixed(first.value, 2)} on {first.task}, {where(audited, first)}, and "
            f"{fixed(second.value, 2)} on {second.task}, {where(audited, second)}."
        )
    if len(known) > 2:
        said.append(
            f"Least disturbed is {least.task} by the vector of {least.vector}, {times(least)}."
        )
    return " ".join(said)


def times(cell: Cell) -> str:
    """A movement with its interval."""
    interval = ""
    if np.isfinite(cell.low) and np.isfinite(cell.high):
        interval = f" [{fixed(cell.low, 2)}, {fixed(cell.high, 2)}]"
    return f"{fixed(cell.value, 2)}{interval} times"


def where(audited: Audited, cell: Cell) -> str:
    """The layers that make half of the squared movement, or the largest two, and their share."""
    shares = audited.shares.mean(0)[cell.at]
    if not np.isfinite(shares).all():
        return "in no layer"
    order = [int(i) for i in np.argsort(-shares)]
    count = int(np.searchsorted(np.cumsum(shares[order]), _HALF)) + 1
    named = order[: min(count, _NAMED)]
    names = " and ".join(audited.parts[i] for i in named)
    return f"mostly through {names} ({100 * shares[named].sum():.0f} % of the square)"


def _apart(worst: Cell, others: list[Cell]) -> str:
    """Whether others may be as bad, as far as intervals tell."""
    if not np.isfinite(worst.low):
        return "; without intervals, how sure that order is is not known"
    near = [cell for cell in others if not cell.high < worst.low]
    if not near:
        return "; no other interval reaches it"
    names = ", ".join(f"{cell.vector} on {cell.task}" for cell in near[:_SAID])
    rest = f" and {len(near) - _SAID} more" if len(near) > _SAID else ""
    return f"; not told apart from it: {names}{rest}"
