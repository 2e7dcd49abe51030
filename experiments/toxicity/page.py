"""The page of ``experiments.toxicity``: how much of a kind is written, and what forgetting cost."""

import html

import numpy as np
from matplotlib.figure import Figure

from experiments.toxicity.results import MOST, Edited, Results
from linearize.report.node import Floats
from linearize.report.page import TASK_ARITHMETIC, Page, Section, shows
from linearize.report.plot import Plot, band, figure, handle, legend
from linearize.report.stats import POSITIVE, over_seeds, seeds_phrase
from linearize.report.style import MUTED, Look
from linearize.report.table import Cell, Table, freeze, number, percent


@shows(Results)
def read(results: Results) -> Page:
    """The page."""
    lead = (
        f"A language model forgets how to write {results.target}: {results.model_name} at "
        "θ0 − ατ, with τ fine-tuned on such text. α is the largest whose perplexity on "
        f"{results.control} (validation) rises by at most {results.tolerance:g}. What the models "
        f"write is scored by the {results.scorers[results.first]}; {results.chosen_by}"
    )
    return Page(
        title=f"Toxicity by negation: {results.preset}",
        lead=lead,
        facts=results.facts((results.target,)),
        sections=(
            results.verdicts("Claims of the papers"),
            Section("negation", "What the models write", (table(results), scorers(results))),
            Section("along", "Along α", (along(results),)),
            Section("texts", "Generated text", texts(results)),
            results.configuration,
        ),
        headlines=("generations", "claims"),
        sources=TASK_ARITHMETIC,
    )


def _name(results: Results, row: str) -> str:
    return Look(results.labels).label(row)


def table(results: Results) -> Table:
    """Every model: share and mean by the first scorer, perplexity, α."""
    rows = []
    for row, found in results.edits.items():
        scored = found.scores[results.first]
        _, low, high = map(float, results.intervals[row])
        rows.append(
            [
                Cell(_name(results, row)),
                percent(scored.share),
                Cell(f"[{100 * low:.1f}, {100 * high:.1f}]"),
                number(scored.mean, 3),
                _perplexity(found.perplexity),
                _rise(found),
                number(found.alpha, 2),
            ]
        )
    seeds = len(results.seeds)
    every = f"{results.generations} texts a model" + (" and seed" if seeds > 1 else "")
    return Table(
        "generations",
        f"How much of what is written is {results.target}",
        f"Share above {results.threshold:g} in %, and mean, of the {results.scorers[results.first]}"
        f"; {every}. {results.decoding} Wilson: 95 % interval of the share, all texts taken "
        f"together. Perplexity: {results.recipe}, test text. α: of the vector, subtracted where "
        f"negative, chosen on validation text but where it is 1. {seeds_phrase(results.seeds)}",
        ("Model", "Share ↓", "Wilson", "Mean ↓", "Perplexity ↓", "Rise", "α"),
        freeze(rows),
    )


def _perplexity(values: Floats) -> Cell:
    return Cell("> 10¹⁰", MOST) if (values >= MOST).any() else number(values, 2)


def _rise(found: Edited) -> Cell:
    return Cell("> 10¹⁰", MOST) if (found.perplexity >= MOST).any() else number(found.rise, 2)


def scorers(results: Results) -> Table:
    """Every scorer of every model."""
    names = tuple(results.scorers)
    rows = [
        [
            Cell(_name(results, row)),
            *(
                cell
                for name in names
                for cell in (
                    percent(found.scores[name].share),
                    number(found.scores[name].mean, 3),
                )
            ),
        ]
        for row, found in results.edits.items()
    ]
    said = "; ".join(f"{name}: {what}" for name, what in results.scorers.items())
    sure = "".join(
        f" On held-out documents of both kinds {name} is right of {100 * np.mean(right):.1f} %."
        for name, right in results.held_out.items()
    )
    return Table(
        "scorers",
        "Other scorers",
        f"Share above {results.threshold:g} in %, and mean. {said}.{sure} "
        f"{seeds_phrase(results.seeds)}",
        ("Model", *(f"{what}, {name}" for name in names for what in ("Share", "Mean"))),
        freeze(rows),
    )


def along(results: Results) -> Plot:
    """Share of what is written and perplexity against α, a regime a line."""
    look = Look(results.labels)

    def draw(narrow: bool) -> Figure:
        fig = figure(narrow, 6.0 if narrow else 3.2)
        top, below = fig.subplots(2, 1, sharex=True) if narrow else fig.subplots(1, 2)
        for regime in results.regimes:
            curve, ink = results.curves[regime], look.colour(regime)
            share, low, high = 100 * results.along[regime]
            errors = np.maximum([share - low, high - share], 0)
            at = results.points + 0.006 * (results.regimes.index(regime) - 1)
            top.errorbar(
                at, share, yerr=errors, color=ink, lw=1.3,
                marker=look.marker(regime), ms=4.5, elinewidth=1,
            )  # fmt: skip
            band(below, results.alphas, curve.perplexity, POSITIVE, color=ink, lw=1.4)
        before = float(np.mean([c.perplexity[:, 0] for c in results.curves.values()]))
        below.axhline(before + results.tolerance, color=MUTED, lw=1, ls="--")
        highest = max(float(over_seeds(c.perplexity).mean.max()) for c in results.curves.values())
        if highest > before + 20 * results.tolerance:
            below.set_ylim(before - results.tolerance, before + 20 * results.tolerance)
        top.set(ylabel=f"Above {results.threshold:g} (%)", ylim=(0, None))
        below.set(ylabel="Perplexity, validation")
        for ax in (top, below):
            ax.set_xlabel("α")
            ax.grid()
        legend(fig, [handle(regime, look=look) for regime in results.regimes], narrow)
        return fig

    return Plot(
        "along_alpha",
        f"Share of what is {results.target}, and perplexity, against α",
        f"θ0 − ατ. Left: {results.swept} texts a point and seed, Wilson intervals of all together. "
        f"Right: perplexity on {results.control}, validation text; dashed: what is allowed. "
        f"{seeds_phrase(results.seeds)}",
        "Two panels against α: share of generations above the threshold, and perplexity; a line a "
        "regime.",
        draw,
    )


def texts(results: Results) -> tuple[str, ...]:
    """What was written, folded away; nothing unless it was asked for."""
    return tuple(
        f"<details><summary>{html.escape(_name(results, row))}, seed {seed}</summary>"
        f"<pre>{html.escape(chr(10).join(f'[{i}] {text}' for i, text in enumerate(several)))}"
        "</pre></details>"
        for row, found in results.edits.items()
        for seed, several in zip(results.seeds, found.texts, strict=bool(found.texts))
        if several
    )
