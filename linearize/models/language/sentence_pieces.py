"""SentencePiece's ``spiece.model`` of T5, which v1.1 has instead of a ``tokenizer.json``.

The file is a protocol buffer (``sentencepiece_model.proto``, Kudo and Richardson 2018); of it the
pieces with their scores and the table of characters are read.
"""

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from linearize import files
from linearize.models import token_files
from linearize.models.language.token_kinds import EXTRA
from linearize.models.token_files import TokenizerError

_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE, _SCORE, _KIND = 1, 2, 3
_MODEL_TYPE, _CHARACTERS = 3, 2
_UNIGRAM, _UNKNOWN = 1, 2
EXTRA_IDS = 100
"""T5's sentinels, behind the pieces, the last one first."""


def t5(path: Path, told: Mapping[str, Any]) -> Any:
    """T5's tokenizer: pieces of words, ``</s>`` behind; inside :func:`token_files.reading`.

    Args:
        path: of the file.
        told: what ``tokenizer_config.json`` says.

    Raises:
        TokenizerError: it is truncated, or of another algorithm than T5's unigrams.
    """
    library = token_files.library(EXTRA)
    whole = dict[int, list[Any]]()
    for field, value in _fields(path, files.read_bytes(path, token_files.MOST)):
        whole.setdefault(field, []).append(value)
    trainer, normalizer = (
        dict(_fields(path, whole.get(part, [b""])[-1])) for part in (_TRAINER, _NORMALIZER)
    )
    pieces = [dict(_fields(path, piece)) for piece in whole.get(_PIECES, [])]
    unknown = [i for i, piece in enumerate(pieces) if piece.get(_KIND) == _UNKNOWN]
    if trainer.get(_MODEL_TYPE, _UNIGRAM) != _UNIGRAM or len(unknown) != 1:
        raise TokenizerError(
            f"{path} is no model of unigrams with one unknown piece, as T5's is; write its "
            "tokenizer.json with transformers: "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    listed = [
        (piece[_PIECE].decode(), struct.unpack("<f", piece.get(_SCORE, bytes(4)))[0])
        for piece in pieces
    ]
    extras = [(f"<extra_id_{i}>", 0.0) for i in range(told.get("extra_ids", EXTRA_IDS))]
    made = library.Tokenizer(library.models.Unigram(listed + extras[::-1], unknown[0], False))
    if characters := normalizer.get(_CHARACTERS):
        made.normalizer = library.normalizers.Precompiled(characters)
    split = library.pre_tokenizers
    made.pre_tokenizer = split.Sequence([split.WhitespaceSplit(), split.Metaspace()])
    made.decoder = library.decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    if lost := [word for word in special if made.token_to_id(word) is None]:
        raise TokenizerError(f"{path} has no {', '.join(lost)}; it is not T5's")
    made.add_special_tokens([*special, *(word for word, _ in extras)])
    made.post_processor = library.processors.TemplateProcessing(
        single="$A </s>",
        pair="$A </s> $B </s>",
        special_tokens=[("</s>", made.token_to_id("</s>"))],
    )
    return made


def _fields(path: Path, data: bytes) -> Iterator[tuple[int, Any]]:
    """Numbers of fields of a message and their values: integers, or bytes."""
    at = 0

    def take(size: int) -> bytes:
        nonlocal at
        if not 0 <= size <= len(data) - at:
            raise TokenizerError(f"{path} is truncated or no SentencePiece model; fetch it again")
        at += size
        return data[at - size : at]

    def varint() -> int:
        found = shift = 0
        while shift < 64:
            (byte,) = take(1)
            found |= (byte & 127) << shift
            if byte < 128:
                return found
            shift += 7
        return take(-1)[0]

    while at < len(data):
        field, wire = divmod(varint(), 8)
        if wire == 0:
            yield field, varint()
        else:
            sizes = {1: lambda: 8, 2: varint, 5: lambda: 4}
            yield field, take(sizes.get(wire, lambda: -1)())
