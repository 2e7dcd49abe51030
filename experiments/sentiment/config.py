"""Sentiment of one domain from that of another and from both domains' text."""

import dataclasses

import numpy as np

from experiments.scaling import square
from linearize.config import ConfigError, EditConfig, LanguageModelConfig, MapConfig
from linearize.config.compare import require_names
from linearize.config.files import require, require_distinct, require_task
from linearize.fields import Count, Seed, TwoOrMore, check
from linearize.methods import METHODS
from linearize.train import TrainConfig

PAPERS = {
    "amazon": "amazon_us_reviews/Mobile_Electronics_v1_00",
    "yelp": "yelp_polarity_reviews",
}
"""The paper's domains, as TFDS has them."""


@dataclasses.dataclass(frozen=True)
class AskedConfig(LanguageModelConfig):
    """A language model, a decoder or an encoder–decoder, and how it is asked for a class."""

    prompt: str = "{text}\nSentiment:"
    """What is asked of a text."""
    words: tuple[str, ...] = ("negative", "positive")
    """The answer of each class, in the classes' order: a token of a decoder's, text of an
    encoder–decoder's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.prompt.count("{text}") == 1, "model.prompt", self.prompt,
                "write {text} once where the text goes")  # fmt: skip
        require(len(set(self.words)) == len(self.words) >= 2, "model.words", self.words,
                "give each class a word of its own")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class SentimentConfig:
    """Analogies between domains: sentiment here is to sentiment there as text is to text."""

    model: AskedConfig = AskedConfig()
    domains: tuple[str, ...] = ("toy_food", "toy_film", "toy_shop")
    """Labelled documents: ``toy_...`` are made up, ``amazon`` and ``yelp`` those of the paper, of
    TFDS; others are rows of :data:`linearize.data.text.TEXT_TASKS`."""
    pairs: tuple[tuple[str, str], ...] = ()
    """Auxiliary and target domain of each analogy. Where empty, each domain is the target once, the
    one before it the auxiliary."""
    data_dir: str | None = None
    """Where TFDS data sets lie, as TFDS prepares them."""
    length: Count = 48
    """Tokens of a text with its prompt; the text of a longer one is cut. Language modelling packs
    whole texts into rows of as many, of which it takes as many as there are texts, if there are."""
    train: Count | None = 500
    validation: Count | None = 100
    test: Count | None = 200
    """Documents of each domain at most; all where None."""
    data_seed: Seed = 0
    """Decides the splits."""
    nonlinear: TrainConfig = TrainConfig()
    linear: TrainConfig = TrainConfig()
    language: TrainConfig | None = None
    """Of language modelling in both regimes; as that of sentiment where None."""
    trainable: str | None = None
    """Regular expression of the parameter names to train; all where None."""
    regimes: tuple[str, ...] = ("nonlinear", "posthoc", "linear")
    """Rows of :data:`linearize.methods.METHODS` that train a vector a task."""
    edit: EditConfig = EditConfig(points=11)
    """The grid of each coefficient."""
    coarse: TwoOrMore | None = None
    """Points of that in views where each takes passes through the model, as the paper's do; as
    many as elsewhere where None."""
    map: MapConfig = MapConfig(n_eval=64)
    """Pairs of domains whose disentanglement error is mapped, of language modelling: by the next
    token, and by the total variation between the next tokens' distributions."""
    seeds: tuple[Seed, ...] = (0,)
    """Each draws its own order of the data; intervals are over them."""
    batch_size: Count = 16
    """Examples a call in evaluation."""

    def __post_init__(self) -> None:
        check(self, "", ConfigError)
        for field, least in (("domains", 2), ("regimes", 1), ("seeds", 1)):
            require_distinct(field, getattr(self, field), least)
        named = {name for name, method in METHODS.items() if method.stands == "regime"}
        require_names("regimes", self.regimes, named)
        for field, pairs in (("pairs", self.pairs), ("map.pairs", self.map.pairs)):
            for pair in pairs:
                for domain in pair:
                    require_task(field, domain, self.domains, "domains", self._known)
                require(pair[0] != pair[1], field, pair, "name two different domains")

    def _known(self) -> set[str]:
        """Names that domains may have."""
        from experiments.stand_ins import reviews  # readers of data are not needed but here
        from linearize.data.text import TEXT_SETS, TEXT_TASKS, text_set

        of_sets = {name for name in self.domains if text_set(name)}
        return {*reviews.DOMAINS, *PAPERS, *TEXT_TASKS, *TEXT_SETS, *of_sets}

    @property
    def reads(self) -> tuple[str, ...]:
        """Data sets, by the names that others know."""
        return tuple(PAPERS.get(name, name) for name in self.domains)

    @property
    def analogies(self) -> tuple[tuple[str, str], ...]:
        """Auxiliary and target of each."""
        return self.pairs or tuple(
            (self.domains[i - 1], target) for i, target in enumerate(self.domains)
        )

    def alphas(self, passes: bool) -> np.ndarray:
        """(G,) coefficients, in a view where each takes passes or none."""
        points = self.coarse if passes and self.coarse else self.edit.points
        return np.linspace(self.edit.low, self.edit.high, points)

    def pair(self, passes: bool) -> np.ndarray:
        """(G², 2) coefficients of τ_C and of τ_B − τ_A."""
        return square(self.alphas(passes))
