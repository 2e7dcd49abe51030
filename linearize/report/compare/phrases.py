"""What captions and titles say of a comparison's metrics, examples and control task."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from linearize.objectives.metric import ACCURACY, Metric
from linearize.report.compare.measures import Measures, axis, capital, lower_is_better
from linearize.report.compare.results import Results


def examples_phrase(results: Results) -> str:
    """Test examples a task, for captions; empty where the counts are not known."""
    tests = [c["test"] for c in results.counts.values() if isinstance(c, Mapping) and "test" in c]
    if not tests:
        return ""
    return f"n = {span(tests)} test examples a task."


def span(numbers: Sequence[int]) -> str:
    """The smallest and the largest of them, once where they are one."""
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def normalized_measures(results: Results) -> Measures:
    """What normalized values are measured by: shares, whatever the tasks' metrics."""
    low = 0.0 if all(metric.has_ratio for metric in results.measures.each) else -math.inf
    metric = Metric(f"normalized {results.measures.name}", low=low, percent=True)
    return Measures((metric,) * len(results.tasks))


def normalized_phrase(results: Results) -> str:
    """What a normalized value is, for captions."""
    metric = results.measures.shared
    if metric is None or not metric.has_ratio:
        return "100 % where a task is as good as with its own vector alone, in the same regime"
    if lower_is_better(metric):
        return f"the single-task {metric.name} of the same regime divided by it"
    return f"divided by the single-task {metric.name} of the same regime"


def in_percent(results: Results, text: str) -> str:
    """A title of normalized values, which says their unit where the others are in no %."""
    metric = results.measures.shared
    return text if metric is not None and metric.percent else f"{text} [%]"


def over_tasks(results: Results) -> str:
    """What the means of a table are of, to begin a caption with."""
    of, T = results.measures, len(results.tasks)
    if of.shared is None:
        return f"Normalized in %, mean over {T} tasks."
    return f"{capital(of.in_units)}, mean over {T} tasks."


def target(of: Measures) -> str:
    """Where the edited task's metric should go."""
    if not of.better(forgotten=True):
        return "the target should get worse"
    return of.better(forgotten=True).replace(" is", " target is")


def other_control(results: Results) -> str:
    """The control's metric, where it is another than the tasks'."""
    control = results.control_measures.shared
    if control is None or control == results.measures.shared:
        return ""
    return f" ({axis(control)})"


def better(of: Measures, forgotten: bool = False) -> str:
    """Which way is better, in brackets, where it is not plain that higher is."""
    words = of.better(forgotten)
    return f" ({words})" if words and (forgotten or words.startswith("lower")) else ""


def control_phrase(results: Results) -> str:
    """Which control task was kept, for captions."""
    if results.control_tasks is None:
        return ""
    if len(set(results.control_tasks)) == 1:
        return f"Control task: {results.control_tasks[0]}."
    pairs = zip(results.tasks, results.control_tasks, strict=True)
    return "Control tasks: " + ", ".join(f"{c} for {t}" for t, c in pairs) + "."


def control_units(results: Results, metric: Metric) -> str | None:
    """The control's tolerance in units of its metric; None where it is a share."""
    units = results.tolerance.units
    if units is None:
        return None
    return f"{100 * units:g} points" if metric.percent else f"{units:g}"


class Rule(NamedTuple):
    """What negation may do to the control task, for captions."""

    rule: str
    bound: str
    """The worst value that is allowed."""


def control_rule(results: Results) -> Rule:
    """That of the run's tolerance."""
    metric, told = results.control_measures.shared, results.tolerance
    if metric is None:
        return Rule("the control stays within its tolerance", "its tolerance")
    lower, before = lower_is_better(metric), f"its pre-trained {metric.name}"
    units = control_units(results, metric)
    if units is not None:
        change = f"may {'rise' if lower else 'fall'} by {units}"
        return Rule(
            f"the control’s {metric.name} {change}", f"{before} {'+' if lower else '−'} {units}"
        )
    if lower:
        bound = f"{before} divided by {told.retained:g}"
        return Rule(f"the control’s {metric.name} is at most {bound}", bound)
    bound = f"{100 * told.retained:g} % of {before}"
    return Rule(f"the control keeps {bound}", bound)


def chances(results: Results) -> list[float | None]:
    """Each task's accuracy by chance in %; None where it is not known, or not accuracy."""
    sizes = [len(results.classes.get(task, ())) for task in results.tasks]
    return [
        100 / n if n and metric == ACCURACY else None
        for n, metric in zip(sizes, results.measures.each, strict=True)
    ]
