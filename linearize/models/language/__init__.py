"""Language models as ``f(params, tokens)``: one file a family, with its key table."""

from linearize.models.language.classifier import classifier as classifier
from linearize.models.language.families import LANGUAGE as LANGUAGE
from linearize.models.language.generation import Continuations as Continuations
from linearize.models.language.generation import generate as generate
from linearize.models.language.label_words import label_words as label_words
from linearize.models.language.label_words import prompted as prompted
from linearize.models.language.label_words import word_tokens as word_tokens
from linearize.models.language.loading import load_language as load_language
from linearize.models.language.model import LanguageFamily as LanguageFamily
from linearize.models.language.model import LanguageModel as LanguageModel
from linearize.models.language.sentence import has_types as has_types
from linearize.models.language.sentence import sentence_encoder as sentence_encoder
from linearize.models.language.tokens import LanguageTokenizer as LanguageTokenizer
from linearize.models.language.tokens import load_tokens as load_tokens
from linearize.models.language.tokens import tokens_of as tokens_of
