"""Names, colours and marks of the methods: one look for every figure, table and page."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

REGIMES = ("nonlinear", "posthoc", "linear", "exact")

LABELS = {
    "pretrained": "Pre-trained",
    "random_init": "Random initialization",
    "random": "Random vector",
    "gradient_ascent": "Gradient ascent",
    "nonlinear": "Non-linear",
    "posthoc": "Post-hoc linearized",
    "linear": "Linear",
    "exact": "Exact linear",
    "joint": "Joint training",
    "sgd": "SGD",
    "adam": "Adam",
    "ntk": "NTK solution",
    "signgd": "SignGD-kernel solution",
}
"""Methods in the order in which rows and columns are shown."""

INK, MUTED, GRID, PAPER = "#1c2128", "#656d76", "#d8dee4", "#ffffff"

COLOURS = {  # Okabe and Ito's palette, which survives every common colour blindness
    "pretrained": "#8a929b",
    "random_init": "#b7bdc4",
    "random": "#cc79a7",
    "gradient_ascent": "#d55e00",
    "nonlinear": "#0072b2",
    "posthoc": "#e69f00",
    "linear": "#009e73",
    "exact": "#56b4e9",
    "joint": "#4d535a",
}

BORROWED = {"sgd": "nonlinear", "adam": "gradient_ascent", "ntk": "linear", "signgd": "posthoc"}
"""Methods of other pages, which take the colour and the mark of one of these."""

MARKERS = {
    "pretrained": "d",
    "random_init": "p",
    "random": "v",
    "gradient_ascent": "X",
    "nonlinear": "o",
    "posthoc": "^",
    "linear": "s",
    "exact": "P",
    "joint": "D",
}

OWN_COLOURS = (
    "#7b3fa0", "#a6611a", "#c2185b", "#5b7f00", "#7986cb", "#00838f", "#b71c1c", "#8d6e63",
)  # fmt: skip
OWN_MARKERS = ("<", "p", ">", "h", "8")
"""What methods and merges of one's own get in turn; a pair comes again after 40 rows."""

TASK_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")

ERROR_MAP = "viridis_r"
"""Light where the error is low, as in the papers; perceptually uniform."""

PLAIN: Any = {
    "font.family": "DejaVu Sans",
    "text.parse_math": False,  # names of tasks and classes are a user's, "$" and all
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8.5,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "savefig.dpi": 200,
    "svg.fonttype": "path",
    "svg.hashsalt": "linearize",
}
"""matplotlib settings of every figure."""

CSS_NAMES = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper"} | {
    colour: f"c-{method.replace('_', '-')}" for method, colour in COLOURS.items()
}
"""Colours that the page replaces by its own variables, so that figures follow its theme."""


def label(method: str) -> str:
    """A method's name as printed; unknown ones are shown as they are."""
    return LABELS.get(method, method.replace("_", " ").capitalize())


def colour(method: str) -> str:
    """A method's colour, as lower-case ``#rrggbb``."""
    return COLOURS.get(BORROWED.get(method, method), COLOURS["joint"])


def marker(method: str) -> str:
    """A method's mark, as matplotlib names it."""
    return MARKERS.get(BORROWED.get(method, method), "o")


def ordered(methods: set[str] | dict[str, object]) -> list[str]:
    """Methods in the order of :data:`LABELS`, unknown ones last.

    >>> ordered({"linear", "mine", "random"})
    ['random', 'linear', 'mine']
    """
    known = [m for m in LABELS if m in methods]
    return known + sorted(m for m in methods if m not in LABELS)


@dataclass(frozen=True)
class Look:
    """Names, colours and marks of one run's rows, those of one's own among them.

    >>> look = Look({"linear": "Linear", "mine": "Mine", "ties_linear": "TIES, linear"})
    >>> look.ordered({"ties_linear", "mine", "random", "linear"})
    ['random', 'linear', 'mine', 'ties_linear']
    >>> look.label("ties_linear"), look.colour("mine") == look.colour("ties_linear")
    ('TIES, linear', False)
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    """By row, in the order in which rows of one's own are shown."""

    @property
    def own(self) -> list[str]:
        """The rows that :data:`LABELS` does not know."""
        return [row for row in self.labels if row not in LABELS]

    def label(self, row: str) -> str:
        """A row's name as printed."""
        return self.labels.get(row) or label(row)

    def inline(self, row: str) -> str:
        """The same within a sentence: in lower case, but for an abbreviation."""
        name = self.label(row)
        return name if name[:2].isupper() else name.lower()

    def colour(self, row: str) -> str:
        """A row's colour, as lower-case ``#rrggbb``."""
        own = self.own
        return OWN_COLOURS[own.index(row) % len(OWN_COLOURS)] if row in own else colour(row)

    def marker(self, row: str) -> str:
        """A row's mark, as matplotlib names it."""
        own = self.own
        return OWN_MARKERS[own.index(row) % len(OWN_MARKERS)] if row in own else marker(row)

    def ordered(self, rows: Iterable[str]) -> list[str]:
        """Rows as :func:`ordered` has them, one's own in their order, unknown ones last."""
        found = ordered(set(rows))
        own = [row for row in self.own if row in found]
        known = [row for row in found if row in LABELS]
        return known + own + [row for row in found if row not in (*known, *own)]


PLAIN_LOOK = Look()
"""That of a page without rows of one's own."""


def shorten(name: str, width: int = 18) -> str:
    """A name cut in its middle to at most ``width`` characters.

    >>> shorten("traffic-sign-recognition", 12)
    'traffi…ition'
    """
    if len(name) <= width:
        return name
    tail = (width - 1) // 2
    return name[: width - 1 - tail] + "…" + name[len(name) - tail :]


def error_colours(values: NDArray[np.float64], upper: float) -> NDArray[np.uint8]:
    """RGB bytes, shape (..., 3), of errors between 0 and ``upper``."""
    scaled = np.clip(values / upper, 0, 1)
    return colormaps[ERROR_MAP](scaled, bytes=True)[..., :3]
