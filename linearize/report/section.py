"""Parts of a page, and what every page says of its run; no figure is drawn here."""

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from linearize.report.table import Table

if TYPE_CHECKING:
    from linearize.report.plot import Plot  # which brings matplotlib


@dataclass(frozen=True)
class Section:
    """A part of a page; one without parts is left out."""

    key: str
    title: str
    parts: "tuple[Plot | Table | str, ...]"
    """Figures, tables, and HTML."""


def facts(
    preset: str,
    model: Mapping[str, Any],
    tasks: Sequence[str],
    seeds: Sequence[int],
    seconds: float | None,
) -> tuple[tuple[str, str], ...]:
    """What every run says of itself below the lead; what is not known is left out."""
    known = [("Preset", preset), ("Model", model.get("name"))]
    if model.get("parameters") is not None:
        known.append(("Parameters", f"{int(model['parameters']):,}"))
    if model.get("image_size") is not None:
        known.append(("Image size", f"{model['image_size']} px"))
    known += [("Tasks", ", ".join(tasks) or None), ("Seeds", ", ".join(map(str, seeds)))]
    if seconds is not None:
        known.append(("Time", duration(seconds)))
    return tuple((name, str(value)) for name, value in known if value is not None)


def duration(seconds: float) -> str:
    """A span of time in its two largest units.

    >>> duration(251.3), duration(7384), duration(8.4)
    ('4 min 11 s', '2 h 3 min', '8 s')
    """
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def definitions(words: Mapping[str, str]) -> str:
    """Words and what they mean.

    >>> definitions({"τ": "a task vector"})
    '<dl class="words"><dt>τ</dt><dd>a task vector</dd></dl>'
    """
    found = (f"<dt>{html.escape(w)}</dt><dd>{html.escape(text)}</dd>" for w, text in words.items())
    return f'<dl class="words">{"".join(found)}</dl>'


def configuration(blocks: Mapping[str, object]) -> str:
    """Folded blocks of JSON, by title; empty ones are left out."""

    def block(title: str, value: object) -> str:
        text = html.escape(json.dumps(value, indent=2, ensure_ascii=False, default=str))
        return f"<details><summary>{title}</summary><pre>{text}</pre></details>"

    return "".join(block(title, value) for title, value in blocks.items() if value)
