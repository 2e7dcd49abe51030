"""Tokenizers that older files, and GGUF, define less fully than a ``tokenizer.json``.

What they leave out is completed as the models' own code does: GPT-2's byte-level pairs (Radford et
al. 2019), RoBERTa's, BERT's and MPNet's word pieces, SmolLM2's single digits, Llama 3's splitting.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from linearize import files
from linearize.models import token_files
from linearize.models.language.gguf import Vocabulary
from linearize.models.token_files import TokenizerError

EXTRA = "language"
"""What installs the library."""


def byte_level(path: Path, told: Mapping[str, Any]) -> Any:
    """GPT-2's or RoBERTa's, by which special tokens the words have.

    Args:
        path: of ``vocab.json``; ``merges.txt`` lies beside it.
        told: what ``tokenizer_config.json`` says.
    """
    words, pairs = token_files.pairs(path, path.with_name("merges.txt"), EXTRA)
    if "<|startoftext|>" in words:
        raise TokenizerError(f"{path} is CLIP's; linearize.models.load_tokenizer reads it")
    library, made = token_files.library(EXTRA), _pairs(words, pairs)
    space = bool(told.get("add_prefix_space", False))
    made.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=space)
    roberta = ["<s>", "</s>", "<pad>", "<unk>", "<mask>"]
    if all(word in words for word in roberta):
        made.add_special_tokens(roberta[:-1])
        made.add_special_tokens([library.AddedToken("<mask>", lstrip=True, special=True)])
        ends = [(word, words[word]) for word in ("</s>", "<s>")]
        made.post_processor = library.processors.RobertaProcessing(*ends, True, space)
    elif "<|endoftext|>" in words:
        made.add_special_tokens(["<|endoftext|>"])
        if told.get("add_bos_token"):
            _begin(made, "<|endoftext|>")
    else:
        raise TokenizerError(
            f"{path} has neither <|endoftext|> nor {', '.join(roberta)}; it is neither GPT-2's "
            "nor RoBERTa's: write the tokenizer.json of its own"
        )
    return made


def _pairs(words: dict[str, int], merges: Sequence[Any], **options: Any) -> Any:
    """A byte-level tokenizer without its splitting into words."""
    library = token_files.library(EXTRA)
    model = library.models.BPE(vocab=words, merges=list(merges), fuse_unk=False, **options)
    made = library.Tokenizer(model)
    made.decoder = library.decoders.ByteLevel()
    return made


def _begin(made: Any, word: str) -> None:
    """Before every text stands this word, also before the second one of a pair."""
    made.post_processor = token_files.library(EXTRA).processors.TemplateProcessing(
        single=f"{word} $A",
        pair=f"{word} $A {word}:1 $B:1",
        special_tokens=[(word, made.token_to_id(word))],
    )


def word_pieces(path: Path, told: Mapping[str, Any]) -> Any:
    """BERT's or MPNet's, by which special tokens the words have.

    Where no file says whether text is put in lower case, the words tell: those of BERT's cased
    models have capitals.
    """
    library = token_files.library(EXTRA)
    lines = files.read_text(path, most=token_files.MOST).removesuffix("\n").split("\n")
    words = {word: number for number, word in enumerate(lines)}
    kinds = {
        "BERT": ("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"),
        "MPNet": ("<s>", "</s>", "<pad>", "[UNK]", "<mask>"),
    }
    kind = next((k for k, special in kinds.items() if all(w in words for w in special)), None)
    if kind is None:
        raise TokenizerError(
            f"{path} has neither {', '.join(kinds['BERT'])} nor {', '.join(kinds['MPNet'])}; it is "
            "neither BERT's nor MPNet's"
        )
    first, last, *_, mask = kinds[kind]
    pair = "$B:1 [SEP]:1" if kind == "BERT" else "</s> $B </s>"  # MPNet has no token types
    cased = any(word != word.lower() for word in words if not re.fullmatch(r"[\[<].*[\]>]", word))
    made = library.Tokenizer(library.models.WordPiece(words, unk_token="[UNK]"))
    made.normalizer = library.normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=told.get("tokenize_chinese_chars", True),
        strip_accents=told.get("strip_accents"),
        lowercase=told.get("do_lower_case", not cased),
    )
    made.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    made.decoder = library.decoders.WordPiece(prefix="##")
    made.add_special_tokens(list(kinds[kind][:-1]))
    made.add_special_tokens([library.AddedToken(mask, lstrip=kind == "MPNet", special=True)])
    made.post_processor = library.processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} {pair}",
        special_tokens=[(w, words[w]) for w in (first, last)],
    )
    return made


_CONTROL, _USER = 3, 4
"""Kinds of GGUF's tokens: not written in text, and written by users."""
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def of_gguf(held: Vocabulary, source: str) -> Any:
    """The tokenizer that a GGUF file holds.

    Raises:
        TokenizerError: it is of a kind that is not read, or damaged.
    """
    library = token_files.library(EXTRA)
    split = library.pre_tokenizers
    level = split.ByteLevel(add_prefix_space=False)
    after = split.ByteLevel(add_prefix_space=False, use_regex=False)
    splits = {
        "gpt-2": level,
        "smollm": split.Sequence([split.Digits(True), level]),
        "llama-bpe": split.Sequence([split.Split(library.Regex(_LLAMA_3), "isolated"), after]),
    }
    if held.model != "gpt2" or held.pre not in splits:
        raise TokenizerError(
            f"{source} has a tokenizer of the kind model={held.model!r}, pre={held.pre!r}; read is "
            f"'gpt2' with {', '.join(map(repr, splits))}. Put the model's tokenizer.json in a "
            "folder and point to that"
        )
    words = {word: number for number, word in enumerate(held.tokens)}
    kinds = held.kinds or (1,) * len(held.tokens)
    if len(words) != len(held.tokens) or len(kinds) != len(held.tokens):
        raise TokenizerError(f"{source}: a token is there twice, or of no kind; fetch it again")
    if wrong := [f"{r} {n}" for r, n in held.special.items() if not 0 <= n < len(words)]:
        raise TokenizerError(f"{source}: special tokens beyond its words: {', '.join(wrong)}")
    with token_files.reading(source):
        merges = [tuple(pair.split(" ")) for pair in held.merges]
        made = _pairs(words, merges, ignore_merges=held.pre == "llama-bpe")
        made.pre_tokenizer = splits[held.pre]
        for word, kind in zip(held.tokens, kinds, strict=True):
            added = library.AddedToken(word, normalized=False, special=kind == _CONTROL)
            if kind == _CONTROL:
                made.add_special_tokens([added])
            elif kind == _USER:
                made.add_tokens([added])
    if held.pre == "llama-bpe" if held.add_bos is None else held.add_bos:
        if "bos" not in held.special:
            raise TokenizerError(f"{source} begins texts with a bos token, and has none")
        _begin(made, held.tokens[held.special["bos"]])
    return made
