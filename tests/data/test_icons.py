"""Icons from a package drawn here: licences, styles told by names, and splits by icon set."""

import io
import itertools
import json
import tarfile
from collections import Counter

import numpy as np
import pytest

from linearize.data import TASKS, icons, load_task
from linearize.data.prepare import prepare
from linearize.data.split import assign

pytest.importorskip("resvg_py")

RING = '<path fill="none" stroke="currentColor" stroke-width="{w}" d="M4 4h16v16h-16z"/>'
DISC = '<path fill="currentColor" d="M{x} 4h16v16h-16z"/>'


def icon_set(names, licence="MIT", palette=False, wide=2):
    """Filled squares where the name says so, outlines elsewhere."""
    drawn = {}
    for i, name in enumerate(names):
        filled = bool(set(name.split("-")) & {"fill", "solid"})
        drawn[name] = {"body": DISC.format(x=4 + i % 2) if filled else RING.format(w=wide)}
    info = {"license": {"spdx": licence}} if licence else {}
    return {"info": info | ({"palette": True} if palette else {}), "icons": drawn, "width": 24}


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    both = [f"{object_}{style}" for object_ in icons.OBJECTS[:3] for style in ("", "-fill")]
    sets = {
        **{f"set-{i}": icon_set(both, wide=1 + 0.1 * i) for i in range(12)},
        "gpl": icon_set(both, "GPL-3.0"),
        "silent": icon_set(both, ""),
        "coloured": icon_set(both, palette=True),
        "swapped": {"info": {"license": {"spdx": "MIT"}}, "icons": {
            "bell": {"body": DISC.format(x=4)}, "bell-fill": {"body": RING.format(w=2)},
            "book": {"body": "<g/>"}, "book-fill": {"body": DISC.format(x=4)},
        }, "height": 24, "width": 24},
    }  # fmt: skip
    for each in sets.values():
        each["height"] = 24
    path = tmp_path_factory.mktemp("icons") / "icons.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in {**sets, "../other": {}}.items():
            data = json.dumps(content).encode()
            member = tarfile.TarInfo(f"package/json/{name}.json" if content else "package/x.txt")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return {"iconify": path}


@pytest.fixture(scope="module")
def drawn(paths):
    return {style: icons.read_icons(paths, 32, style) for style in icons.STYLES}


def test_both_styles_have_the_same_rows_of_free_sets(drawn):
    outline, filled = drawn["outline"], drawn["filled"]
    wanted = {f"set-{i}/{name}" for i in range(12) for name in icons.OBJECTS[:3]}
    assert outline.names == filled.names
    assert set(outline.names) == wanted
    assert outline.groups == filled.groups
    np.testing.assert_array_equal(outline.labels, filled.labels)
    for name, label in zip(outline.names, outline.labels, strict=True):
        assert name.endswith(f"/{icons.OBJECTS[label]}")
    for thin, full in zip(outline.images, filled.images, strict=True):
        assert thin.shape == full.shape == (32, 32)
        assert thin[16, 16] == 255  # white inside
        assert full[16, 16] == 0  # currentColor is black
        assert thin.mean() > full.mean()


def test_no_set_lies_in_two_splits_and_both_styles_split_alike(drawn):
    places = {}
    for style, source in drawn.items():
        ready = prepare(source, None)
        none = np.empty((0, 2), np.int32)  # near-duplicates drop rows, and move none
        places[style] = assign(ready.labels, ready.groups, none, ready.given, seed=3)
        by_set = {}
        for name, place in zip(source.names, places[style], strict=True):
            by_set.setdefault(name.split("/")[0], set()).add(place)
        assert all(len(found) == 1 for found in by_set.values())
        assert set().union(*by_set.values()) == {0, 1, 2}
    np.testing.assert_array_equal(places["outline"], places["filled"])


def test_bundles_are_whole_level_and_keep_kin_together():
    sizes = {
        "mdi": 30,
        "ic": 20,
        "ion": 4,
        "famicons": 4,
        **{f"s{i}": 1 + i % 5 for i in range(40)},
    }
    prefixes = [prefix for prefix, size in sizes.items() for _ in range(size)]
    place = {}
    for prefix, bundle in zip(prefixes, icons.bundles(prefixes, count=6), strict=True):
        assert place.setdefault(prefix, bundle) == bundle
    assert place["mdi"] == place["ic"]
    assert place["ion"] == place["famicons"]
    loads = Counter(icons.bundles(prefixes, count=6))
    level = sorted(loads.values())[:-1]  # the largest kin is one bundle
    assert max(level) - min(level) <= 5
    shuffled = dict(zip(prefixes[::-1], icons.bundles(prefixes[::-1], count=6), strict=True))
    assert shuffled == place


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("home", "home-fill"), ("home", "home-fill")),
        (("home-outline", "home"), ("home-outline", "home")),
        (("home-line", "home-solid", "home"), ("home-line", "home-solid")),
        (("baseline-home", "outline-home"), ("outline-home", "baseline-home")),
        (("home-24-regular", "home-16-filled"), ("home-24-regular", "home-16-filled")),
        (("home", "house-fill"), None),
        (("home-fill",), None),
        (("home-fill-line", "home"), None),
        (("home-alt-two-fill", "home-alt-two"), None),
        (("go-home", "go-home-fill"), None),
    ],
)
def test_names_say_object_and_style(names, found):
    for order in itertools.permutations(names):
        pairs = icons.pairs(order)
        wanted = found and dict(zip(icons.STYLES, found, strict=True))
        assert pairs == ({"home": wanted} if wanted else {})


@pytest.mark.network
@pytest.mark.slow
def test_the_packaged_icons():
    tasks = {style: load_task(f"icons_{style}") for style in icons.STYLES}
    for task in tasks.values():
        assert task.classes == icons.OBJECTS
        assert len(task.classes) == TASKS[task.name].classes
        assert min(task.counts.values()) >= 250
        for part in (task.train, task.validation, task.test):
            assert set(part.labels) == set(range(len(task.classes)))
    ink = {style: 255 - task.test.inputs.mean() for style, task in tasks.items()}
    assert ink["filled"] > 1.5 * ink["outline"]
    np.testing.assert_array_equal(tasks["outline"].test.labels, tasks["filled"].test.labels)
