"""Names, colours and marks of the methods: one look for every figure, table and page."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple


class Face(NamedTuple):
    """How a row that the library knows is called and drawn."""

    label: str
    colour: str
    """As lower-case ``#rrggbb``."""
    marker: str
    """As matplotlib names it."""
    inline: str = ""
    """The label within a sentence, where that is another."""
    regime: str = ""
    """Of the papers' regimes: which model it is of, within a sentence."""
    tangent: bool = False
    """Whether it is a linearized model."""

    @property
    def fine_tuned(self) -> bool:
        """Whether it has task vectors that are added and negated."""
        return bool(self.regime) or self.tangent


INK, MUTED, GRID, PAPER = "#1c2128", "#656d76", "#d8dee4", "#ffffff"

FACES = {
    "pretrained": Face("Pre-trained", "#8a929b", "d", "pre-trained"),
    "random_init": Face("Random initialization", "#b7bdc4", "p", "random initialization"),
    "random": Face("Random vector", "#cc79a7", "v", "random vector"),
    "gradient_ascent": Face("Gradient ascent", "#d55e00", "X", "gradient ascent"),
    "nonlinear": Face("Non-linear", "#0072b2", "o", "non-linear", "the model itself"),
    "posthoc": Face(
        "Post-hoc linearized", "#e69f00", "^", "post-hoc linearized",
        "its linearization after the fact", tangent=True,
    ),
    "linear": Face(
        "Linear", "#009e73", "s", "linear", "its linearization from the start", tangent=True
    ),
    "exact": Face("Exact linear", "#56b4e9", "P", "exact linear", tangent=True),
    "joint": Face("Joint training", "#4d535a", "D", "joint training"),
    "sgd": Face("SGD", "#0072b2", "o"),
    "adam": Face("Adam", "#d55e00", "X"),
    "ntk": Face("NTK solution", "#009e73", "s"),
    "signgd": Face("SignGD-kernel solution", "#e69f00", "^"),
}  # fmt: skip
"""Rows by key, in the order in which they are shown. Colours are Okabe and Ito's, which survive
every common colour blindness; rows of different pages may share theirs."""

UNKNOWN = Face("", "#4d535a", "o")
"""What a row is drawn as that no table knows."""

OWN_COLOURS = (
    "#7b3fa0", "#a6611a", "#c2185b", "#5b7f00", "#7986cb", "#00838f", "#b71c1c", "#8d6e63",
)  # fmt: skip
OWN_MARKERS = ("<", "p", ">", "h", "8")
"""What methods and merges of one's own get in turn; a pair comes again after 40 rows."""

TASK_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")

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

CSS_NAMES = {
    **{face.colour: f"c-{row.replace('_', '-')}" for row, face in reversed(FACES.items())},
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    PAPER: "paper",
}
"""Colours that the page replaces by its own variables, so that figures follow its theme."""


def label(row: str) -> str:
    """A row's name as printed; an unknown one's is its key, begun as a sentence where plain."""
    words = row.replace("_", " ")
    return FACES[row].label if row in FACES else words.capitalize() if words.islower() else words


def colour(row: str) -> str:
    """A row's colour, as lower-case ``#rrggbb``."""
    return FACES.get(row, UNKNOWN).colour


def marker(row: str) -> str:
    """A row's mark, as matplotlib names it."""
    return FACES.get(row, UNKNOWN).marker


def ordered(rows: Iterable[str]) -> list[str]:
    """Rows in the order of :data:`FACES`, unknown ones last.

    >>> ordered({"linear", "mine", "random"})
    ['random', 'linear', 'mine']
    """
    found = set(rows)
    return [row for row in FACES if row in found] + sorted(found - set(FACES))


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

    @cached_property
    def own(self) -> list[str]:
        """The rows that :data:`FACES` does not know."""
        return [row for row in self.labels if row not in FACES]

    def label(self, row: str) -> str:
        """A row's name as printed."""
        return self.labels.get(row) or label(row)

    def inline(self, row: str) -> str:
        """The same within a sentence: what the library named in lower case, all else as given.

        >>> look = Look({"linear": "Linear", "lora": "L-LoRA"})
        >>> look.inline("linear"), look.inline("lora")
        ('linear', 'L-LoRA')
        """
        face, name = FACES.get(row, UNKNOWN), self.label(row)
        return (name == face.label and face.inline) or name

    def joined(self, merge: str, row: str) -> str:
        """What a merge of a row's vectors is called.

        >>> Look().joined("TIES", "posthoc"), Look({"tau_jp": "τJp"}).joined("TIES", "tau_jp")
        ('TIES, post-hoc linearized', 'TIES, τJp')
        """
        return f"{merge}, {self.inline(row)}"

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
        places = {row: place for place, row in enumerate((*FACES, *self.own))}
        return sorted(rows, key=lambda row: (places.get(row, len(places)), row))


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
