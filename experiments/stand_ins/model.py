"""A small random CLIP, saved by transformers as a Hugging Face folder: weights to rehearse with.

    python -m experiments.stand_ins.model --folder FOLDER

Its files are those of ``openai/clip-vit-*`` on the Hub: ``config.json``, ``model.safetensors``,
``preprocessor_config.json``, ``tokenizer.json``; the vocabulary is OpenAI's own.
"""

import json
import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tyro

from linearize import cli, models
from linearize.models import WeightsError

log = logging.getLogger(__name__)

VISION = {
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 49408,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
}
PROJECTION = 32
LOGIT_SCALE = 4.6052
"""The logarithm of 100, where OpenAI's models ended."""


def make(folder: str | Path, seed: int = 0) -> Path:
    """Write the model unless the folder holds one.

    Raises:
        WeightsError: as :func:`written`.
        AssetError: OpenAI's vocabulary is not in the cache and cannot be fetched.
    """
    return written(folder, "CLIP", lambda *where: _save(seed, *where))


def written(folder: str | Path, what: str, save: Callable[[Path, Any, Any], None]) -> Path:
    """A folder that holds a model; it appears whole or not at all, and is left as it is if there.

    Args:
        folder: made where absent.
        what: the model's name, for messages.
        save: writes one into a folder, with the modules torch and transformers.

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
            f"the stand-in {what} is written by transformers ({error}): pip install "
            "torch==2.13.0 transformers==5.23.0, or give weights of your own (--model.weights)"
        ) from None
    log.info("making a small random %s in %s", what, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        save(temporary, torch, transformers)
        temporary.chmod(0o755)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _save(seed: int, folder: Path, torch: Any, transformers: Any) -> None:
    torch.manual_seed(seed)
    config = transformers.CLIPConfig(
        text_config=TEXT, vision_config=VISION, projection_dim=PROJECTION
    )
    model = transformers.CLIPModel(config)
    with torch.no_grad():
        # transformers draws so narrowly that all images and all sentences would be alike
        for name, parameter in model.named_parameters():
            if name.endswith("token_embedding.weight"):
                parameter.normal_()
            elif parameter.ndim > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
        model.logit_scale.fill_(LOGIT_SCALE)
    model.save_pretrained(folder)
    transformers.CLIPImageProcessor(
        size={"shortest_edge": VISION["image_size"]}, crop_size=VISION["image_size"]
    ).save_pretrained(folder)
    words = json.loads(models.load_tokenizer().backend.to_str())["model"]
    transformers.CLIPTokenizer(
        vocab=words["vocab"], merges=[tuple(m) for m in words["merges"]], model_max_length=77
    ).save_pretrained(folder)


if __name__ == "__main__":
    with cli.reporting():
        print(tyro.cli(make))
