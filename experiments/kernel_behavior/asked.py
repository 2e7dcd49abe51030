"""Tasks of text, each as a prompt: what is asked after it, and a label word for each class."""

from collections.abc import Mapping

from linearize.data.text import KLM, TEXT_TASKS, Prompt

_GOOD, _SENTIMENT = ("terrible", "great"), ("negative", "positive")
# fmt: off
_GROUPS = (
    "atheism", "graphics", "Windows", "computers", "Apple", "screens", "sale", "cars",
    "motorcycles", "baseball", "hockey", "encryption", "electronics", "medicine", "space",
    "Christianity", "guns", "Israel", "politics", "religion",
)
# fmt: on

PROMPTS: Mapping[str, Prompt] = {
    **{
        name: Prompt("{text} It was {mask}.", _GOOD, classes=_SENTIMENT)
        for name in TEXT_TASKS
        if name.startswith("sentiment_")
    },
    **{
        name: Prompt("{text} Sentiment: {mask}", _SENTIMENT, classes=_SENTIMENT)
        for name in ("toy_food", "toy_film", "toy_shop")
    },
    "spam": Prompt("{text} This mail is {mask}.", ("good", "bad"), classes=("ham", "spam")),
    "uncertainty": Prompt(
        "{text} This is {mask}.", ("possible", "certain"), classes=("uncertain", "certain")
    ),
    "news": Prompt(
        "{text} This article is about {mask}.",
        ("business", "entertainment", "politics", "sports", "technology"),
        classes=("business", "entertainment", "politics", "sports", "tech"),
    ),
    "reuters": Prompt(
        "{text} This article is about {mask}.",
        ("mergers", "oil", "earnings", "grain", "interest", "currency", "shipping", "trade"),
        classes=TEXT_TASKS["reuters"].classes,
    ),
    "newsgroups": Prompt(
        "{text} This message is about {mask}.", _GROUPS, classes=TEXT_TASKS["newsgroups"].classes
    ),
    **KLM,
}
"""The tasks that can be asked for, by name."""

SETS: Mapping[str, str] = {
    "sst2": "glue/sst2",
    "qnli": "glue/qnli",
    "rte": "glue/rte",
    "mnli": "glue/mnli",
    "mrpc": "glue/mrpc",
    "qqp": "glue/qqp",
    "cola": "glue/cola",
    "snli": "snli",
    "ag_news": "ag_news_subset",
    "trec": "trec",
}
"""Data sets of TFDS by the paper's task; the others are read from ``texts`` alone."""
