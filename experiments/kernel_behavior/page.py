"""The page of ``experiments.kernel_behavior``: the kernel along a fine-tuning."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from linearize.report import claims
from linearize.report.node import Floats, Node
from linearize.report.page import Page, Section, configuration_of, facts_of
from linearize.report.plot import Plot, dots, figure, legend, powers_of_ten
from linearize.report.stats import over_seeds, seeds_phrase
from linearize.report.style import INK, MUTED, PAPER, colour, label, marker
from linearize.report.table import Cell, Table, freeze, number, percent

SOURCES = """After Malladi et al., <cite>A Kernel-Based View of Language Model Fine-Tuning</cite>
(ICML 2023), and Ortiz-Jimenez et al., <cite>Task Arithmetic in the Tangent Space</cite> (NeurIPS
2023, arXiv 2305.12827)."""

LINES = ("-", "--", ":", "-.")
"""One a task."""

ALONG = {
    "drift": "Kernel drift ‖Kₜ − K₀‖ / ‖K₀‖",
    "feature_change": "Change of gradients, relative",
    "alignment": "Centred alignment with K₀",
    "target_alignment": "Centred alignment with the labels",
}
GAP = {
    "gap": "‖fₜ − fₗᵢₙ(θₜ)‖ / ‖fₜ − f₀‖",
    "gap_loss": "Loss of f minus loss of fₗᵢₙ",
}


@dataclass(frozen=True)
class Results:
    """Every measure by task, fine-tuning and name: (S, T), seeds and steps."""

    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: Mapping[str, tuple[int, ...]]
    along: Mapping[str, Mapping[str, Mapping[str, Floats]]]
    movement: Mapping[str, Mapping[str, Mapping[str, Floats]]]
    spectrum: Mapping[str, Mapping[str, Mapping[str, Floats]]]  # (S, points)
    pretrained: Mapping[str, Mapping[str, Floats]]  # (S,)
    solutions: Mapping[str, Mapping[str, Mapping[str, Floats]]]  # (S,)
    train: Mapping[str, int]
    test: Mapping[str, int]

    @property
    def optimizers(self) -> tuple[str, ...]:
        """The fine-tunings, in the order of the file."""
        return tuple(self.steps)


def parse(node: Node) -> Results:
    """The measurements, their shapes checked.

    Raises:
        ResultsError: a key is missing or does not fit.
    """
    tasks = node.names("tasks")
    seeds = node.integers("seeds")
    steps = {o: node.integers(f"steps/{o}") for o in node.mapping("steps")}
    S = len(seeds)

    def measures(o: str, task: str, nested: str = "") -> dict[str, Floats]:
        where = f"along/{task}/{o}" + (f"/{nested}" if nested else "")
        shape = (S, len(steps[o]))
        found = node.mapping(where)
        return {m: node.numbers(f"{where}/{m}", shape) for m in found if m != "movement"}

    def numbers(where: str, shape: tuple[int | None, ...]) -> dict[str, Floats]:
        return {k: node.numbers(f"{where}/{k}", shape) for k in node.mapping(where)}

    return Results(
        tasks=tasks,
        seeds=seeds,
        steps=steps,
        along={t: {o: measures(o, t) for o in steps} for t in tasks},
        movement={t: {o: measures(o, t, "movement") for o in steps} for t in tasks},
        spectrum={t: {o: numbers(f"spectrum/{t}/{o}", (S, None)) for o in steps} for t in tasks},
        pretrained={t: numbers(f"pretrained/{t}", (S,)) for t in tasks},
        solutions={
            t: {k: numbers(f"solutions/{t}/{k}", (S,)) for k in node.mapping(f"solutions/{t}")}
            for t in tasks
        },
        train={t: int(node.get(f"examples/train/{t}")) for t in tasks},
        test={t: int(node.get(f"examples/test/{t}")) for t in tasks},
    )


def read(node: Node, run_dir: Path) -> Page:
    """The page of a run directory's results.

    Raises:
        ResultsError: a key is missing or does not fit.
    """
    results = parse(node)
    plots = [along(results), gap(results), accuracy(results), movement(results), spectrum(results)]
    found = claims.read(node)
    sections = (
        Section("kernel", "The kernel along fine-tuning", (plots[0], final(results))),
        Section("gap", "The linearization gap", (plots[1], plots[2])),
        Section("solutions", "What the kernels predict", (solutions(results),)),
        Section("movement", "Where the weights move", (plots[3],)),
        Section("spectrum", "Spectra", (plots[4],)),
        Section("claims", "Claims", (claims.claims_table(found),) if found else ()),
        configuration_of(node),
    )
    return Page(
        title=f"Kernel behaviour along fine-tuning: {node.get('preset')}",
        lead="A model is fine-tuned by SGD and by Adam, and its neural tangent kernel is measured "
        "along the way. Does it stay what it was at θ0? Does it predict what fine-tuning finds?",
        facts=facts_of(node, results.tasks, results.seeds),
        sections=sections,
        headlines=("final", "solutions", "claims"),
        sources=SOURCES,
    )


def _curves(ax: Axes, results: Results, measure: str, scale: float = 1.0) -> None:
    for line, task in zip(LINES * len(results.tasks), results.tasks, strict=False):
        for o in results.optimizers:
            _curve(ax, results.steps[o], scale * results.along[task][o][measure], o, line)


def _curve(ax: Axes, steps: tuple[int, ...], values: Floats, method: str, line: str) -> None:
    mean, half = over_seeds(values)
    ax.plot(steps, mean, color=colour(method), ls=line, marker=marker(method), ms=3.5)
    if np.isfinite(half).any():
        ax.fill_between(steps, mean - half, mean + half, color=colour(method), alpha=0.14, lw=0)


def _steps_axis(ax: Axes, results: Results) -> None:
    ax.set_xscale("symlog", base=2, linthresh=1, linscale=0.6)
    shown = sorted({t for steps in results.steps.values() for t in steps})
    ax.set_xticks(shown, [str(t) for t in shown])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlim(0, shown[-1])
    ax.set_xlabel("Optimizer step")
    ax.grid()


def _handles(results: Results) -> list[Line2D]:
    handles = [
        Line2D([], [], color=colour(o), marker=marker(o), ms=5, mec=PAPER, label=label(o))
        for o in results.optimizers
    ]
    if len(results.tasks) > 1:
        handles += [
            Line2D([], [], color=MUTED, ls=line, label=task)
            for line, task in zip(LINES * len(results.tasks), results.tasks, strict=False)
        ]
    return handles


def _panels(results: Results, titles: Mapping[str, str], narrow: bool) -> Figure:
    across = 1 if narrow else 2
    down = -(-len(titles) // across)
    fig = figure(narrow, 2.4 * down + 0.5)
    for ax, (measure, title) in zip(
        fig.subplots(down, across, squeeze=False).flat, titles.items(), strict=True
    ):
        _curves(ax, results, measure)
        ax.set_title(title, fontweight="normal")
        _steps_axis(ax, results)
    legend(fig, _handles(results), narrow)
    return fig


def _caption(results: Results) -> str:
    return f"Bands: 95 % t interval. {seeds_phrase(results.seeds)}"


def along(results: Results) -> Plot:
    """Drift, change of gradients and alignments against the step."""
    return Plot(
        "kernel_along",
        "The kernel along fine-tuning",
        "The trace kernel on training examples after some optimizer steps, held against the kernel "
        "at θ0 and against the labels’; gradients of single outputs held against those at θ0. "
        f"Steps on a logarithmic axis. {_caption(results)}",
        "Four line plots against the optimizer step, a colour a fine-tuning, a line style a task.",
        lambda narrow: _panels(results, ALONG, narrow),
    )


def gap(results: Results) -> Plot:
    """The model beside its linearization at θ_t."""
    return Plot(
        "linearization_gap",
        "The linearization gap",
        "Test logits of the model at θ_t beside those of its linearization at the same θ_t: their "
        "distance in units of how far the logits have moved, and the difference of the losses in "
        f"nats. {_caption(results)}",
        "Two line plots against the optimizer step, a colour a fine-tuning, a line style a task.",
        lambda narrow: _panels(results, GAP, narrow),
    )


def accuracy(results: Results) -> Plot:
    """Test accuracy of f and f_lin along the way, and of the NTK's solution."""

    def draw(narrow: bool) -> Figure:
        count = len(results.tasks)
        down, across = (count, 1) if narrow else (1, count)
        fig = figure(narrow, 2.7 * down + 0.6)
        for ax, task in zip(
            fig.subplots(down, across, squeeze=False).flat, results.tasks, strict=True
        ):
            for o in results.optimizers:
                found = results.along[task][o]
                _curve(ax, results.steps[o], 100 * found["accuracy"], o, "-")
                _curve(ax, results.steps[o], 100 * found["linearized_accuracy"], o, ":")
            for kernel, found in results.solutions[task].items():
                level = 100 * float(found["accuracy"].mean())
                ax.axhline(level, color=colour(kernel), lw=1.2, ls="--", zorder=1)
            ax.set_title(task)
            ax.set_ylabel("Test accuracy [%]")
            _steps_axis(ax, results)
        kernels = dict.fromkeys(k for task in results.tasks for k in results.solutions[task])
        handles = _handles(results)[: len(results.optimizers)]
        handles += [
            Line2D([], [], color=INK, ls=":", label="linearization at the same θₜ"),
            *(Line2D([], [], color=colour(k), ls="--", label=label(k)) for k in kernels),
        ]
        legend(fig, handles, narrow)
        return fig

    return Plot(
        "accuracy_along",
        "Accuracy along fine-tuning",
        "Test accuracy of the model (lines), of its linearization at the same parameters (dotted), "
        f"and of the kernels’ solutions (dashed, mean over seeds). {_caption(results)}",
        "Line plots, one a task: accuracy against the optimizer step.",
        draw,
    )


def movement(results: Results) -> Plot:
    """Relative movement of each block after the last step."""

    def draw(narrow: bool) -> Figure:
        count = len(results.tasks)
        down, across = (count, 1) if narrow else (1, count)
        fig = figure(narrow, 2.4 * down + 0.5)
        for ax, task in zip(
            fig.subplots(down, across, squeeze=False, sharey=True).flat, results.tasks, strict=True
        ):
            for k, o in enumerate(results.optimizers):
                moved = results.movement[task][o]
                last = np.stack([values[:, -1] for values in moved.values()], axis=1)
                x = np.arange(len(moved)) + 0.16 * (k - (len(results.optimizers) - 1) / 2)
                dots(ax, x, 100 * last, o, ms=5.5)
                names = [n.rsplit("_", 1)[-1].rsplit("/", 1)[-1] for n in moved]
                ax.set_xticks(range(len(moved)), names)
            ax.set_title(task)
            ax.set_xlabel("Block")
            ax.set_ylim(bottom=0)
            ax.grid(axis="y")
        fig.axes[0].set_ylabel("‖θ − θ0‖ / ‖θ0‖ [%]")
        legend(fig, _handles(results)[: len(results.optimizers)], narrow)
        return fig

    return Plot(
        "movement",
        "Movement of the blocks",
        "Distance of each block’s parameters from θ0 after the last step, relative to their norm, "
        f"and of all parameters. Whiskers: 95 % t interval. {seeds_phrase(results.seeds)}",
        "Dot plots, one a task: relative movement of each block, a colour a fine-tuning.",
        draw,
    )


def spectrum(results: Results) -> Plot:
    """Eigenvalues of the trace kernel before and after."""

    def draw(narrow: bool) -> Figure:
        count = len(results.tasks)
        down, across = (count, 1) if narrow else (1, count)
        fig = figure(narrow, 2.6 * down + 0.5)
        for ax, task in zip(
            fig.subplots(down, across, squeeze=False, sharey=True).flat, results.tasks, strict=True
        ):
            first = next(iter(results.spectrum[task].values()))["start"]
            series = {"pretrained": first} | {
                o: found["end"] for o, found in results.spectrum[task].items()
            }
            for method, values in series.items():
                mean = np.maximum(values, 0).mean(0)
                ax.loglog(np.arange(1, len(mean) + 1), mean, color=colour(method))
            powers_of_ten(ax.xaxis, ax.yaxis)
            ax.set_title(task)
            ax.set_xlabel("Index")
            ax.grid()
        fig.axes[0].set_ylabel("Eigenvalue")
        handles = [Line2D([], [], color=colour("pretrained"), label="at θ0")]
        handles += [
            Line2D([], [], color=colour(o), label=f"after {label(o)}") for o in results.optimizers
        ]
        legend(fig, handles, narrow)
        return fig

    return Plot(
        "spectrum",
        "Spectrum of the kernel",
        "Eigenvalues of the trace kernel on the same training examples, at θ0 and after each "
        f"fine-tuning; mean over {len(results.seeds)} seed(s).",
        "Line plots, one a task: eigenvalues against their index, both axes logarithmic.",
        draw,
    )


MEASURES: Mapping[str, tuple[str, Callable[[Floats], Cell]]] = {
    "drift": ("Kernel drift", partial(number, digits=3)),
    "feature_change": ("Change of gradients", partial(number, digits=3)),
    "alignment": ("Alignment with K₀", partial(number, digits=3)),
    "target_alignment": ("Alignment with the labels", partial(number, digits=3)),
    "gap": ("Gap of the test logits", partial(number, digits=3)),
    "gap_loss": ("Loss, f − f_lin [nats]", partial(number, digits=3)),
    "gap_accuracy": ("Accuracy, f − f_lin [points]", percent),
    "agreement": ("Agreement of f and f_lin [%]", percent),
    "train_loss": ("Training loss [nats]", partial(number, digits=3)),
    "movement": ("Movement of all parameters [%]", lambda v: number(100 * v, 3)),
}
"""What the table shows of the last step, in its order."""


def final(results: Results) -> Table:
    """Every measure after the last step."""
    runs = [(task, o) for task in results.tasks for o in results.optimizers]

    def last(task: str, optimizer: str, measure: str) -> Floats:
        found = results.along[task][optimizer]
        moved = results.movement[task][optimizer]
        return (moved["all"] if measure == "movement" else found[measure])[:, -1]

    rows = [
        [Cell(name), *(show(last(task, o, measure)) for task, o in runs)]
        for measure, (name, show) in MEASURES.items()
    ]
    steps = ", ".join(f"{label(o)} {results.steps[o][-1]}" for o in results.optimizers)
    return Table(
        "final",
        "After the last step",
        "Drift, alignments and gradients as in the figure. Gap: ‖f − f_lin‖ / ‖f − f0‖ of test "
        "logits at θ_t; agreement: share of test images on which f and f_lin predict the same "
        "class; movement: distance from θ0, in % of its norm. "
        f"Steps: {steps}. {seeds_phrase(results.seeds)}",
        ("Measure", *(f"{task}, {label(o)}" for task, o in runs)),
        freeze(rows),
    )


def solutions(results: Results) -> Table:
    """Test accuracy of fine-tuning and of the kernels' solutions."""
    series: dict[str, dict[str, Floats]] = {"pretrained": {}, **{o: {} for o in results.optimizers}}
    for task in results.tasks:
        series["pretrained"][task] = results.pretrained[task]["accuracy"]
        for o in results.optimizers:
            series[o][task] = results.along[task][o]["accuracy"][:, -1]
        for kernel, found in results.solutions[task].items():
            series.setdefault(kernel, {})[task] = found["accuracy"]
    rows = [
        [
            Cell(label(method)),
            *(percent(found[task]) for task in results.tasks),
            percent(np.mean([found[task] for task in results.tasks], axis=0)),
        ]
        for method, found in series.items()
    ]
    sizes = ", ".join(f"{t} {results.train[t]} and {results.test[t]}" for t in results.tasks)
    return Table(
        "solutions",
        "Fine-tuning beside the kernels’ solutions",
        "Test accuracy, %. Solutions: the optimum of cross-entropy and weight decay on the kernel "
        "at θ0, weight decay chosen on validation data: the full NTK’s is exact linear fine-tuning "
        "of the logits; a SignGD kernel is summed over outputs and divided by their number. "
        f"Training and test examples: {sizes}. {seeds_phrase(results.seeds)}",
        ("Method", *results.tasks, "Mean"),
        freeze(rows),
    )
