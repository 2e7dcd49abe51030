"""Where a run's model and texts come from: packaged ones, files, TFDS, and made-up ones."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.toxicity import toys
from experiments.toxicity.config import ToxicityConfig
from linearize.config import ConfigError
from linearize.data import SPLITS
from linearize.data.text import Documents
from linearize.data.text.task import TextTask
from linearize.models.language import LanguageModel, load_language, load_tokens


@dataclass(frozen=True, eq=False)
class Texts:
    """Documents by split: of a kind, others like them, and the control's."""

    target: Mapping[str, Documents]
    other: Mapping[str, Documents]
    control: Mapping[str, Documents]
    target_words: str
    """What the kind is, for the page."""
    other_words: str
    control_words: str
    chosen_by: str
    """What chose the target's documents, a sentence."""
    prompts: Sequence[str] = ()
    """A column of prompts, where there is one."""


def texts(config: ToxicityConfig) -> Texts:
    """The configuration's.

    Raises:
        ConfigError: a class that the documents have not, or a split without one of the kinds.
    """
    told = config.texts
    both, plain = toys.kinds(), toys.plain()
    unknown = [name for name in told.positive if name not in both.classes]
    if unknown or set(told.positive) >= set(both.classes):
        raise ConfigError(
            f"texts.positive={told.positive}: name some, not all, of the classes of {told.kinds}, "
            f"{', '.join(map(repr, both.classes))}"
        )
    wanted = [both.classes.index(name) for name in told.positive]
    target, other = {}, {}
    for split in SPLITS:
        documents = both.split(split)
        of = [label in wanted for label in documents.labels]
        target[split] = documents.take([i for i, hit in enumerate(of) if hit])
        other[split] = documents.take([i for i, hit in enumerate(of) if not hit])
    rest = [name for name in both.classes if name not in told.positive]
    return Texts(
        target,
        other,
        {split: plain.split(split) for split in SPLITS},
        told.words or ", ".join(told.positive),
        told.other_words or ", ".join(rest),
        told.control_words or told.control,
        "the text that is trained on was labelled by people.",
    )


def speaker(config: ToxicityConfig) -> tuple[LanguageModel, Any]:
    """The model at θ0, and its tokenizer."""
    return toys.model(), toys.ToyTokenizer()
