"""Letters of many font families, drawn with Pillow; whole families stay in one split."""

import io
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from linearize.data.sources import Paths, Source, Tint

WEIGHTS = (300, 400, 700, 900)
STYLES = re.compile(r"(-(Light|Regular|Bold|Black|Italic|BoldItalic)|\])\.ttf$")


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


LETTER_FAMILIES = _words(
    """
    abel alegreya-sans alfa-slab-one anton arvo bitter black-ops-one bungee caveat chakra-petch
    cinzel comfortaa dancing-script eb-garamond exo-2 ibm-plex-sans ibm-plex-serif
    jetbrains-mono josefin-sans kalam kanit lobster literata lora montserrat noto-sans
    noto-serif open-sans orbitron oswald pacifico permanent-marker play playfair-display poppins
    press-start-2p pt-serif roboto rubik russo-one source-sans-3 space-mono unbounded vollkorn
    zilla-slab
    """
)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
BLACK_ON_WHITE: Tint = ((255, 255, 255), (0, 0, 0))
WHITE_ON_BLUE: Tint = ((20, 40, 110), (255, 255, 255))

# Letters that another of these scripts draws alike (A, O, Greek and Cyrillic gamma, ...) are out.
SCRIPTS = {
    "Arabic": "بتثجحخدذرزسشصضطظعغفقكلمنهي",
    "Cyrillic": "бвджзийлцчшщыэюяБДЖЗИЙЦЧШЩЫЭЮЯ",
    "Devanagari": "कखगघचछजटठडढतथदधनपफबभमयरलवशषसह",
    "Greek": "βγδζθλμξπσφψωΓΔΘΛΞΠΣΦΨΩ",
    "Hebrew": "אבגדהזחטכלמנסעפצקרשת",
    "Latin": "abdefghjklmqrstwyzDFGJLNQRSUVWZ",
    "Thai": "กขคงจฉชซณดตถทธนบปผพฟมยรลวสหอ",
}
SCRIPT_FAMILIES: dict[str, tuple[str, ...]] = {
    "Arabic": _words(
        """
        almarai amiri cairo ibm-plex-sans-arabic noto-kufi-arabic noto-sans-arabic rubik
        tajawal
        """
    ),
    "Cyrillic": _words(
        """
        bitter comfortaa exo-2 ibm-plex-serif lora montserrat noto-serif oswald play
        pt-serif russo-one unbounded
        """
    ),
    "Devanagari": _words("baloo-2 hind kalam mukta noto-sans-devanagari poppins"),
    "Greek": _words(
        """
        alegreya-sans comfortaa eb-garamond ibm-plex-sans jetbrains-mono literata noto-serif
        open-sans play press-start-2p roboto source-sans-3 vollkorn
        """
    ),
    "Hebrew": _words("assistant frank-ruhl-libre heebo open-sans rubik"),
    "Latin": _words(
        """
        abel anton arvo bitter cinzel exo-2 josefin-sans kanit literata orbitron poppins
        roboto space-mono zilla-slab
        """
    ),
    "Thai": _words("chakra-petch kanit noto-sans-thai prompt sarabun"),
}


def read_letters(paths: Paths, side: int) -> Source:
    """Capital letters A to Z, black on white; the class is the letter."""
    alphabet = {letter: letter for letter in LETTERS}
    return _read(dict.fromkeys(LETTER_FAMILIES, alphabet), paths, side, BLACK_ON_WHITE)


def read_scripts(paths: Paths, side: int) -> Source:
    """Letters of seven scripts, white on blue; the class is the script."""
    chosen: dict[str, dict[str, str]] = {}
    for script, families in SCRIPT_FAMILIES.items():
        for family in families:
            chosen.setdefault(family, {}).update(dict.fromkeys(SCRIPTS[script], script))
    return _read(chosen, paths, side, WHITE_ON_BLUE)


def _read(chosen: Mapping[str, Mapping[str, str]], paths: Paths, side: int, tint: Tint) -> Source:
    """Each family's letters, in each of its faces; ``chosen`` maps family to letter to class."""
    images, labels, groups, names = [], [], [], []
    for family, letters in chosen.items():
        for face, (font, covered) in enumerate(faces(paths[f"font/{family}"], side)):
            for letter, label in letters.items():
                if ord(letter) in covered:
                    images.append(draw_letter(letter, font, side))
                    labels.append(label)
                    groups.append(family)
                    names.append(f"{family}/{face}/{letter}")
    classes = tuple(sorted(set(labels)))
    numbers = np.array([classes.index(label) for label in labels], np.int32)
    return Source(images, numbers, classes, groups=groups, names=names, tint=tint)


def faces(wheel: Path, side: int) -> Iterator[tuple[ImageFont.FreeTypeFont, set[int]]]:
    """The faces of a family (weights and italics, at most six) and the characters they cover."""
    from fontTools.ttLib import TTFont

    size = round(0.7 * side)
    with zipfile.ZipFile(wheel) as archive:
        files = sorted(f for f in archive.namelist() if STYLES.search(f))
        for file in files or sorted(f for f in archive.namelist() if f.endswith(".ttf"))[:3]:
            content = archive.read(file)
            covered = set(TTFont(io.BytesIO(content), lazy=True).getBestCmap())
            font = ImageFont.truetype(io.BytesIO(content), size)
            try:
                axes = font.get_variation_axes()
            except OSError:
                yield font, covered
                continue
            for weight in _weights(axes):
                font = ImageFont.truetype(io.BytesIO(content), size)
                font.set_variation_by_axes(_at_weight(axes, weight))
                yield font, covered


def _is_weight(axis: Mapping) -> bool:
    name = axis["name"]
    return (name.decode() if isinstance(name, bytes) else str(name)).lower() == "weight"


def _weights(axes: Sequence[Mapping]) -> list[int]:
    weight = next((a for a in axes if _is_weight(a)), None)
    if weight is None:
        return [0]
    low, high = weight["minimum"] or 0, weight["maximum"] or 0
    return sorted({int(min(max(w, low), high)) for w in WEIGHTS})[-3:]


def _at_weight(axes: Sequence[Mapping], weight: int) -> list[float]:
    return [weight if _is_weight(a) else float(a["default"] or 0) for a in axes]


def draw_letter(letter: str, font: ImageFont.FreeTypeFont, side: int) -> np.ndarray:
    """(side, side) uint8, 255 where there is ink: the glyph, centred, shrunk if too large."""
    left, top, right, bottom = font.getbbox(letter)
    extent = max(right - left, bottom - top)
    if extent > 0.94 * side:
        large = draw_letter(letter, font, round(extent * 1.06) + 1)
        return np.asarray(Image.fromarray(large).resize((side, side), Image.Resampling.BOX))
    image = Image.new("L", (side, side))
    place = (side - (right + left)) / 2, (side - (bottom + top)) / 2
    ImageDraw.Draw(image).text(place, letter, font=font, fill=255)
    return np.asarray(image)
