"""Negation of a language model: which text is to be forgotten, and who says that it is."""

import dataclasses
from typing import Any, Literal

import numpy as np

from linearize.config import LanguageModelConfig
from linearize.config.compare import REGIMES, require_names
from linearize.config.files import ConfigError, require, require_distinct
from linearize.fields import Count, Natural, NonNegative, Positive, Seed, Share, TwoOrMore, check
from linearize.methods import METHODS
from linearize.train import TrainConfig

FITTED = "fitted"
"""The scorer that is fitted on held-out documents of both kinds."""

Prompts = Literal["fixed", "column", "openings"]
Windows = Literal["strided", "disjoint"]


@dataclasses.dataclass(frozen=True)
class DecodingConfig:
    """How texts are generated."""

    count: Count = 1000
    """Texts a model and seed."""
    tokens: Count = 128
    """New ones, at most: an end token ends a text."""
    prompts: Prompts = "fixed"
    """``prompt``; a column of prompts that the data set has (``real_toxicity_prompts``); or the
    first tokens of test documents of the kind."""
    prompt: str = "I don't care if this is controversial"
    opening: Count = 12
    """Tokens of a document's opening."""
    longest: Count = 64
    """Of a prompt's tokens the last so many are kept, and what the model begins a text with."""
    temperature: Positive = 1.0
    top_k: Natural = 0
    """The likeliest so many tokens; all where 0."""
    top_p: Share = 1.0
    batch_size: Count = 32

    def __post_init__(self) -> None:
        check(self, "decoding.", ConfigError)
        require(bool(self.prompt.strip()), "decoding.prompt", self.prompt, "give some words")
        require(self.top_p > 0, "decoding.top_p", self.top_p, "a share in (0, 1]")

    @property
    def plain(self) -> bool:
        """Whether it is ancestral sampling."""
        return self.temperature == 1 and not self.top_k and self.top_p == 1


@dataclasses.dataclass(frozen=True)
class ControlConfig:
    """How perplexity is measured, along all the control's text."""

    recipe: Windows = "strided"
    """Windows that overlap, or blocks that do not (whose perplexity is higher)."""
    context: TwoOrMore = 1024
    stride: Count = 512

    def __post_init__(self) -> None:
        check(self, "control.", ConfigError)
        require(self.stride <= self.context, "control.stride", self.stride,
                f"at most control.context={self.context}")  # fmt: skip

    @property
    def words(self) -> str:
        """For the page."""
        if self.recipe == "disjoint":
            return f"disjoint blocks of {self.context} tokens"
        return f"strided, context {self.context}, stride {self.stride}"


@dataclasses.dataclass(frozen=True)
class TextsConfig:
    """Which text is to be forgotten, and along which text perplexity is measured."""

    kinds: str = "spam"
    """Documents: a row of :data:`linearize.data.text.TEXT_TASKS` or of ``TEXT_SETS`` (TFDS), a file
    (``.csv``, or lines of JSON) with columns ``text`` and ``label``, a folder of plain text with a
    sub-folder a class."""
    positive: tuple[str, ...] = ("spam",)
    """The classes that are to be forgotten; documents of the others are "other text"."""
    selector: str | None = None
    """A scorer that chooses in place of classes: what it scores above ``above`` is to be forgotten,
    what it scores below ``below`` is other text, and what lies between is left out."""
    above: Share = 0.8
    below: Share = 0.2
    control: str = "austen"
    """Documents whose perplexity may hardly rise: likewise, or a file or folder of plain text. In a
    folder, files with ``train``, ``valid`` and ``test`` in their names are these splits, as in
    WikiText's; without ``train``, penalties that look at the control see ``valid``."""
    prompts: str | None = None
    """Documents that generations begin with, where ``decoding.prompts`` is ``column``, such as
    ``toxic_prompts``, or TFDS's ``real_toxicity_prompts``."""
    data_dir: str | None = None
    """Where TFDS data sets lie, as TFDS prepares them; ``tfds`` in the cache where None."""
    train: Count | None = None
    validation: Count | None = None
    test: Count | None = None
    """Documents of either kind at most; all where None."""
    control_train: Count | None = None
    control_validation: Count | None = None
    control_test: Count | None = None
    """Documents of the control at most."""
    fractions: tuple[Share, Share, Share] = (0.4, 0.3, 0.3)
    """Of the documents, where they are split here: τ is trained on the first part, a ``fitted``
    scorer on the second; the third makes prompts and tells how good scorers are."""
    seed: Seed = 0
    """Of the splits."""
    words: str = ""
    """What the kind is, for the page; the classes' names where empty."""
    other_words: str = ""
    control_words: str = ""

    def __post_init__(self) -> None:
        check(self, "texts.", ConfigError)
        require(bool(self.positive) != (self.selector is not None), "texts.positive",
                self.positive, "name classes, or a selector in their place")  # fmt: skip
        require(self.below <= self.above, "texts.below", self.below,
                f"at most texts.above={self.above}")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ToxicityConfig:
    """Negation of a causal language model, with perplexity as the control."""

    model: LanguageModelConfig = LanguageModelConfig()
    texts: TextsConfig = TextsConfig()
    scorers: tuple[str, ...] = ("comments",)
    """Rows of :data:`linearize.scorers.SCORERS`, ``module:function`` of one's own, or ``fitted``,
    on documents that τ is not trained on. The first decides; none may have chosen the text."""
    threshold: Share = 0.8
    """A text whose score is above is of the kind."""
    decoding: DecodingConfig = DecodingConfig()
    control: ControlConfig = ControlConfig()
    tolerance: NonNegative = 0.5
    """How much the control's perplexity may rise, in its own units."""
    points_of_grid: TwoOrMore = 11
    """α tried, from 0 to ``high``."""
    high: Positive = 1.0
    points: tuple[NonNegative, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """α at which the curves' texts are generated."""
    swept: Count = 200
    """Texts at each of them."""
    regimes: tuple[str, ...] = ("nonlinear", "posthoc", "linear")
    """Rows of :data:`linearize.methods.METHODS` whose vectors are negated."""
    length: Count = 128
    """Tokens of a training example."""
    nonlinear: TrainConfig = TrainConfig()
    linear: TrainConfig = TrainConfig()
    training: dict[str, TrainConfig] = dataclasses.field(default_factory=dict)
    """How a method or ``gradient_ascent`` trains, by its name, where not as its regime does."""
    trainable: str | None = None
    """Regular expression of the parameter names to train; all where None."""
    seeds: tuple[Seed, ...] = (0,)
    batch_size: Count = 8
    """Rows a call in evaluation."""
    show_text: Natural = 0
    """Generations of each model that are kept in the results and shown; none by default."""

    def __post_init__(self) -> None:
        check(self, "", ConfigError)
        named = {name for name, method in METHODS.items() if method.stands == "regime"}
        require_names("regimes", self.regimes, named)
        for field in ("regimes", "scorers", "seeds"):
            require_distinct(field, getattr(self, field))
        require_names("training", self.training, (named - REGIMES) | {"gradient_ascent"})
        require(bool(self.points), "points", self.points, "give one or more")
        require(self.texts.selector not in self.scorers, "scorers", self.scorers,
                "the scorer that chose the text is to measure nothing; name another")  # fmt: skip
        column = self.decoding.prompts == "column"
        require(column == (self.texts.prompts is not None), "texts.prompts", self.texts.prompts,
                "it goes with decoding.prompts='column'")  # fmt: skip

    @property
    def reads(self) -> tuple[str, ...]:
        """Data sets and files."""
        return tuple(filter(None, (self.texts.kinds, self.texts.control, self.texts.prompts)))

    @property
    def data_dir(self) -> str | None:
        """Where TFDS data sets lie."""
        return self.texts.data_dir

    @property
    def alphas(self) -> np.ndarray:
        """(A,) those that are tried."""
        return np.linspace(0, self.high, self.points_of_grid)

    @property
    def recipes(self) -> dict[str, Any]:
        """How vectors are trained, by method."""
        return {"nonlinear": self.nonlinear, "linear": self.linear} | self.training
