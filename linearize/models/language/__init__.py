"""Language models as ``f(params, tokens)``: one file a family, with its key table."""

from linearize.models.language.model import LanguageModel as LanguageModel
