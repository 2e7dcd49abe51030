"""Tables: every measure after the last step, and the kernels' solutions."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from experiments.kernel_behavior.results import Results
from linearize.report.node import Floats
from linearize.report.stats import seeds_phrase
from linearize.report.style import label
from linearize.report.table import Cell, Table, freeze, number, percent

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
}
"""What the table shows of the last step, in its order."""


def final(results: Results) -> Table:
    """Every measure after the last step."""
    runs = {
        f"{task}, {label(o)}": results.along[task][o]
        for task in results.tasks
        for o in results.optimizers
    }
    rows = [
        [Cell(name), *(show(getattr(run, measure)[:, -1]) for run in runs.values())]
        for measure, (name, show) in MEASURES.items()
    ]
    moved = (number(100 * run.movement["all"][:, -1], 3) for run in runs.values())
    rows.append([Cell("Movement of all parameters [%]"), *moved])
    steps = ", ".join(f"{label(o)} {results.steps[o][-1]}" for o in results.optimizers)
    return Table(
        "final",
        "After the last step",
        "Drift, alignments and gradients as in the figure. Gap: ‖f − f_lin‖ / ‖f − f0‖ of test "
        "logits at θ_t; agreement: share of test images on which f and f_lin predict the same "
        "class; movement: distance from θ0, in % of its norm. "
        f"Steps: {steps}. {seeds_phrase(results.seeds)}",
        ("Measure", *runs),
        freeze(rows),
    )


def solutions(results: Results) -> Table:
    """Test accuracy of fine-tuning and of the kernels' solutions."""
    series: dict[str, dict[str, Floats]] = {"pretrained": {}, **{o: {} for o in results.optimizers}}
    for task in results.tasks:
        series["pretrained"][task] = results.pretrained[task].accuracy
        for o in results.optimizers:
            series[o][task] = results.along[task][o].accuracy[:, -1]
        for kernel, found in results.solutions[task].items():
            series.setdefault(kernel, {})[task] = found.accuracy
    rows = [
        [
            Cell(label(method)),
            *(percent(found[task]) for task in results.tasks),
            percent(np.mean([found[task] for task in results.tasks], axis=0)),
        ]
        for method, found in series.items()
    ]
    train, test = (results.examples[split] for split in ("train", "test"))
    sizes = ", ".join(f"{task} {train[task]} and {test[task]}" for task in results.tasks)
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
