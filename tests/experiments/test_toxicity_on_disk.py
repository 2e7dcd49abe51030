"""The paper's protocol of toxicity on GPT-2 that transformers saves and data that TFDS writes."""

import dataclasses
import json

import numpy as np
import pytest

import linearize as lz
from configs.toxicity import PRESETS
from experiments.toxicity import material, run
from experiments.toxicity.config import FITTED
from experiments.toxicity.material import CONTROL, TARGET
from linearize.models.language import generate
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


def vowels(texts):
    """A scorer of one's own: the share of letters that are vowels."""
    return [np.mean([c in "aeiou" for c in t] or [0]) for t in texts]


SCORERS = {
    "own": (f"{__name__}:vowels", FITTED),
    "packaged": PRESETS["gpt2_large"]().scorers,
}


@pytest.mark.parametrize("kind", ["own", pytest.param("packaged", marks=pytest.mark.network)])
def test_one_prompt_and_several_scorers(kind, tmp_path, monkeypatch):
    """As ``gpt2_large``: all texts after one prompt, each scorer's share and mean of them."""
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    whole, real = PRESETS["gpt2_debug"](), PRESETS["gpt2_large"]()
    config = dataclasses.replace(
        whole,
        texts=dataclasses.replace(whole.texts, prompts=None),
        decoding=dataclasses.replace(whole.decoding, prompts=real.decoding.prompts),
        scorers=SCORERS[kind],
        threshold=0.4,
        regimes=("linear",),
        points=(0.0,),
        swept=whole.decoding.count,
    )
    run.run(config, tmp_path / "run", "gpt2_large")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    given, told = material.load(config), config.decoding
    (prompt,) = given.prompts
    assert given.tokenizer.decode([prompt.tolist()]) == [real.decoding.prompt]
    folder = tmp_path / "run" / "seed_0" / "nonlinear" / TARGET
    found = generate(
        given.model,
        [prompt.tolist()] * told.count,
        new=told.tokens,
        ends=0,
        batch_size=told.batch_size,
        tau=TaskVector.load(folder / "task_vector.safetensors"),
        alpha=1.0,
    )
    ends = found.lengths - found.finished
    texts = given.tokenizer.decode(
        [row[:end].tolist() for row, end in zip(found.tokens, ends, strict=True)]
    )
    assert len(set(texts)) > told.count / 2
    written, first = results["edits"], config.scorers[0]
    means = {each["mean"][0] for each in written["fine-tuned"]["scores"].values()}
    assert len(means) == len(config.scorers)
    for name in config.scorers:
        score = np.asarray(vowels(texts)) if name.endswith(":vowels") else given.scores[name](texts)
        value = written["fine-tuned"]["scores"][name]
        np.testing.assert_allclose(value["mean"][0], score.mean(), rtol=1e-5)
        np.testing.assert_allclose(value["share"][0], (score > config.threshold).mean())
    (share,) = results["curves"]["linear"]["share"][0]
    assert share == written["pretrained"]["scores"][first]["share"][0]
    table = (tmp_path / "run" / "tables" / "scorers.md").read_text()
    assert all(name in table for name in config.scorers[1:])
