"""SmolLM2's packaged weights: fluent English, token by token transformers' on the same numbers."""

import numpy as np
import pytest

import linearize as lz
from linearize import models
from linearize.models.language import load_language, tokens_of

pytestmark = [pytest.mark.slow, pytest.mark.network]


def test_writes_fluent_english_greedily():
    pytest.importorskip("gguf")
    torch, transformers = map(pytest.importorskip, ("torch", "transformers"))
    model = load_language("smollm2_135m", scan=True)
    tokenizer = tokens_of(model)
    prompts = ["The capital of France is", "Once upon a time, there was a little girl who"]
    found = lz.generate(model, prompts, tokenizer=tokenizer, new=16, temperature=0)
    assert "Paris" in found.texts[0]
    source = models.hf.read(model.about["weights"])
    config = {k: v for k, v in model.about["config"].items() if k != "model_type"}
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config)).eval()
    state = {name: torch.from_numpy(np.array(read())) for name, read in source.tensors.items()}
    theirs.load_state_dict(state | {"lm_head.weight": state["model.embed_tokens.weight"]})
    for prompt, row in zip(found.prompts, found.tokens, strict=True):
        with torch.no_grad():
            ids = torch.tensor([prompt])
            expected = theirs.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False
            )
        assert row.tolist() == expected[0, len(prompt) :].tolist()
