"""The metrics of a run's tasks, as tables and figures name and print them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from linearize.objectives.metric import ACCURACY, Metric
from linearize.report.node import Floats, ResultsError
from linearize.report.stats import Bounds
from linearize.report.table import NONE, Cell, number, percent, significant


def factor(metric: Metric) -> int:
    """What values are multiplied by to be shown."""
    return 100 if metric.percent else 1


def bounds(metric: Metric) -> Bounds:
    """The least and the largest value that there is, as shown."""
    return factor(metric) * metric.low, factor(metric) * metric.high


def axis(metric: Metric) -> str:
    """The metric beside an axis: ``accuracy [%]``, ``perplexity``."""
    return f"{metric.name} [%]" if metric.percent else metric.name


def shown(metric: Metric, values: Floats) -> Cell:
    """A cell of values over seeds, shape (S,)."""
    return percent(values) if metric.percent else significant(values)


def error(errors: Floats, farthest: float | None) -> Cell:
    """A cell of distances over seeds, (S,): three decimals where there is a largest one."""
    return significant(errors) if farthest is None else number(errors, 3)


def capital(text: str) -> str:
    """A text that begins a sentence; a name with capitals of its own stays (``mAP``)."""
    first = text.split(" ", 1)[0]
    return text[:1].upper() + text[1:] if first[1:] == first[1:].lower() else text


def lower_is_better(metric: Metric, forgotten: bool = False) -> bool:
    """Whether less is what is wanted; of a task that is to be forgotten, the reverse."""
    return (metric.better == "lower") != forgotten


def arrow(metric: Metric, forgotten: bool = False) -> str:
    """Where better values lie: ``↓`` or ``↑``."""
    return "↓" if lower_is_better(metric, forgotten) else "↑"


def spans_magnitudes(metric: Metric, values: Floats) -> bool:
    """Whether an axis had better be logarithmic: a linear one would show the largest alone."""
    found = values[np.isfinite(values)]
    return bool(
        not metric.percent and found.size and found.min() > 0 and found.max() > 50 * found.min()
    )


@dataclass(frozen=True)
class Measures:
    """What each of T tasks is measured by."""

    each: tuple[Metric, ...]
    examples: tuple[int, ...] = ()
    """Test examples of each task, where they are known."""

    @property
    def shared(self) -> Metric | None:
        """The metric that all have; None where they differ, so that no mean over them says much."""
        return self.each[0] if len(set(self.each)) == 1 else None

    @property
    def name(self) -> str:
        """What a title calls it."""
        return self.shared.name if self.shared else "performance"

    @property
    def in_units(self) -> str:
        """What a caption calls it: ``accuracy in %``."""
        if self.shared is None:
            return "performance, each task by its own metric,"
        return self.shared.name + " in %" * self.shared.percent

    @property
    def no_mean(self) -> str:
        """Why there is no mean over the tasks, to end a caption with; empty where there is one."""
        if self.shared:
            return ""
        names = ", ".join(dict.fromkeys(axis(metric) for metric in self.each))
        return f" No mean over tasks of different metrics ({names})."

    def heading(self, text: str, forgotten: bool = False) -> str:
        """A column's title, with an arrow where it is not plain that higher is better."""
        if self.shared is None or not (forgotten or lower_is_better(self.shared)):
            return text
        return f"{text} {arrow(self.shared, forgotten)}"

    def better(self, forgotten: bool = False) -> str:
        """Which way is better, in words; empty where that differs from task to task."""
        lower = {lower_is_better(metric, forgotten) for metric in self.each}
        return "" if len(lower) > 1 else "lower is better" if lower.pop() else "higher is better"

    def mean(self, values: Floats | None) -> Cell:
        """A cell of the mean over tasks of (S, T) values; a dash where there is none."""
        if values is None or self.shared is None:
            return Cell(NONE)
        return replace(shown(self.shared, values.mean(-1)), error=self._error(values))

    def of_task(self, values: Floats, t: int) -> Cell:
        """A cell of one task's column of (S, T) values."""
        error = Measures(self.each[t : t + 1], self.examples[t : t + 1])._error(
            values[:, t : t + 1]
        )
        return replace(shown(self.each[t], values[:, t]), error=error)

    def _error(self, values: Floats) -> float | None:
        """The standard error of the mean of one seed's accuracies, in %, each k of n examples."""
        n = np.array(self.examples)
        if self.shared != ACCURACY or len(values) > 1 or not n.size or not n.all():
            return None
        p = (values[0] * n + 0.5) / (n + 1)  # never 0 or 1, where n says less than certainty
        return 100 * float(np.sqrt((p * (1 - p) / n).sum())) / len(n)

    def groups(self) -> list[tuple[Metric, list[int]]]:
        """Each metric, and the tasks that have it."""
        return [
            (metric, [t for t, each in enumerate(self.each) if each == metric])
            for metric in dict.fromkeys(self.each)
        ]


def of_tasks(
    metrics: Mapping[str, Metric] | None,
    tasks: Sequence[str],
    counts: Mapping[str, Mapping[str, int]] | None = None,
) -> Measures:
    """The metrics of some tasks; accuracy, where a run is of a version that knew nothing else.

    Raises:
        ResultsError: a task has none.
    """
    known = dict.fromkeys(tasks, ACCURACY) if metrics is None else metrics
    missing = [task for task in tasks if task not in known]
    if missing:
        raise ResultsError(f"key 'metrics/{missing[0]}' is missing")
    examples = ((counts or {}).get(task, {}).get("test", 0) for task in tasks)
    return Measures(tuple(known[task] for task in tasks), tuple(examples))


def check(name: str, values: Floats, measures: Measures) -> None:
    """Hold values, the last axis that of tasks, against their metrics' bounds.

    Raises:
        ResultsError: there is one that the metric cannot have; ``name`` is the key's.
    """
    for metric, tasks in measures.groups():
        found = values[..., tasks]
        if (found < metric.low).any() or (found > metric.high).any():
            kind = "fractions" if metric.percent else metric.name
            raise ResultsError(
                f"{name} reaches from {np.nanmin(found):g} to {np.nanmax(found):g}; "
                f"expected {kind} in [{metric.low:g}, {metric.high:g}]"
            )
