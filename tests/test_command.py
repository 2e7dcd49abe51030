"""The console command on one's own files: folders of images, weights of transformers."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from linearize import models, shards
from linearize.command import cards_of, heads, main, read_task
from linearize.config import ConfigError
from linearize.curvature import Card
from linearize.data import DataError
from linearize.task_vector import TaskVector

pytestmark = pytest.mark.usefixtures("quick_compilation")

BRIEF = ("--shots", "4", "--batch-size", "8")
"""Of every comparison, so that they share what is compiled."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small ViT as transformers saves it, and three tasks of colours in noise."""
    transformers = pytest.importorskip("transformers")
    where = tmp_path_factory.mktemp("own")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "image_size": 16, "patch_size": 8}
    config = transformers.ViTConfig(num_hidden_layers=1, num_attention_heads=2, **sizes)
    transformers.ViTModel(config, add_pooling_layer=False).save_pretrained(where / "vit")
    rng = np.random.default_rng(0)
    for task in ("cars", "dogs", "rest"):
        for channel, name in enumerate(("blue", "red")):
            place = where / task / name
            place.mkdir(parents=True)
            for i in range(40):
                pixels = rng.integers(0, 200, (20, 18, 3))
                pixels[..., 2 - 2 * channel] += 12
                Image.fromarray(pixels.astype(np.uint8)).save(place / f"{i}.png")
    b = rng.normal(size=(16, 2)).astype(np.float32)
    for task in ("cars", "dogs"):
        adapter = where / f"lora_{task}"
        adapter.mkdir()
        layer = "base_model.model.layers.0.attention.q_proj"
        a = rng.normal(size=(2, 16)).astype(np.float32) / 4
        tensors = {f"{layer}.lora_A.weight": a, f"{layer}.lora_B.weight": b}
        save_file(tensors, adapter / "adapter_model.safetensors")
        note = {"peft_type": "LORA", "r": 2, "lora_alpha": 1}
        (adapter / "adapter_config.json").write_text(json.dumps(note))
    return where


@pytest.mark.slow
def test_from_folders_to_a_page_and_to_weights_for_transformers(folder, capsys):
    tasks = [word for t in ("cars", "dogs") for word in ("--task", f"{t}={folder / t}")]
    words = [*tasks, "--control", f"rest={folder / 'rest'}", "--merges", "ties"]
    words += ["--methods", "linear", "lora:rank=2"]
    run = folder / "run"
    words += ["--out", str(run), "--steps", "4", *BRIEF]
    main(["compare", "--model", str(folder / "vit"), *words])
    assert (run / "report.html").exists()
    assert "Addition of 2 task vectors" in capsys.readouterr().out
    (run / "report.html").unlink()
    main(["report", str(run)])
    assert (run / "report.html").exists()

    before = models.open_model(str(folder / "vit"))
    place = run / "seed_0" / "lora_rank_2" / "cars"
    tau = TaskVector.load(place / "task_vector.safetensors")
    assert float(tau.norm()) > 0
    for name, x in models.task_vector(before, place / "peft").delta.items():
        np.testing.assert_array_equal(x, tau.delta.get(name, np.zeros_like(x)))

    paths = [run / "seed_0" / "linear" / t / "task_vector.safetensors" for t in ("cars", "dogs")]
    base, out = str(folder / "vit"), str(folder / "edited")
    main(["merge", *map(str, paths), "--alpha", "-0.5", "--base", base, "--out", out])
    after = models.open_model(out)
    total = sum((TaskVector.load(path) for path in paths[1:]), start=TaskVector.load(paths[0]))
    expected = total.apply_to(before.params, scale=-0.5)
    moved = TaskVector.between(expected, after.params)
    assert float(moved.norm()) <= 1e-6 * float(total.norm())
    assert float(total.norm()) > 0


@pytest.mark.slow
def test_what_others_fine_tuned_is_compared(folder, capsys):
    tasks = [word for t in ("cars", "dogs") for word in ("--task", f"{t}={folder / t}")]
    given = [word for t in ("cars", "dogs") for word in ("--given", f"{t}={folder}/lora_{t}")]
    words = ["compare", "--model", str(folder / "vit"), *tasks, "--steps", "1", *BRIEF]
    out = folder / "given"
    main([*words, *given, "--methods", "linear", "--out", str(out)])
    assert "Given, linearized" in capsys.readouterr().out
    results = json.loads((out / "results.json").read_text())
    (name,) = (key for key in results["cosine"] if key.startswith("given"))
    model = models.open_model(str(folder / "vit"))
    taus = [models.task_vector(model, folder / f"lora_{t}") for t in ("cars", "dogs")]
    assert results["cosine"][name][0][0][1] == pytest.approx(float(taus[0].cosine(taus[1])))
    with pytest.raises(SystemExit):
        main([*words, *given[:2], "--out", str(out)])
    assert "once for each of the tasks cars, dogs" in capsys.readouterr().err


@pytest.mark.slow
def test_adapters_are_audited(folder, capsys):
    tasks = [word for t in ("cars", "dogs") for word in ("--task", f"{t}={folder / t}")]
    words = ["--base", str(folder / "vit"), *tasks, "--out", str(folder / "own"), "--shots", "4"]
    main(["audit", str(folder / "lora_cars"), str(folder / "lora_dogs"), *words])
    said = capsys.readouterr().out
    assert "moves the outputs on" in said
    assert (folder / "own" / "audit" / "report.html").exists()
    main(["report", str(folder / "own" / "audit")])
    given = json.loads((folder / "own" / "audit" / "results.json").read_text())["audited"]["given"]
    model = models.open_model(str(folder / "vit"))
    norms = [
        float(models.task_vector(model, folder / f"lora_{t}").norm()) for t in ("cars", "dogs")
    ]
    assert given["norm"] == [pytest.approx(norms)]
    with pytest.raises(SystemExit):
        main(["audit", str(folder / "lora_cars"), *words])
    assert "one for each task, in the order cars, dogs" in capsys.readouterr().err


def test_adapters_are_merged(folder, tmp_path):
    base, out = str(folder / "vit"), str(tmp_path / "edited")
    places = [str(folder / f"lora_{task}") for task in ("cars", "dogs")]
    main(["merge", *places, "--alpha", "0.5", "--base", base, "--out", out])
    before, after = models.open_model(base), models.open_model(out)
    total = sum(models.task_vector(before, place) for place in places)
    moved = TaskVector.between(before.params, after.params)
    assert float((moved - 0.5 * total).norm()) <= 1e-6 * float(total.norm())
    assert float(total.norm()) > 1

    apart = str(tmp_path / "apart")
    words = ["--alpha", "0.5", "--base", base, "--out", apart, "--shard-size", "4kB"]
    main(["merge", *places, *words])
    assert len(list((tmp_path / "apart").glob("model-*.safetensors"))) > 2
    whole = load_file(tmp_path / "edited" / "model.safetensors")
    parts, _ = shards.load_tree(tmp_path / "apart" / "model.safetensors.index.json")
    assert parts.keys() == whole.keys()
    for name, x in whole.items():
        np.testing.assert_array_equal(parts[name], x)
    opened = pytest.importorskip("transformers").ViTModel.from_pretrained
    one, many = (opened(x, add_pooling_layer=False).state_dict() for x in (out, apart))
    assert all(one[name].equal(many[name]) for name in one)


@pytest.mark.parametrize(
    ("words", "status"), [([], 2), (["--help"], 0), (["compar"], 2), (["merge"], 2)]
)
def test_a_command_that_there_is_not(words, status, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == status
    assert "linearize" in "".join(capsys.readouterr())


COMPARE = ["compare", "--model", "m", "--task", "a", "--out", "o"]
MERGE = ["merge", "tau", "--base", "b", "--out", "o"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            [*COMPARE, "--seeds", "0", "-1"],
            "--seeds[1]=-1; expected an integer from 0 to 4294967295",
        ),
        ([*COMPARE, "--batch-size", "0"], "--batch_size=0; expected 1 or more"),
        ([*COMPARE, "--linear-lr", "nan"], "--linear_lr=nan; expected a finite number"),
        ([*MERGE, "--alpha", "inf"], "--alpha=inf; expected a finite number"),
    ],
)
def test_numbers_that_cannot_be(words, says, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert f"error: {says}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["report", "nowhere"], "no results.json in 'nowhere'"),
        (["compare", "--model", "nowhere/x", "--task", "a", "--out", "o"], "nowhere/x"),
        (["merge", "no.safetensors", "--base", "b", "--out", "o"], "b"),
        (["merge", "tau", "--base", "b", "--out", "./b"], "--out is b, and b is read there"),
        (["merge", "tau", "--base", "b", "--out", "tau"], "--out is tau, and tau is read there"),
        ([*MERGE, "--merge", "fisher"], "--merge is fisher, which takes"),
        ([*MERGE, "--merge", "knots", "--shard-size", "1GB"], "which holds all vectors in memory"),
        ([*COMPARE, "--methods", "lroa"], "--methods='lroa' is not one of"),
        ([*COMPARE, "--methods", "lroa"], "; did you mean 'lora'?"),
        ([*COMPARE, "--methods", "lora:rnak=8"], "; did you mean 'rank'?"),
        ([*COMPARE, "--methods", "lora:rank"], "lora:rank=''; expected a whole number"),
        ([*COMPARE, "--methods", "tau_jp:weight=big"], "weight='big'; expected a number"),
        ([*COMPARE, "--methods", "joint:weight=1"], "'joint' has no options"),
        ([*COMPARE, "--methods", "lora:rank=8,rank=4"], "'lora' has rank twice"),
        ([*COMPARE, "--merges", "teis"], "--merges='teis' is not one of"),
    ],
)
def test_bad_input_ends_in_a_sentence(words, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 1
    told = capsys.readouterr().err
    assert told.splitlines()[-1].startswith("error: ")
    assert says in told
    assert "Traceback" not in told


def test_a_task_that_may_be_two_things_is_asked_after(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for place in ("digits", "runs/lr=3/cars"):
        for name in ("cat", "dog"):
            (tmp_path / place / name).mkdir(parents=True)
            for i in range(20):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / place / name / f"{i}.png")
    with pytest.raises(DataError, match=r"task 'digits' is a packaged one, .* write \./digits"):
        read_task("digits", 8)
    assert read_task("./digits", 8).classes == ("cat", "dog")
    assert read_task("mine=digits", 8).name == "mine"
    assert read_task("runs/lr=3/cars", 8).name == "cars"


def test_a_text_head_needs_a_text_tower(tmp_path):
    job = SimpleNamespace(head="text", shots=2)
    with pytest.raises(ConfigError, match=r"--head text: tiny has no text tower .* prototype"):
        heads(job, SimpleNamespace(kind="", name="tiny"), "tiny")


def test_cards_have_the_names_of_their_tasks(tmp_path):
    places = [tmp_path / f"{i}.safetensors" for i in range(4)]
    for place, task in zip(places, ("cars", "dogs", "dogs", None), strict=True):
        Card((), meta={} if task is None else {"task": task}).save(place)
    assert list(cards_of(places, {})) == ["cars", *map(str, places[1:])]


@pytest.mark.slow
def test_a_card_of_a_folder_is_handed_on_to_tak(folder, tmp_path, capsys):
    card = tmp_path / "rest_card.safetensors"
    model = str(folder / "vit")
    words = ["--task", f"rest={folder / 'rest'}", "--out", str(card), "--examples", "8"]
    main(["curvature", "--model", model, *words])
    assert Card.load(card, models.open_model(model).params).meta["examples"] == 8
    tasks = [word for t in ("cars", "dogs") for word in ("--task", f"{t}={folder / t}")]
    words = [*tasks, "--steps", "2", *BRIEF, "--methods", "linear", "--card", str(card)]
    main(["compare", "--model", model, *words, "--out", str(tmp_path / "run")])
    assert "TAK, given cards" in capsys.readouterr().out
