"""The page of a run with prompts: accuracies, what was chosen, and whether it is a kernel."""

import numpy as np

from experiments.kernel_behavior import few_shot_plots
from experiments.kernel_behavior.few_shot_results import Results, methods
from experiments.kernel_behavior.few_shot_words import WAYS, said
from linearize.report.page import Page, Section
from linearize.report.stats import seeds_phrase
from linearize.report.table import Cell, Table, freeze, number, percent

SOURCES = """After Malladi et al., <cite>A Kernel-Based View of Language Model Fine-Tuning</cite>
(ICML 2023)."""


def page(results: Results) -> Page:
    """All of it."""
    pairs = [(way, k) for way in results.readers for k in results.shots]
    tables = tuple(accuracies(results, *pair) for pair in pairs)
    return Page(
        title=f"Kernels of language models on a few examples: {results.preset}",
        lead="k labelled examples a class: does the kernel at θ0 do what fine-tuning does, and "
        "does fine-tuning stay by it?",
        facts=results.facts(results.tasks),
        sections=(
            Section("accuracy", "Accuracy", (*few_shot_plots.drawn(results, pairs), *tables)),
            Section("behaviour", "Is it a kernel?", tuple(behaves(results, *p) for p in pairs)),
            Section("chosen", "What was chosen", tuple(chosen(results, *p) for p in pairs)),
            results.verdicts("Claims"),
            results.configuration,
        ),
        headlines=(*(f"accuracy_{way}_{k}" for way, k in pairs), "claims"),
        sources=SOURCES,
    )


def accuracies(results: Results, way: str, k: int) -> Table:
    """Test accuracy of every method on every task."""
    cells = results.cells(way, k)
    known = list(dict.fromkeys(m for cell in cells.values() for m in methods(cell)))
    rows = []
    for method in known:
        values = [methods(cell).get(method) for cell in cells.values()]
        whole = [value for value in values if value is not None]
        mean = percent(np.mean(whole, axis=0)) if len(whole) == len(values) else Cell("–")
        each = (Cell("–") if value is None else percent(value) for value in values)
        rows.append([Cell(said(method)), *each, mean])
    return Table(
        f"accuracy_{way}_{k}",
        f"{results.readers[way]} {WAYS[way]}, {k} examples a class",
        "Test accuracy, %. Solutions on kernels at θ0; as many development examples chose λ of "
        f"λ‖K‖ and the factor of f0. {seeds_phrase(results.seeds)}",
        ("Method", *results.tasks, "Mean"),
        freeze(rows),
    )


def behaves(results: Results, way: str, k: int) -> Table:
    """The criteria of kernel behaviour after the last step."""
    rows = []
    for task, cell in results.cells(way, k).items():
        for name, tuned in cell.tuned.items():
            rows.append(
                [
                    Cell(f"{task}, {'SGD' if name == 'sgd' else 'Adam'}"),
                    percent(tuned.accuracy),
                    percent(tuned.linearized_accuracy),
                    number(tuned.gap, 3),
                    number(tuned.feature_change, 3),
                    number(tuned.drift, 3),
                    number(tuned.train_loss, 3),
                ]
            )
    return Table(
        f"behaviour_{way}_{k}",
        f"{results.readers[way]} {WAYS[way]}, {k} examples a class: after the last step",
        "Linearized: the model's linearization around θ0 at the same parameters. Gap: ‖f − f_lin‖ "
        "/ ‖f − f0‖ of test outputs. Change of gradients and drift of the kernel are relative. "
        f"{seeds_phrase(results.seeds)}",
        (
            *("Task", "Accuracy [%]", "Linearized [%]", "Gap", "Change of gradients", "Drift"),
            "Training loss [nats]",
        ),
        freeze(rows),
    )


def chosen(results: Results, way: str, k: int) -> Table:
    """What development data chose."""
    rows = [
        [
            Cell(f"{task}: {said(f'{kernel}, {solver}')}"),
            percent(solved.development),
            *(Cell(", ".join(f"{v:g}" for v in x)) for x in (solved.share, solved.f0_scale)),
        ]
        for task, cell in results.cells(way, k).items()
        for kernel, by in cell.kernels.items()
        for solver, solved in by.items()
        if solver == "least_squares"
    ]
    return Table(
        f"chosen_{way}_{k}",
        f"{results.readers[way]} {WAYS[way]}, {k} examples a class: what was chosen",
        "By development accuracy, of equal choices the first λ that was tried, then the first s. "
        "λ: added to the kernel's diagonal, in units of its operator norm; s: factor of f0; both "
        f"by seed. {seeds_phrase(results.seeds)}",
        ("Solution", "Development accuracy [%]", "λ", "s"),
        freeze(rows),
    )
