"""A language model and its tokenizer, as a configuration tells them; or made-up words."""

from typing import Any

from experiments.stand_ins.reviews import Words
from linearize.config import LanguageModelConfig
from linearize.config.files import require
from linearize.models import Model
from linearize.models.language import LanguageModel, sentence_encoder
from linearize.models.language.sentence import told as pooling


def speaker(told: LanguageModelConfig) -> tuple[LanguageModel, Any]:
    """The model at θ0, and its tokenizer: that beside its weights, or made-up words of random ones.

    Raises:
        ConfigError: there is no such model or tokenizer.
        WeightsError: the weights cannot be read.
    """
    model = told.load()
    return model, told.tokenizer(model) if model.about["weights"] else Words()


def as_encoder(model: LanguageModel) -> Model:
    """A sentence encoder, pooled as the files beside its weights say.

    Raises:
        WeightsError: they ask for what is not computed here.
    """
    where = model.about["weights"]
    return sentence_encoder(model, **({} if where is None else pooling(where)))


def check_length(model: LanguageModel, length: int) -> None:
    """Texts of ``length`` tokens are within the model's context.

    Raises:
        ConfigError: they are not.
    """
    most = model.context
    remedy = f"{model.name} reaches {most} tokens; lower it"
    require(most is None or length <= most, "length", length, remedy)
