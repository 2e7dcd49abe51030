"""The paper's protocol of toxicity on GPT-2 that transformers saves and data that TFDS writes."""

import json

import numpy as np
import pytest

import linearize as lz
from configs.toxicity import PRESETS
from experiments.toxicity import material, run
from experiments.toxicity.material import CONTROL, TARGET
from linearize.objectives import CausalLM
from linearize.task_vector import TaskVector

pytestmark = pytest.mark.slow


def test_the_papers_protocol_on_what_lies_on_disk_as_its_own_does(tmp_path, monkeypatch):
    """GPT-2 of transformers, TFDS's data sets, WikiText's files; α from the definition."""
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    config, real = PRESETS["gpt2_debug"](), PRESETS["gpt2_large_prompts"]()
    assert config.texts.kinds == real.texts.kinds == "civil_comments"
    assert (config.texts.prompts, config.regimes) == (real.texts.prompts, real.regimes)
    run.run(config, tmp_path / "run", "gpt2_debug")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    given = material.load(config)
    assert given.model.about["kind"] == "gpt2"
    folder = tmp_path / "run" / "seed_0" / "linear" / TARGET
    tau = TaskVector.load(folder / "task_vector.safetensors")
    f, params0 = lz.linearize(given.model.f, given.model.params), given.model.params
    windows = given.tasks[CONTROL].validation
    along = [
        CausalLM().measure(f(tau.apply_to(params0, -a), windows.inputs), windows.targets)
        for a in config.alphas
    ]
    found = results["curves"]["linear"]["perplexity"][0]
    np.testing.assert_allclose(found, [each["perplexity"] for each in along], rtol=2e-3)  # bfloat16
    prompts = given.tokenizer.decode([p.tolist() for p in given.prompts])
    assert all(p.split()[0] in ("the", "my") for p in prompts)
    assert given.tokenizer.special["eos"] == 0
    assert set(results["edits"]) == {*run.BASELINES, *config.regimes}
