"""A small random T5, saved by transformers as a Hugging Face folder: weights to rehearse with.

Its files are those of ``google-t5/t5-*`` on the Hub: ``config.json``, ``model.safetensors``,
``tokenizer.json``; the vocabulary is that of the stand-in texts, with T5's ``</s>`` behind a text.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from configs.compare import STAND_INS
from experiments.stand_ins import texts
from experiments.stand_ins.model import written

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


def rehearse(
    weights: str | None,
    data_dir: str | None,
    names: tuple[str, ...],
    asked: Iterable[str],
    *,
    gated: bool = False,
) -> None:
    """Make the model and the sets that a configuration reads as stand-ins; nothing of any other.

    Args:
        weights: the model's folder.
        data_dir: the sets' folder.
        names: of the sets, by TFDS.
        asked: words of prompts and answers.
        gated: T5-v1.1 in place of T5.

    Raises:
        WeightsError: transformers, which writes the model, is not installed.
    """
    if weights and data_dir and Path(STAND_INS) in Path(weights).parents:
        make(weights, [*texts.WORDS, *asked], gated=gated)
        texts.make(data_dir, names)


def make(folder: str | Path, words: Iterable[str], *, seed: int = 0, gated: bool = False) -> Path:
    """Write the model unless the folder holds one.

    Args:
        folder: made where absent.
        words: the vocabulary, whole words.
        seed: of the weights.
        gated: T5-v1.1 in place of T5.

    Raises:
        WeightsError: as :func:`experiments.stand_ins.model.written`.
    """
    vocabulary = [*SPECIAL, *sorted(set(words) - set(SPECIAL))]

    def save(folder: Path, torch: Any, transformers: Any) -> None:
        torch.manual_seed(seed)
        more = V1_1 if gated else {}
        config = transformers.T5Config(vocab_size=len(vocabulary), **SIZES, **more)
        model = transformers.T5ForConditionalGeneration(config)
        if gated:  # a head of its own, as v1.1 has
            width = SIZES["d_model"]
            head = torch.randn(len(vocabulary), width) * width**-0.5
            model.lm_head.weight = torch.nn.Parameter(head)
        model.save_pretrained(folder)
        _tokenizer(vocabulary).save(str(folder / "tokenizer.json"))

    return written(folder, "T5-v1.1" if gated else "T5", save)


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
