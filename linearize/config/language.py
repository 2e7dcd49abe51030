"""Language models and their texts as an experiment is told of them."""

import dataclasses
import logging
from typing import Literal

from linearize.config.files import ConfigError, require, require_tasks, said_as_configuration
from linearize.data import Limits
from linearize.data.text import TextTask, open_text
from linearize.data.text.tables import OnEmpty
from linearize.data.text.tokens import TooLong
from linearize.fields import Count, Seed, check
from linearize.models import LanguageModel, load_language
from linearize.models.language import LanguageTokenizer, tokens_of

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class LanguageModelConfig:
    """Which language model, and how much of it."""

    name: str = "smollm2_135m"
    """A row of :data:`linearize.models.LANGUAGE`."""
    weights: str | None = None
    """A folder, a file or a repository on the Hub; the packaged ones where None."""
    pretrained: bool = True
    """False draws the weights at random, from ``seed``."""
    seed: Seed = 0
    blocks: Count | None = None
    """How many blocks to keep, counted from the input; all where None."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the computation; parameters, τ and outputs are float32."""
    scan: bool = False
    """One scanned block in place of many: compiles faster, and ``remat`` saves memory."""
    remat: Literal["none", "dots", "full"] = "none"
    """What blocks keep for the backward pass: all, matrix products, or their input alone."""

    def __post_init__(self) -> None:
        check(self, "model.", ConfigError)
        require(self.weights != "", "model.weights", self.weights, "give a path or a repository")

    def load(self, field: str = "model") -> LanguageModel:
        """The model at θ0, read anew; ``field`` is what messages call it.

        Raises:
            ConfigError: there is no such model, or it cannot be made so.
            WeightsError: its weights cannot be read.
        """
        log.info("reading model %s", self.name)
        with said_as_configuration(field):
            return load_language(
                self.name,
                weights=self.weights if self.pretrained else None,
                pretrained=self.pretrained,
                seed=self.seed,
                blocks=self.blocks,
                dtype=self.dtype,
                remat=self.remat,
                scan=self.scan,
            )

    def tokenizer(self, model: LanguageModel) -> LanguageTokenizer:
        """The tokenizer beside the weights of the model that :meth:`load` gave.

        Raises:
            ConfigError: there is none, such as of random weights, or it is another model's.
        """
        with said_as_configuration("model"):
            return tokens_of(model)


@dataclasses.dataclass(frozen=True)
class TextDataConfig:
    """Which texts, how long they may be, and how many of each split at most."""

    tasks: tuple[str, ...] = ("sentiment_amazon", "sentiment_yelp")
    """Rows of :data:`linearize.data.text.TEXT_TASKS` or ``TEXT_SETS``, or paths of one's own CSV
    files, JSON lines or folders of text."""
    control: str | None = None
    """Texts that nothing is trained on; none where None."""
    text: str = "text"
    """The column of texts in files of one's own."""
    label: str | None = "label"
    """The column of class names there; None where texts are all there is."""
    pair: str | None = None
    """The column of second texts there."""
    delimiter: str | None = None
    """Between columns, where it is no comma."""
    on_empty: OnEmpty = "error"
    """What becomes of rows without a text."""
    length: Count = 64
    """Tokens of a row."""
    too_long: TooLong = "cut"
    """What becomes of longer texts."""
    train: Count | None = None
    """All where None; so are the others."""
    validation: Count | None = None
    test: Count | None = None
    seed: Seed = 0
    """Decides the splits; a run's own seeds decide heads and data order."""
    data_dir: str | None = None
    """Where sets of TFDS lie; ``tfds`` in the cache where None."""

    def __post_init__(self) -> None:
        check(self, "data.", ConfigError)
        require_tasks(self.tasks, self.control, least=1)

    def load(self, name: str) -> TextTask:
        """The documents of a task, in three splits.

        Raises:
            ConfigError: there is no such task or file, or it cannot be used.
            AssetError: a packaged one could not be fetched.
        """
        with said_as_configuration("data"):
            return open_text(
                name,
                text=self.text,
                label=self.label,
                pair=self.pair,
                delimiter=self.delimiter,
                on_empty=self.on_empty,
                limit=Limits(self.train, self.validation, self.test),
                seed=self.seed,
                data_dir=self.data_dir,
            )
