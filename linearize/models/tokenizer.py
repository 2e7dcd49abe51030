"""CLIP's byte-pair tokenizer: from the files beside the weights, or from OpenAI's merges.

The work is that of the ``tokenizers`` library; here is what CLIP asks of it (Radford et al. 2021,
§2.4): NFC, white space made single, lower case, byte-level pairs that end words with ``</w>``.
"""

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from linearize import assets, files
from linearize.models import hf, token_files
from linearize.models.hf import sources
from linearize.models.token_files import TokenizerError as TokenizerError

START, END = "<|startoftext|>", "<|endoftext|>"
_WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
_MERGES = 49152 - 256 - 2
_SIZE = 49408
_OTHER_TOKENS = ("hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs")


@dataclass(frozen=True)
class Tokenizer:
    """Sentences to tokens, as CLIP's text tower wants them.

    Attributes:
        source: where its vocabulary comes from.
        backend: the ``tokenizers.Tokenizer``.
        fingerprint: SHA-256 of its definition.
    """

    source: str
    backend: Any
    fingerprint: str

    @property
    def vocabulary(self) -> int:
        """One more than the largest token."""
        return token_files.size(self.backend)

    def __call__(self, sentences: Sequence[str], context: int = 77) -> np.ndarray:
        """Tokens ``(N, context)`` int32: start, words, end, then zeros.

        What is too long is cut, and the end token kept.

        Raises:
            ValueError: no sentence, something else than a string, or a context below 2.
            TokenizerError: its files have no token for a part of a sentence.
        """
        if isinstance(sentences, str) or not len(sentences):
            raise ValueError(f"sentences={sentences!r}; expected a list of one sentence or more")
        if wrong := [s for s in sentences if not isinstance(s, str)]:
            raise ValueError(f"sentences hold {wrong[0]!r}, which is no string")
        if context < 2:
            raise ValueError(
                f"context={context}; a sentence has a start and an end: give 2 or more"
            )
        tokens = np.zeros((len(sentences), context), np.int32)
        found = token_files.encoded(self.backend.encode_batch, self.source, sentences)
        for row, ids in zip(tokens, (x.ids for x in found), strict=True):
            row[: len(ids)] = ids if len(ids) <= context else [*ids[: context - 1], ids[-1]]
        return tokens


def load_tokenizer(
    weights: str | Path | hf.Source | None = None, *, vocabulary: int = _SIZE
) -> Tokenizer:
    """The tokenizer of a text tower.

    Args:
        weights: as for :func:`linearize.models.load_text`. ``tokenizer.json`` beside them, or
            ``vocab.json`` and ``merges.txt``, is taken. Where there is none, as with OpenAI's
            archive and the task-vector authors' checkpoints, OpenAI's merges are; OpenCLIP's
            models have these too.
        vocabulary: the tower's number of tokens.

    Raises:
        TokenizerError: the files are damaged, of another kind or of more tokens than the tower has;
            or there are none, and the tower's vocabulary is not OpenAI's.
        ModuleNotFoundError: ``tokenizers`` is not installed.
        WeightsError: the Hub cannot be reached.
        AssetError: OpenAI's merges are not in the cache and cannot be fetched.
    """
    token_files.library("clip")
    if weights is not None:
        _check_open_clip(weights)
    whole = None if weights is None else sources.beside(weights, ["tokenizer.json"])
    merges = None if weights is None or whole else sources.beside(weights, ["merges.txt"])
    words = None if merges is None else sources.beside(weights or "", ["vocab.json"])
    with token_files.reading(whole or merges):
        if whole is not None:
            found, source = token_files.whole(whole, "clip"), str(whole)
        elif merges is not None and words is not None:
            found, source = (
                _clip(*token_files.pairs(words, merges, "clip"), str(words)),
                str(merges),
            )
        elif vocabulary == _SIZE:
            path = assets.fetch("clip_bpe")
            found, source = _openai(path), assets.REGISTRY["clip_bpe"].source
        else:
            raise TokenizerError(
                f"there is no tokenizer beside {weights}, and its text tower's {vocabulary} tokens "
                f"are not OpenAI's {_SIZE}; put its tokenizer.json, or vocab.json and merges.txt, "
                "beside the weights"
            )
    return _checked(token_files.plain(found), source, vocabulary)


def _check_open_clip(weights: str | Path | hf.Source) -> None:
    """OpenCLIP's configuration asks for no other way from sentences to tokens than CLIP's."""
    note = sources.beside(weights, ["open_clip_config.json"])
    if note is None:
        return
    try:
        told = files.read_json(note)
        asked = told.get("model_cfg", told)["text_cfg"]
        wrong = {k: asked[k] for k in _OTHER_TOKENS if asked.get(k)}
    except (AttributeError, KeyError, TypeError):
        return  # no text tower, which load_text says
    except (OSError, files.CorruptFileError) as error:
        raise TokenizerError(str(error)) from error
    if wrong:
        raise TokenizerError(
            f"{note}: text_cfg asks for tokens of another kind than CLIP's, by {wrong}"
        )


def _checked(found: Any, source: str, vocabulary: int) -> Tokenizer:
    (empty,) = token_files.encoded(found.encode_batch, source, [""])
    ids = empty.ids
    if len(ids) != 2 or ids[0] == ids[1]:
        raise TokenizerError(
            f"{source} makes {ids} of an empty sentence; a tokenizer of CLIP makes a start and an "
            "end token: is it another model's?"
        )
    tokenizer = Tokenizer(source, found, token_files.fingerprint(found))
    if tokenizer.vocabulary > vocabulary:
        raise TokenizerError(
            f"{source} has {tokenizer.vocabulary} tokens and the text tower {vocabulary}: is it "
            "another model's?"
        )
    return tokenizer


def _openai(path: Path) -> Any:
    """OpenAI's vocabulary: bytes, bytes that end a word, merges in order, start and end."""
    lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")
    merges = [tuple(line.split()) for line in lines[1 : 1 + _MERGES]]
    alphabet = _bytes()
    words = [*alphabet, *(c + "</w>" for c in alphabet), *("".join(m) for m in merges), START, END]
    return _clip({word: i for i, word in enumerate(words)}, merges)


def _bytes() -> list[str]:
    """The characters that stand for bytes, in the order of CLIP's vocabulary: printable first."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) for b in printable] + [chr(256 + n) for n in range(256 - len(printable))]


def _clip(vocabulary: dict[str, int], merges: Sequence[Any], where: str = "the vocabulary") -> Any:
    """CLIP's tokenizer of a vocabulary and its merges."""
    library = token_files.library("clip")
    missing = [token for token in (START, END) if token not in vocabulary]
    if missing:
        raise TokenizerError(f"{where} has no {', '.join(missing)}; it is not CLIP's")
    model = library.models.BPE(
        vocab=vocabulary,
        merges=list(merges),
        continuing_subword_prefix="",
        end_of_word_suffix="</w>",
        fuse_unk=False,
        unk_token=END,
    )
    made = library.Tokenizer(model)
    regex, normal, split = library.Regex, library.normalizers, library.pre_tokenizers
    made.normalizer = normal.Sequence(
        [normal.NFC(), normal.Replace(regex(r"\s+"), " "), normal.Lowercase()]
    )
    made.pre_tokenizer = split.Sequence(
        [
            split.Split(regex(_WORDS), behavior="removed", invert=True),
            split.ByteLevel(add_prefix_space=False),
        ]
    )
    made.add_special_tokens([START, END])
    made.post_processor = library.processors.RobertaProcessing(
        (END, vocabulary[END]), (START, vocabulary[START]), False, False
    )
    return made
