"""A small random T5, saved by transformers as a Hugging Face folder: weights to rehearse with.

Its files are those of ``google-t5/t5-*`` on the Hub: ``config.json``, ``model.safetensors``,
``tokenizer.json``; the vocabulary is that of the stand-in texts, with T5's ``</s>`` behind a text.
"""

import logging
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from linearize.models import WeightsError

log = logging.getLogger(__name__)

SIZES: dict[str, Any] = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
V1_1: dict[str, Any] = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
SPECIAL = ("<pad>", "</s>", "<unk>")


def make(folder: str | Path, words: Iterable[str], *, seed: int = 0, gated: bool = False) -> Path:
    """Write the model unless the folder holds one; it appears whole or not at all.

    Args:
        folder: made where absent.
        words: the vocabulary, whole words.
        seed: of the weights.
        gated: T5-v1.1 in place of T5.

    Raises:
        WeightsError: torch and transformers are not installed; or the folder holds other things.
    """
    folder = Path(folder)
    if (folder / "model.safetensors").is_file():
        return folder
    if folder.exists() and any(folder.iterdir()):
        raise WeightsError(f"{folder} holds other things than a model; choose another, or empty it")
    try:
        import torch
        import transformers
    except ImportError as error:
        raise WeightsError(
            f"the stand-in T5 is written by transformers ({error}): pip install torch==2.13.0 "
            "transformers==5.23.0, or give weights of your own (--model.weights)"
        ) from None
    log.info("making a small random T5 in %s", folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        vocabulary = [*SPECIAL, *sorted(set(words) - set(SPECIAL))]
        torch.manual_seed(seed)
        config = transformers.T5Config(
            vocab_size=len(vocabulary), **SIZES, **(V1_1 if gated else {})
        )
        model = transformers.T5ForConditionalGeneration(config)
        if gated:  # a head of its own, as v1.1 has
            width = SIZES["d_model"]
            model.lm_head.weight = torch.nn.Parameter(
                torch.randn(len(vocabulary), width) * width**-0.5
            )
        model.save_pretrained(temporary)
        _tokenizer(vocabulary).save(str(temporary / "tokenizer.json"))
        temporary.chmod(0o755)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _tokenizer(vocabulary: list[str]) -> Any:
    """A word, a token; behind each text of one or of a pair the end."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    made = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token=SPECIAL[2])
    )
    made.add_special_tokens(list(SPECIAL))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return made
