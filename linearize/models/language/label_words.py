"""Classification by label words: logits of a few words at one position of a prompt.

``S It was <mask>.`` with the words *terrible* and *great* is a classifier of sentences (Schick and
Schütze 2021, arXiv 2001.07676; Gao et al. 2021, arXiv 2012.15723); a decoder says the word after
its prompt. Of the head the words' rows alone are multiplied.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from linearize import identity
from linearize.choices import one_of
from linearize.models.language.model import LanguageModel
from linearize.models.language.tokens import LanguageTokenizer, named
from linearize.models.model import Model
from linearize.types import Array, Params

PLACES = ("last", "mask")


def label_words(model: LanguageModel, words: Sequence[int]) -> Model:
    """A classifier of prompts: ``f(params, *inputs, at) -> logits (B, C) float32``.

    Args:
        model: with a head; its inputs stand before ``at (B,)`` integers, the position whose next
            token (of a decoder) or own token (of a masked model) is asked for
            (:func:`prompted`). A position that is not there gives NaN.
        words: C tokens, one a class (:func:`word_tokens`).

    Raises:
        ValueError: the model has no head, or a word is beyond its vocabulary or there twice.
    """
    head, hidden, chosen = model.head, model.hidden, [int(word) for word in words]
    if head is None:
        raise ValueError(
            f"{model.name} has no language-model head, whose rows label words are; take a model "
            "with one, or classify its features"
        )
    if len(set(chosen)) != len(chosen) or len(chosen) < 2:
        raise ValueError(f"words={chosen}; expected two tokens or more, each of one class")
    if min(chosen) < 0 or max(chosen) >= model.vocabulary:
        raise ValueError(
            f"words={chosen}; {model.name} has the tokens 0 to {model.vocabulary - 1}: is this "
            "another model's tokenizer?"
        )

    def f(params: Params, *inputs: Array) -> Array:
        *seen, at = inputs
        states = hidden(params, *seen)
        rows = jnp.arange(states.shape[0])
        asked = states.at[rows, at].get(mode="fill", wrap_negative_indices=False)
        return head(params, asked, jnp.asarray(chosen))

    if (stated := identity.whole(model.f)) is not None:
        f.fingerprint = f"{stated} at the words {chosen}"  # type: ignore[attr-defined]
    return Model(
        f,
        model.params,
        name=model.name,
        blocks=model.blocks,
        about={**model.about, "words": chosen},
    )


def word_tokens(
    tokenizer: LanguageTokenizer, words: Sequence[str], *, spaced: bool = True
) -> list[int]:
    """The token of each label word.

    Args:
        tokenizer: the model's.
        words: C words, different ones, in the classes' order.
        spaced: as they stand after another word; otherwise as at a text's beginning, for prompts
            that end in a line break.

    Raises:
        ValueError: a word of several tokens (named, with its pieces), of none, or unknown to the
            vocabulary; or two that are one token. All are named. One string in place of a list.
    """
    if isinstance(words, str):
        raise ValueError(f"words={words!r:.80}; expected a list of words, one a class")
    before = "a " if spaced else ""
    (first,) = tokenizer.ids(["a"]) if spaced else ([],)
    found: list[int] = []
    problems = []
    for word, ids in zip(
        words, tokenizer.ids([before + word.strip() for word in words]), strict=True
    ):
        own = ids[len(first) :] if ids[: len(first)] == first else ids
        if not word.strip():
            problems.append(f"{word!r} is no word")
        elif len(own) != 1:
            pieces = ", ".join(repr(tokenizer.token(i)) for i in own)
            problems.append(f"{word!r} is {len(own)} tokens ({pieces})")
        elif own[0] == tokenizer.special.get("unk"):
            problems.append(f"{word!r} is unknown to the vocabulary")
        elif own[0] in found:
            problems.append(f"{word!r} is the token of {words[found.index(own[0])]!r}")
        found += own[:1] or [-1]
    if problems:
        raise ValueError(
            f"a label word is one token of {tokenizer.source}, and each another: "
            f"{'; '.join(problems)}. Choose other words"
        )
    return found


def prompted(
    tokenizer: LanguageTokenizer,
    texts: Sequence[str],
    length: int | None = None,
    *,
    at: str = "last",
    cut: str | None = None,
) -> tuple[np.ndarray, ...]:
    """Prompts as the inputs of :func:`label_words`.

    Args:
        tokenizer: the model's.
        texts: N prompts.
        length: L, and what becomes of longer ones: as :meth:`LanguageTokenizer.encode`.
        at: ``"last"``: after the prompt's own last token, of a decoder; ``"mask"``: where the mask
            token's name stands in the prompt, of a masked model.
        cut: likewise.

    Returns:
        ``(tokens, at)`` of a decoder, ``(tokens, mask, at)`` of a masked model: int32 (N, L),
        booleans (N, L), int32 (N,).

    Raises:
        TokenizerError: the tokenizer has no mask token.
        ValueError: a prompt holds it not once; and as :meth:`LanguageTokenizer.encode`.
    """
    one_of("at", at, PLACES)
    if at == "last":
        tokens, mask = tokenizer.encode(texts, length, cut=cut)
        return tokens, mask.sum(1, dtype=np.int32) - 1 - tokenizer.behind
    name = tokenizer.token(tokenizer.mask)
    tokens, mask = tokenizer.encode(texts, length, cut=cut)
    here = tokens == tokenizer.mask
    if wrong := np.flatnonzero(here.sum(1) != 1).tolist():
        raise ValueError(
            f"{named('texts', wrong)} {'holds' if len(wrong) == 1 else 'hold'} {name} not once "
            f"(within {tokens.shape[1]} tokens); a prompt asks at one mask"
        )
    return tokens, mask, here.argmax(1).astype(np.int32)
