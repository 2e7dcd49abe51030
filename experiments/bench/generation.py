"""Continuations of a batch of prompts, beside transformers on the same weights."""

import tempfile
from functools import partial
from typing import Any

import numpy as np

import linearize as lz
from experiments.bench import measure
from experiments.bench.measure import Row
from experiments.bench.workload import Size
from linearize import models
from linearize.models.language import LanguageModel, load_language

CASE = "generation"
PROMPTS, PROMPT = 32, 16
"""Continuations side by side, and tokens of each prompt."""


def rows(size: Size) -> list[Row]:
    """Greedy tokens that are the same, times in turns of all and of the first, tokens a second."""
    import torch

    ours, theirs = _pair(size)
    new = 64 if size.pretrained else 4
    prompts = np.random.default_rng(0).integers(ours.vocabulary, size=(PROMPTS, PROMPT))
    ids = torch.from_numpy(prompts)

    def us(new: int) -> np.ndarray:
        return lz.generate(
            ours, prompts, new=new, temperature=0, batch_size=PROMPTS, ends=()
        ).tokens

    def them(new: int) -> np.ndarray:
        with torch.no_grad():
            found = theirs.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                min_new_tokens=new,
                max_new_tokens=new,
                do_sample=False,
                pad_token_id=0,
            )
        return found[:, PROMPT:].numpy()

    def timed(new: int) -> measure.Times:
        repeats = max(2, size.repeats // 3)
        return measure.in_turns(partial(us, new), partial(them, new), repeats, warm_up=0)

    same = float(np.mean(us(new) == them(new)))
    us(1)  # is compiled
    times, first = timed(new), timed(1)
    told = f"{PROMPTS} prompts of {PROMPT} tokens, {new} new ones each, greedy, float32"
    speeds = [PROMPTS * new / seconds for seconds in times.medians]
    begun = " / ".join(f"{1e3 * seconds:.0f} ms" for seconds in first.medians)
    return [
        # where two tokens are equally likely to rounding, a row takes another way from there on
        Row(CASE, "tokens that transformers takes too", same, "", (">=", 0.9), note=told),
        Row(CASE, "time over transformers'", times.ratio, "x", None, times.spread, told),
        Row(CASE, "the same of one new token", first.ratio, "x", None, first.spread, begun),
        *(
            Row(CASE, f"tokens a second, {whose}", speed, "", note=told)
            for whose, speed in zip(("ours", "transformers"), speeds, strict=True)
        ),
    ]


def _pair(size: Size) -> tuple[LanguageModel, Any]:
    """A decoder here and in transformers: SmolLM2, or a small GPT-2 at random."""
    import torch
    import transformers

    with tempfile.TemporaryDirectory() as folder:
        if size.pretrained:
            ours = load_language("smollm2_135m", scan=True)
            models.export(folder, ours)
            kind = transformers.LlamaForCausalLM
            return ours, kind.from_pretrained(folder, dtype=torch.float32).eval()
        torch.manual_seed(0)
        config = transformers.GPT2Config(
            vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=32
        )
        theirs = transformers.GPT2LMHeadModel(config).eval()
        theirs.save_pretrained(folder)
        return load_language("gpt2", weights=folder, scan=True), theirs
