"""How each task asks and is answered: its documents, its template, its classes' words."""

from collections.abc import Mapping
from dataclasses import dataclass

from linearize.data.text import TEXT_TASKS


@dataclass(frozen=True)
class Wording:
    """A row: one task, as models of every kind are asked it."""

    source: str
    """Made-up documents, a row of :data:`linearize.data.text.TEXT_TASKS`, or a set of TFDS."""
    template: str = ""
    """With ``{text}`` and, of pairs, ``{pair}``: what the model reads. Where empty, the text or the
    pair as the tokenizer joins it."""
    words: tuple[str, ...] = ()
    """The classes' answers, in the classes' order; their names where empty."""
    metric: str = "accuracy"
    """What decides where answers are words or classes: a metric of
    :class:`linearize.objectives.Seq2Seq`, or of :class:`linearize.objectives.Classify`."""
    labels: tuple[int, ...] = (0, 1)
    """Which labels of a classifier that tasks share its classes are; the others are masked."""

    @property
    def classes_metric(self) -> str:
        """What decides where classes are said without words: no answer is matched then."""
        return "accuracy" if self.metric == "exact match" else self.metric


def _glue(name: str, words: tuple[str, str], metric: str = "exact match") -> Wording:
    """A set of GLUE in T5's own words (Raffel et al. 2020, app. D)."""
    return Wording(f"glue/{name}", T5_TEMPLATES[name], words, metric)


T5_TEMPLATES = {
    "mrpc": "mrpc sentence1: {text} sentence2: {pair}",
    "rte": "rte sentence1: {text} sentence2: {pair}",
    "cola": "cola sentence: {text}",
    "sst2": "sst2 sentence: {text}",
}
SHARED = ("entailment", "neutral", "contradiction")
"""Labels that the six sets of inference share."""

WORDINGS: Mapping[str, Wording] = {
    **{
        name: Wording(name, "{text} Sentiment:", metric="matthews")
        for name in ("toy_food", "toy_film", "toy_shop")
    },
    **{name: Wording(name) for name, task in TEXT_TASKS.items() if task.classes},
    **{
        name: Wording(name, "{text}\nSentiment:")
        for name in TEXT_TASKS
        if name.startswith("sentiment_")
    },
    "uncertainty": Wording("uncertainty", "{text}\nThe writer is"),
    "spam": Wording("spam", "{text}\nThis mail is", ("honest", "spam")),
    "news": Wording("news", "{text}\nTopic:"),
    "reuters": Wording(
        "reuters",
        "{text}\nTopic:",
        (
            *("acquisition", "oil", "earnings", "grain", "interest", "currency", "shipping"),
            "trade",
        ),
    ),
    "glue_mrpc": _glue("mrpc", ("not_equivalent", "equivalent")),
    "glue_rte": _glue("rte", ("entailment", "not_entailment")),
    "glue_cola": _glue("cola", ("unacceptable", "acceptable"), "matthews"),
    "glue_sst2": _glue("sst2", ("negative", "positive")),
    "snli": Wording("snli", labels=(0, 1, 2)),
    "mnli": Wording("glue/mnli", labels=(0, 1, 2)),
    "sick": Wording("sick", labels=(0, 1, 2)),
    "qnli": Wording("glue/qnli"),
    "rte": Wording("glue/rte"),
    "scitail": Wording("sci_tail"),
}
"""The tasks that the experiment knows, by name. What is not entailed is neutral where a set has two
classes: such a set says no more."""
