"""Files of tokenizers, and the ``tokenizers`` library that does their work."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from linearize import assets, files

MOST = 2**26
"""Bytes of a file of words, and words."""


class TokenizerError(ValueError):
    """There is no tokenizer for a model, or its files are damaged or of another model."""


def library(extra: str) -> Any:
    """``tokenizers``.

    Raises:
        ModuleNotFoundError: it is not installed; ``extra`` brings it.
    """
    try:
        import tokenizers
    except ImportError:
        raise ModuleNotFoundError(
            f"text is tokenised with tokenizers: pip install 'linearize[{extra}]'"
        ) from None
    return tokenizers


@contextlib.contextmanager
def reading(path: object) -> Iterator[None]:
    """What the library says of a file, which it says by plain Exceptions and by panics.

    Raises:
        TokenizerError: with the file's name.
    """
    try:
        yield
    except (TokenizerError, assets.AssetError, ImportError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise TokenizerError(f"{path} cannot be read ({error}); fetch it again") from error


def whole(path: Path, extra: str) -> Any:
    """The tokenizer that a ``tokenizer.json`` defines; inside :func:`reading`."""
    files.read_json(path, most=MOST)
    return library(extra).Tokenizer.from_str(files.read_text(path, most=MOST))


def pairs(words: Path, merges: Path, extra: str) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Words with their numbers, and merges, of ``vocab.json`` and ``merges.txt``; likewise."""
    for word, number in files.read_json(words, most=MOST).items():
        if type(number) is not int or not 0 <= number < MOST:
            raise TokenizerError(f"{words}: the number of {word[:50]!r} is {number!r:.50}")
    files.check_regular(merges)
    return library(extra).models.BPE.read_file(str(words), str(merges))


def encoded(encode: Callable[..., Any], source: str, texts: Sequence[str], **options: Any) -> Any:
    """What a ``tokenizers.Tokenizer``'s method makes of texts.

    Raises:
        TokenizerError: its files have no token for a part of a text.
    """
    try:
        return encode(list(texts), **options)
    except Exception as error:  # the library raises plain Exceptions
        raise TokenizerError(
            f"{source} makes no tokens of these sentences ({error}); fetch it again"
        ) from error


def plain(backend: Any) -> Any:
    """The same without the truncation and the padding that its file was saved with."""
    backend.no_truncation()
    backend.no_padding()
    return backend


def size(backend: Any) -> int:
    """One more than the largest token."""
    return max(backend.get_vocab().values(), default=-1) + 1


def fingerprint(backend: Any) -> str:
    """SHA-256 of its definition."""
    return hashlib.sha256(backend.to_str().encode()).hexdigest()
