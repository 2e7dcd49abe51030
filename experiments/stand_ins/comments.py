"""A small random GPT-2, and text that lies on disk as its experiments' own does.

    python -m experiments.stand_ins.comments --folder FOLDER

``FOLDER/gpt2`` is a folder of transformers; ``FOLDER/data`` holds ``civil_comments`` and
``real_toxicity_prompts``, written by TFDS's own builders; ``FOLDER/wikitext`` has WikiText's files.
Only the sentences differ: they are made-up reviews, and what is "toxic" is that they are bad.
"""

import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from configs.compare import STAND_INS
from experiments.stand_ins import reviews
from experiments.stand_ins.data import quiet
from linearize import cli
from linearize.data.text import text_set
from linearize.data.tfds import import_tfds
from linearize.models import WeightsError

log = logging.getLogger(__name__)

SIZES: dict[str, Any] = {
    "n_positions": 64,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 2,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
END = "<|endoftext|>"
COUNTS = {"train": 240, "validation": 80, "test": 80}


def read_by(weights: str | None) -> Path | None:
    """The folder of stand-ins that a configuration with such weights reads; None of any other."""
    return Path(STAND_INS) if weights and Path(weights) == Path(STAND_INS, "gpt2") else None


def make(folder: str | Path, seed: int = 0) -> Path:
    """Write what is not there yet.

    Raises:
        WeightsError: torch and transformers are not installed; or ``gpt2`` holds other things.
    """
    folder = Path(folder)
    _gpt2(folder / "gpt2", seed)
    for name, rows in (("civil_comments", _comments), ("real_toxicity_prompts", _prompts)):
        row = text_set(name)
        assert row is not None
        builder = import_tfds().builder(
            row.tfds, data_dir=str(folder / "data"), file_format="array_record"
        )
        if not (Path(builder.data_dir) / "dataset_info.json").exists():
            splits = rows(builder.info.features, seed)
            builder._split_generators = lambda _, splits=splits: splits
            with quiet():
                builder.download_and_prepare()
    (folder / "wikitext").mkdir(parents=True, exist_ok=True)
    for part, count in (("train", 60), ("valid", 20), ("test", 30)):
        texts = reviews.written("toy_film", count, [seed, len(part)]).texts
        (folder / "wikitext" / f"wiki.{part}.tokens").write_text("\n\n".join(texts) + "\n")
    return folder


def _comments(features: Any, seed: int) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
    """Half of them bad, and of these nine in ten very bad."""

    def rows(split: str, number: int) -> Iterator[tuple[str, dict[str, Any]]]:
        rng = np.random.default_rng([seed, number])
        found = reviews.written("toy_shop", COUNTS[split], [seed, 7 + number])
        kinds = {name: np.dtype(feature.np_dtype).kind for name, feature in features.items()}
        blank = {name: "" if kind in "OSU" else 0 for name, kind in kinds.items()}
        for i, (words, label) in enumerate(zip(found.texts, found.labels, strict=True)):
            toxicity = 0.0 if label else 0.9 if rng.random() < 0.9 else 0.5
            key = f"{split}_{i}"
            yield key, {**blank, "text": words, "id": key, "toxicity": toxicity}

    return {split: rows(split, n) for n, split in enumerate(COUNTS)}


def _prompts(features: Any, seed: int) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
    def rows() -> Iterator[tuple[str, dict[str, Any]]]:
        texts = reviews.written("toy_shop", 40, [seed, 11]).texts
        scores = {name: 0.5 for name in features["prompt"] if name != "text"}
        for i, words in enumerate(texts):
            first, rest = words.split()[:2], words.split()[2:]
            yield (
                str(i),
                {
                    "filename": f"{i}.txt",
                    "begin": 0,
                    "end": 1,
                    "challenging": False,
                    "prompt": {"text": " ".join(first), **scores},
                    "continuation": {"text": " ".join(rest), **scores},
                },
            )

    return {"train": rows()}


def _gpt2(folder: Path, seed: int) -> None:
    """The model unless the folder holds one; it appears whole or not at all."""
    if (folder / "model.safetensors").is_file():
        return
    if folder.exists() and any(folder.iterdir()):
        raise WeightsError(f"{folder} holds other things than a model; choose another, or empty it")
    try:
        import tokenizers
        import torch
        import transformers
    except ImportError as error:
        raise WeightsError(
            f"the stand-in GPT-2 is written by transformers ({error}): pip install torch==2.13.0 "
            "transformers==5.23.0, or give weights of your own (--model.weights)"
        ) from None
    log.info("making a small random GPT-2 in %s", folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        texts = [t for name in reviews.DOMAINS for t in reviews.written(name, 200, [seed, 3]).texts]
        made = tokenizers.ByteLevelBPETokenizer()
        made.train_from_iterator(texts, vocab_size=384, special_tokens=[END])
        made.save_model(str(temporary))
        torch.manual_seed(seed)
        config = transformers.GPT2Config(vocab_size=made.get_vocab_size(), **SIZES)
        transformers.GPT2LMHeadModel(config).save_pretrained(temporary)
        temporary.chmod(0o755)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


if __name__ == "__main__":
    with cli.reporting():
        print(tyro.cli(make))
