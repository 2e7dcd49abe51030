"""Icons: objects as icon sets draw them, outlined and filled; a set's drawings stay together."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from linearize.data.sources import Paths, Source, render_svgs, tar_files

# fmt: off
OBJECTS = (
    "bell", "book", "bookmark", "calendar", "camera", "clipboard", "clock", "cloud", "eye", "file",
    "flag", "folder", "heart", "home", "lock", "phone", "shield", "star", "tag", "user",
)
# fmt: on
"""The classes: first words of icons' names, which many sets draw in both styles."""
LICENCES = frozenset({"Apache-2.0", "CC0-1.0", "ISC", "MIT", "OFL-1.1"})
"""SPDX names; sets of any other licence, or of none, are passed over."""
STYLES: Mapping[str, frozenset[str]] = {
    "outline": frozenset({"outline", "outlined", "line", "linear", "regular", "stroke"}),
    "filled": frozenset({"filled", "fill", "solid", "baseline"}),
}
"""Words of icons' names that say the style. An icon without one has the style that the set's other
drawing of it has not."""
KIN: Mapping[str, str] = {
    **dict.fromkeys(("material-symbols-light", "ic", "mdi", "line-md"), "material-symbols"),
    "famicons": "ion",
}
"""Sets that redraw another one, whose group theirs is."""
_SIZE = re.compile(r"\d+(px)?")
_PLAIN = "plain"


def read_icons(paths: Paths, side: int, style: str) -> Source:
    """Icons that a set draws in both styles, in one of them; the class is the object.

    Both styles have the same rows in the same order, so they are split alike: test shows sets that
    were not trained on in either. A pair whose filled drawing has hardly more ink than the other is
    left out: its names mean something else.
    """
    both: dict[str, list[str]] = {style: [] for style in STYLES}
    prefixes, names = [], []
    for prefix, content in tar_files(paths["iconify"], r"package/json/(.+)\.json"):
        icons = json.loads(content)
        if icons["info"].get("palette") or licence(icons) not in LICENCES:
            continue
        for name, drawings in pairs(icons["icons"]).items():
            for each, drawing in drawings.items():
                both[each].append(svg(icons, drawing))
            prefixes.append(prefix)
            names.append(name)
    outline, filled = (ink(both[each]) for each in ("outline", "filled"))
    rows = np.flatnonzero((outline > 0.02) & (filled > 1.2 * outline))
    drawn = render_svgs([both[style][row] for row in rows], side)
    return Source(
        [x[..., 0] for x in drawn if x is not None],
        np.array([OBJECTS.index(names[row].split("-")[0]) for row in rows], np.int32),
        OBJECTS,
        groups=bundles([prefixes[row] for row in rows]),
        names=[f"{prefixes[row]}/{names[row]}" for row in rows],
    )


def ink(texts: Sequence[str]) -> np.ndarray:
    """(N,) the black share of drawings, whatever size they are wanted in."""
    drawn = render_svgs(texts, side=32)
    return np.array([1 - x.mean() / 255 for x in drawn if x is not None])


def bundles(prefixes: Sequence[str], count: int = 16) -> list[str]:
    """The sets in so many groups, about equally large, that shares of the whole can be cut off."""
    sizes = Counter(KIN.get(prefix, prefix) for prefix in prefixes)
    filled, place = [0] * count, {}
    for kin, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        least = filled.index(min(filled))
        filled[least] += size
        place[kin] = f"sets {least}"
    return [place[KIN.get(prefix, prefix)] for prefix in prefixes]


def licence(icons: Mapping[str, Any]) -> str:
    """A set's licence by its SPDX name; empty where it states none."""
    return str(icons["info"].get("license", {}).get("spdx", ""))


def pairs(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Icons of a set that show an object in both styles: by name without style, then by style.

    >>> pairs(["home", "home-fill", "bell-line", "bell-off", "star", "star-24-outline"])
    {'home': {'outline': 'home', 'filled': 'home-fill'}, \
'star': {'outline': 'star-24-outline', 'filled': 'star'}}
    """
    drawn: dict[str, dict[str, str]] = defaultdict(dict)
    for name in names:
        words = [word for word in name.split("-") if not _SIZE.fullmatch(word)]
        said = [style for style, of_style in STYLES.items() if of_style & set(words)]
        what = [word for word in words if not any(word in s for s in STYLES.values())]
        if len(said) < 2 and len(what) in (1, 2) and what[0] in OBJECTS:
            drawn["-".join(what)][said[0] if said else _PLAIN] = name
    both = {
        name: {style: by_style.get(style, by_style.get(_PLAIN, "")) for style in STYLES}
        for name, by_style in drawn.items()
        if len(by_style) > 1
    }
    return dict(sorted(both.items()))


def svg(icons: Mapping[str, Any], name: str) -> str:
    """An icon of a set as a whole drawing."""
    icon = icons["icons"][name]
    left, top, width, height = (
        icon.get(key, icons.get(key, default))
        for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}" color="#000">{icon["body"]}</svg>'
    )
