"""SmolLM2's packaged weights: fluent English, token by token transformers' on the same numbers."""

import pytest

import linearize as lz
from linearize import models
from linearize.models.language import load_language, tokens_of

pytestmark = [pytest.mark.slow, pytest.mark.network]


def test_writes_fluent_english_greedily(tmp_path):
    pytest.importorskip("gguf")
    torch, transformers = map(pytest.importorskip, ("torch", "transformers"))
    model = load_language("smollm2_135m", scan=True)
    tokenizer = tokens_of(model)
    prompts = ["The capital of France is", "Once upon a time, there was a little girl who"]
    found = lz.generate(model, prompts, tokenizer=tokenizer, new=16, temperature=0)
    assert "Paris" in found.texts[0]
    models.export(tmp_path, model)
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    for prompt, row in zip(found.prompts, found.tokens, strict=True):
        with torch.no_grad():
            ids = torch.tensor([prompt])
            expected = theirs.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False
            )
        assert row.tolist() == expected[0, len(prompt) :].tolist()
