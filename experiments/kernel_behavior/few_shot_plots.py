"""Figures of a run with prompts: every method, and each kernel's solution beside fine-tuning."""

from collections.abc import Iterator
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.kernel_behavior.few_shot_results import Results, methods
from experiments.kernel_behavior.few_shot_words import WAYS, said
from linearize.report.plot import Plot, figure, handle, legend, whiskers
from linearize.report.stats import SHARE, over_seeds, seeds_phrase
from linearize.report.style import MUTED, colour, marker

Pair = tuple[str, int]
"""A way of reading, and how many examples a class."""

TWINS = {"sgd": "sgd, least_squares", "adam": "asymmetric_signgd, least_squares"}
"""By optimizer, the solution on the kernel that is to do what it does."""

_FACES = {"zero_shot": "pretrained", "sgd": "sgd", "adam": "adam"}
_RULES = {"sgd": "sgd", "signgd": "adam", "asymmetric_signgd": "adam"}


def drawn(results: Results, pairs: list[Pair]) -> tuple[Plot, ...]:
    """Those that there are numbers for."""
    both = any(_twins(results, pair) for pair in pairs)
    return (every_method(results, pairs), *([beside_fine_tuning(results, pairs)] if both else ()))


def every_method(results: Results, pairs: list[Pair]) -> Plot:
    """Accuracy of every method, mean of tasks, and each task's."""

    def draw(narrow: bool) -> Figure:
        known = list(dict.fromkeys(m for pair in pairs for m in _everywhere(results, pair)))
        height = len(pairs) * (0.42 * len(known) + 1) if narrow else 0.24 * len(known) + 0.9
        fig = figure(narrow, height)
        for ax, (way, k) in _panels(fig, results, pairs, narrow):
            there = _everywhere(results, (way, k))
            for at, method in enumerate(known):
                if method not in there:
                    continue
                kernel = method.partition(",")[0].partition(" ")[0]
                face = _FACES.get(method) or _RULES[kernel]
                mark = marker(face) if method in _FACES else "|"
                each = [methods(cell)[method].mean() for cell in results.cells(way, k).values()]
                ax.plot(100 * np.array(each), [at] * len(each), ".", ms=3, color=MUTED)
                found = over_seeds(100 * results.over_tasks(way, k, method))
                ends = whiskers(found, SHARE)
                ax.errorbar(
                    found.mean, at, xerr=None if ends is None else np.reshape(ends, (2, 1)),
                    color=colour(face), marker=mark, ms=7, mew=2 if mark == "|" else 0.5,
                )  # fmt: skip
            ax.set_yticks(range(len(known)), [fill(said(m), 25 if narrow else 99) for m in known])
            ax.tick_params("y", labelsize=7 if narrow else 8)
            ax.set_ylim(len(known) - 0.5, -0.5)
            ax.set_xlabel("Test accuracy [%]")
            ax.grid(axis="x")
        return fig

    return Plot(
        "methods",
        "Every method, mean of tasks",
        "Large marks: means over tasks, blue of SGD and its kernel, red of Adam and the SignGD "
        f"kernels. Small dots: the tasks. {seeds_phrase(results.seeds)}",
        "Dot chart, one row a method: mean accuracy of the tasks with its interval, and each task.",
        draw,
    )


def beside_fine_tuning(results: Results, pairs: list[Pair]) -> Plot:
    """Each task's accuracy by a kernel's solution against that by fine-tuning."""

    def draw(narrow: bool) -> Figure:
        fig = figure(narrow, 3.6 * (len(pairs) if narrow else 1))
        for ax, (way, k) in _panels(fig, results, pairs, narrow):
            for optimizer, solution in _twins(results, (way, k)).items():
                cells = [methods(cell) for cell in results.cells(way, k).values()]
                x, y = ([100 * c[m].mean() for c in cells] for m in (optimizer, solution))
                ax.plot(x, y, marker(optimizer), color=colour(optimizer), ms=6, mew=0)
            low = min(*ax.get_xlim(), *ax.get_ylim())
            ax.plot((low, 100), (low, 100), color=MUTED, lw=0.8, ls="--")
            ax.set(aspect="equal", xlabel="Fine-tuning [%]", ylabel="Solution on its kernel [%]")
        named = [handle("sgd"), handle("adam", "Adam, asymmetric SignGD kernel")]
        legend(fig, named, narrow)
        return fig

    return Plot(
        "beside_fine_tuning",
        "A kernel's solution beside fine-tuning, task by task",
        "Test accuracy of least squares on the optimizer's kernel at θ0 against fine-tuning by "
        "that optimizer; above the line the kernel is better. Means of seeds "
        f"{', '.join(map(str, results.seeds))}.",
        "Scatter of the tasks' accuracies by a kernel's solution against those by fine-tuning.",
        draw,
    )


def _everywhere(results: Results, pair: Pair) -> list[str]:
    """Methods that all tasks have."""
    cells = [methods(cell) for cell in results.cells(*pair).values()]
    return [m for m in cells[0] if all(m in cell for cell in cells)]


def _twins(results: Results, pair: Pair) -> dict[str, str]:
    known = {*_everywhere(results, pair)}
    return {one: other for one, other in TWINS.items() if {one, other} <= known}


def _panels(
    fig: Figure, results: Results, pairs: list[Pair], narrow: bool
) -> Iterator[tuple[Axes, Pair]]:
    across = (len(pairs), 1) if narrow else (1, len(pairs))
    axes = fig.subplots(*across, squeeze=False, sharey=not narrow).flat
    for ax, (way, k) in zip(axes, pairs, strict=True):
        ax.set_title(f"{results.readers[way]}\n{WAYS[way]}, k = {k}")
        yield ax, (way, k)
