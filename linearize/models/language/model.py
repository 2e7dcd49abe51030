"""What a language model is to the rest of the library: hidden states, a head, and both in one."""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from flax import linen as nn

from linearize.models.backbone import WeightsError
from linearize.models.hf import schema
from linearize.models.hf.table import Table
from linearize.models.model import Model
from linearize.types import Apply, Array

Head = Callable[..., Array]
"""``head(params, hidden (..., D), words=None) -> logits (..., V) float32``; of ``words (C,)`` alone
(..., C): then no other row of the vocabulary's table is multiplied.
"""


_SHAPES = ("vocabulary", "width", "hidden", "depth", "decoder_depth", "context")
"""Fields that the shapes of tensors tell, and one that decides nothing."""


@dataclass(frozen=True, eq=False)
class LanguageModel(Model):
    """A model of tokens: ``f(params, *inputs) -> logits (B, L, V) float32``.

    A decoder's inputs are ``tokens (B, L)`` integers; its padding stands behind. An encoder's are
    ``tokens`` and ``mask (B, L)`` booleans, true where a token is no padding. An encoder–decoder's
    are ``tokens, mask, answer (B, A)``: L is A then, and the logits are those after each token of
    the answer.

    Attributes:
        hidden: ``hidden(params, *inputs) -> (B, L, D)``: what the head reads, after the last norm.
        head: of hidden states; ``f`` is the head of the hidden states. None of an encoder without
            one, whose ``f`` is ``hidden``.
        step: ``step(params, tokens (B, S), cache) -> (hidden (B, S, D), cache)`` of a decoder: the
            S tokens after those that the cache has seen. None where there is no decoder.
            Where parameters and cache have the names of stacked blocks, it takes both of blocks one
            by one too (:func:`linearize.models.layers.unstack`), as ``linearize.generate`` does.
        cache: ``cache(batch, length)``: an empty cache for up to ``length`` tokens, arrays by name,
            among them ``seen ()`` int32, how many tokens there are.
        encode: in its place, of an encoder–decoder, ``encode(params, tokens, mask, length)``: a
            cache of the text for up to ``length`` tokens of an answer.

    ``about`` has the ``family`` (:class:`LanguageFamily`) and its ``kind``, the ``architecture``
    (the module's fields), the ``config`` in transformers' words, and the ``weights``, a file that
    others wrote, if θ0 was read from one.
    """

    _: KW_ONLY
    hidden: Apply
    head: Head | None = None
    step: Callable[..., tuple[Array, Any]] | None = None
    cache: Callable[[int, int], Any] | None = None
    encode: Callable[..., Any] | None = None

    @property
    def family(self) -> "LanguageFamily | None":
        """Whose weights it reads and writes; None of a model of one's own."""
        return self.about.get("family")

    def check_same(self, notes: Mapping[str, Any], what: str) -> None:
        """A configuration, if there is one, makes of the same weights the function that this is.

        Args:
            notes: parsed files by name, as :class:`linearize.models.hf.Source` has them.
            what: where they lie, for messages.

        Raises:
            WeightsError: it is another family's, or makes another function; sizes that tensors'
                shapes tell are not compared.
        """
        if "config.json" not in notes or self.family is None:
            return
        told, where = notes["config.json"], f"{what}/config.json"
        kind = told.get("model_type") if isinstance(told, Mapping) else None
        if kind != self.family.kind:
            raise WeightsError(
                f"{where} is of model_type {schema.said(kind)}; {self.name} is a "
                f"{self.family.kind!r}"
            )
        ours = self.about["architecture"]
        wrong = [
            f"{name} is {value!r} there and {ours[name]!r} here"
            for name, value in self.family.configure(told, where).items()
            if name not in (*_SHAPES, *self.family.optional)
            and _cut(value, ours["depth"]) != _cut(ours.get(name, value), ours["depth"])
        ]
        if wrong:
            raise WeightsError(
                f"{where} would compute something else of these weights; nothing was done: "
                + "; ".join(wrong)
            )

    @property
    def vocabulary(self) -> int:
        """V, the number of tokens that the embedding has."""
        return self.about["vocabulary"]

    @property
    def context(self) -> int | None:
        """The largest L; None where positions are relative."""
        return self.about["context"]

    @property
    def width(self) -> int:
        """D, of a hidden state."""
        return self.about["width"]


def _cut(value: Any, depth: int) -> Any:
    """What is told of each block, of the first so many."""
    return value[:depth] if isinstance(value, tuple) else value


@dataclass(frozen=True)
class LanguageFamily:
    """One row of the table of language models: a module, and whose weights it reads and writes.

    Attributes:
        module: the class to build; its fields are an architecture, ``vocabulary``, ``width``,
            ``depth`` and ``context`` (None where positions are relative) among them, and ``dtype``,
            ``scan`` and ``remat``. Its methods are ``__call__`` (hidden states),
            ``logits(hidden, words=None)``, if it has a head (:data:`Head`), and, of decoders,
            ``step`` and ``cache`` or ``encode`` (:class:`LanguageModel`).
        configure: ``configure(config, where) -> fields``: those that a ``config.json`` of
            transformers makes; refuses by name what it says that the module does not do. ``where``
            is the file, for messages.
        dialects: names that such weights may have, read and written; the first is transformers'.
        kind: ``model_type`` of that configuration.
        config: what the name alone says, in the configuration's own words; empty where the
            configuration beside the weights tells it.
        repeated: tensors that such files may hold once more, because the model ties them: their
            name, and the tensor's whose values they have.
        optional: fields of the module, and a tensor of the file each that says whether its part is
            there (a head, a pooler), whatever the configuration says.
        deep: the configuration's word for the number of blocks.
        also: fields of the module that count the blocks of other stacks, and its word for each.
        each: its word for a list that tells something of each block, or "".
        inputs: what the model takes, ``"tokens"``, ``"tokens mask"`` or ``"tokens mask answer"``.
        builds: the class of transformers that opens an export.
        bare: the class that opens one without a head, where a model may have none.
        hub: where its weights are on the Hub.
        packaged: the asset that holds its weights, or "".
        tokens: the asset that holds its tokenizer, or "" where the weights do.
    """

    module: Callable[..., nn.Module]
    configure: Callable[[Mapping[str, Any], str], dict[str, Any]]
    dialects: tuple[Table, ...]
    kind: str
    _: KW_ONLY
    config: Mapping[str, Any] = field(default_factory=dict)
    repeated: Mapping[str, str] = field(default_factory=dict)
    optional: Mapping[str, str] = field(default_factory=dict)
    deep: str = "num_hidden_layers"
    also: Mapping[str, str] = field(default_factory=dict)
    each: str = ""
    inputs: str = "tokens"
    builds: str = ""
    bare: str = ""
    hub: str = ""
    packaged: str = ""
    tokens: str = ""
