"""Figures: measures along the steps, accuracies, movement of the blocks, spectra."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from experiments.kernel_behavior.results import Results
from linearize.report.plot import Plot, band, dots, figure, legend, powers_of_ten
from linearize.report.stats import ANY, CORRELATION, POSITIVE, SHARE, seeds_phrase
from linearize.report.style import INK, MUTED, PAPER, colour, label, marker

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
BOUNDS = {
    **dict.fromkeys(("drift", "feature_change", "gap"), POSITIVE),
    **dict.fromkeys(("alignment", "target_alignment"), CORRELATION),
}
"""Of the measures that have some."""


def _curves(ax: Axes, results: Results, measure: str) -> None:
    for line, task in zip(LINES * len(results.tasks), results.tasks, strict=False):
        for o in results.optimizers:
            values = getattr(results.along[task][o], measure)
            band(ax, results.steps[o], values, BOUNDS.get(measure, ANY), **_line(o, line))


def _line(method: str, line: str) -> dict[str, Any]:
    return {"color": colour(method), "ls": line, "marker": marker(method), "ms": 3.5}


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


def _by_task(
    results: Results, narrow: bool, height: float, rest: float, sharey: bool = True
) -> tuple[Figure, list[tuple[str, Axes]]]:
    """Panels side by side, or on a phone one below the other, each so high, beside the rest."""
    count = len(results.tasks)
    shape = (count, 1) if narrow else (1, count)
    fig = figure(narrow, height * shape[0] + rest)
    panels = list(
        zip(results.tasks, fig.subplots(*shape, squeeze=False, sharey=sharey).flat, strict=True)
    )
    for task, ax in panels:
        ax.set_title(task)
    return fig, panels


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
        fig, panels = _by_task(results, narrow, 2.7, 0.6, sharey=False)
        for task, ax in panels:
            for o in results.optimizers:
                found = results.along[task][o]
                for values, line in ((found.accuracy, "-"), (found.linearized_accuracy, ":")):
                    band(ax, results.steps[o], 100 * values, SHARE, **_line(o, line))
            for kernel, solution in results.solutions[task].items():
                level = 100 * float(solution.accuracy.mean())
                ax.axhline(level, color=colour(kernel), lw=1.2, ls="--", zorder=1)
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
        fig, panels = _by_task(results, narrow, 2.4, 0.5)
        for task, ax in panels:
            for k, o in enumerate(results.optimizers):
                moved = results.along[task][o].movement
                last = np.stack([values[:, -1] for values in moved.values()], axis=1)
                x = np.arange(len(moved)) + 0.16 * (k - (len(results.optimizers) - 1) / 2)
                dots(ax, x, 100 * last, o, POSITIVE, ms=5.5)
                names = [n.rsplit("_", 1)[-1].rsplit("/", 1)[-1] for n in moved]
                ax.set_xticks(range(len(moved)), names)
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
        fig, panels = _by_task(results, narrow, 2.6, 0.5)
        for task, ax in panels:
            spectra = results.spectrum[task]
            first = next(iter(spectra.values())).start
            series = {"pretrained": first} | {o: found.end for o, found in spectra.items()}
            for method, values in series.items():
                mean = np.maximum(values, 0).mean(0)
                ax.loglog(np.arange(1, len(mean) + 1), mean, color=colour(method))
            powers_of_ten(ax.xaxis, ax.yaxis)
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
