"""Text heads in the experiments, on the stand-in CLIP that transformers writes."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from configs.coefficients import PRESETS as COEFFICIENTS
from configs.compare import PRESETS as COMPARE
from configs.compare import STAND_INS
from configs.ensembling import PRESETS as ENSEMBLING
from configs.learning_rate import PRESETS as LEARNING_RATE
from configs.subsets import PRESETS as SUBSETS
from configs.trajectory import PRESETS as TRAJECTORY
from experiments import budget, protocol
from experiments.stand_ins import model as stand_in_model
from linearize import config, data, models
from linearize.config import CompareConfig, ConfigError, DataConfig, HeadConfig, ModelConfig
from linearize.models import WeightsError
from linearize.models.heads import apply_head
from linearize.study import Store

pytestmark = pytest.mark.network

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return stand_in_model.make(tmp_path_factory.mktemp("stand_in") / "clip", seed=0)


@pytest.fixture(scope="module")
def clip(folder):
    return transformers.CLIPModel.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def task():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    split = images, np.arange(6, dtype=np.int32) % 3
    return data.Task("sun397", split, split, split, ("/a/abbey", "/b/ball_pit", "/a/apse/indoor"))


@pytest.fixture
def settings(folder):
    return CompareConfig(
        model=ModelConfig(name="clip", weights=str(folder), image_size=32, blocks=None),
        data=DataConfig(tasks=("mnist", "digits"), control="landsat"),
        head=HeadConfig(kind="text"),
    )


@pytest.mark.slow
def test_logits_equal_transformers(settings, folder, clip, task):
    """From images and class names to logits, against transformers' own tokenizer and towers."""
    model = protocol.backbone(settings.model, 0)
    head = protocol.make_head(settings, model, task, 0)
    got = apply_head(head, model.f(model.params, task.test.inputs))

    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
    processor = transformers.CLIPImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        columns = []
        for name in ("abbey", "ball pit", "apse indoor"):
            sentences = [f"a photo of a {name}.", f"a photo of the {name}."]
            tokens = tokenizer(sentences, padding=True, return_tensors="pt")
            z = clip.get_text_features(**tokens).pooler_output
            mean = (z / z.norm(dim=-1, keepdim=True)).mean(0)
            columns.append(clip.logit_scale.exp() * mean / mean.norm())
        pixels = processor(list(task.test.inputs), return_tensors="pt")
        features = clip.get_image_features(**pixels).pooler_output
        unit = features / features.norm(dim=-1, keepdim=True)
        expected = (unit @ torch.stack(columns, 1)).numpy()
    assert expected.std() > 0.1
    np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max(), rtol=0)


def test_a_study_has_text_heads_for_all_its_tasks(settings, task):
    found = protocol.study(settings, {"sun397": task}, 1, Store())
    head = protocol.head(found.objectives["sun397"])
    assert head.kernel.shape == (32, 3)
    assert float(head.scale) == pytest.approx(100, rel=1e-4)


def test_templates_and_names_of_one_s_own(settings, task, tmp_path):
    own = tmp_path / "own.toml"
    own.write_text('default = ["{}"]')
    names = tmp_path / "names.toml"
    names.write_text('[sun397]\n"/a/abbey" = "a"\n"/b/ball_pit" = "b"\n"/a/apse/indoor" = "c"\n')
    head = dataclasses.replace(settings.head, templates=str(own), class_names=str(names))
    changed = dataclasses.replace(settings, head=head)
    model = protocol.backbone(settings.model, 0)
    got = protocol.make_head(changed, model, task, 0)
    text = models.load_text("clip", weights=settings.model.weights)
    tokens = models.load_tokenizer(settings.model.weights)(["a", "b", "c"])
    z = np.asarray(models.text_features(text, jnp.asarray(tokens)))
    expected = (z / np.linalg.norm(z, axis=1, keepdims=True)).T
    np.testing.assert_allclose(got.kernel, expected, atol=1e-5)

    names.write_text('[sun397]\n"/a/abbey" = "a"\n')
    with pytest.raises(ConfigError, match=r"without a name /b/ball_pit, /a/apse/indoor"):
        protocol.make_head(changed, model, task, 0)


def test_class_names_that_are_no_words_are_refused(settings, task, tmp_path):
    """A task, a name of it and the file to edit; never a sentence about a number."""
    names = tmp_path / "names.toml"
    names.write_text('[sun397]\n"/a/abbey" = "a"\n')
    head = dataclasses.replace(settings.head, class_names=str(names))
    changed = dataclasses.replace(settings, head=head)
    numbers = dataclasses.replace(task, name="birds", classes=("owl", "fox", "00002"))
    model = protocol.backbone(settings.model, 0)
    with pytest.raises(ConfigError, match=rf"birds calls a class '00002'.*{names}") as raised:
        protocol.make_head(changed, model, numbers, 0)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"weights": "no/where/at/all"}, "no file and no folder here"),
        ({"name": "vit_b16", "weights": "FOLDER"}, "holds a 'clip'"),
        ({"name": "clip_vit_b32", "weights": "FOLDER", "image_size": 224}, "not that of clip_vit"),
        ({"weights": "FOLDER", "image_size": 30}, "multiples of 8"),
    ],
)
def test_weights_that_cannot_be_had(settings, folder, model, message):
    model = {k: str(folder) if v == "FOLDER" else v for k, v in model.items()}
    broken = dataclasses.replace(settings.model, **model)
    with pytest.raises((ConfigError, WeightsError), match=message):
        protocol.backbone(broken, 0)


def test_a_truncated_file(settings, folder, tmp_path):
    whole = (folder / "model.safetensors").read_bytes()
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="truncated"):
        protocol.backbone(dataclasses.replace(settings.model, weights=str(tmp_path)), 0)


def test_a_text_head_without_a_text_tower(folder, settings, task):
    with pytest.raises(ConfigError, match=r"head.kind='text': .*model.weights"):
        dataclasses.replace(settings, model=ModelConfig())
    with pytest.raises(ConfigError, match=r"head\.templates"):
        HeadConfig(kind="probe", templates="own.toml")
    focus = ModelConfig(name="mlp", weights=str(folder), image_size=32, blocks=None)
    with pytest.raises(ConfigError, match="mlp has no text tower"):
        protocol.make_head(
            dataclasses.replace(settings, model=focus),
            protocol.backbone(settings.model, 0),
            task,
            0,
        )


def test_the_stand_in_is_made_once_and_whole(folder, tmp_path, monkeypatch):
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert stand_in_model.make(folder) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(WeightsError, match="holds other things"):
        stand_in_model.make(tmp_path / "other")

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(stand_in_model, "_save", full)
    with pytest.raises(OSError, match="no space"):
        stand_in_model.make(tmp_path / "clip")
    assert [p.name for p in tmp_path.iterdir()] == ["other"]
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(WeightsError, match="pip install"):
        stand_in_model.make(tmp_path / "clip")


@pytest.mark.parametrize("name", ["vit_b32", "vit_b16", "vit_l14"])
def test_presets_of_the_papers(name):
    """The papers' recipe, about 2,000 steps a task, and a configuration that survives JSON."""
    preset = COMPARE[name]()
    again = config.from_dict(CompareConfig, json.loads(json.dumps(config.to_dict(preset))))
    assert again == preset
    assert preset.linear == preset.nonlinear
    optim = preset.linear.optim
    assert (optim.name, optim.lr, optim.weight_decay, optim.decay) == ("adamw", 1e-5, 0.1, "theta")
    assert (optim.warmup, optim.clip, optim.schedule) == (500, 1.0, "cosine")
    assert (preset.linear.batch_size, preset.linear.accumulate) == (128, 1)
    assert preset.epochs.keys() == set(preset.data.tasks)
    for task, passes in preset.epochs.items():
        recipe = dataclasses.replace(preset.linear, epochs=passes)
        assert abs(recipe.total_steps(budget.sizes(task)[0]) / 2000 - 1) < 0.15, task
    assert budget.sizes("eurosat") == (21_600, 2_700, 2_700)
    assert budget.sizes("dtd") == (3_384, 376, 1_880)
    assert budget.sizes("imagenet")[1:] == (5_000, 50_000)


def test_the_rehearsal_is_the_papers_protocol():
    """``clip_debug`` differs from ``vit_b32`` in what is read and in sizes, not in what is done."""
    real, rehearsal = COMPARE["vit_b32"](), COMPARE["clip_debug"]()
    assert rehearsal.head == real.head
    assert rehearsal.model.weights == f"{STAND_INS}/clip"
    assert rehearsal.data.data_dir == f"{STAND_INS}/data"
    assert {*rehearsal.data.tasks, rehearsal.data.control} <= {*real.data.tasks, real.data.control}
    assert rehearsal.data.augment == real.data.augment
    for name in ("exact", "baselines"):
        assert getattr(rehearsal, name) == getattr(real, name)
    for name in ("scan", "dtype", "pretrained"):
        assert getattr(rehearsal.model, name) == getattr(real.model, name)
    assert rehearsal.model.remat == COMPARE["vit_l14"]().model.remat
    ours, theirs = rehearsal.linear.optim, real.linear.optim
    assert dataclasses.replace(ours, lr=0, warmup=0) == dataclasses.replace(theirs, lr=0, warmup=0)


@pytest.mark.parametrize("name", ["vit_b32", "vit_b16", "vit_l14"])
@pytest.mark.parametrize("table", [SUBSETS, COEFFICIENTS, ENSEMBLING])
def test_analyses_of_the_papers_models_take_the_vectors_of_compare(table, name):
    preset, whole = table[name](), COMPARE[name]()
    assert preset.vectors == f"runs/compare/{name}"
    assert (preset.data.tasks, preset.model, preset.epochs) == (
        whole.data.tasks,
        whole.model,
        whole.epochs,
    )
    assert (preset.validation, preset.test) == (None, None)


@pytest.mark.parametrize("table", [LEARNING_RATE, TRAJECTORY])
def test_sweeps_of_the_papers_model_keep_its_recipe(table):
    setting, whole = table["vit_b32"]().setting, COMPARE["vit_b32"]()
    assert (setting.nonlinear, setting.linear) == (whole.nonlinear, whole.linear)
    assert setting.nonlinear.steps == 2000
    assert setting.data == whole.data


def test_operations_of_a_preset():
    """ViT-B/32's forward pass by hand: 49 + 1 tokens, 12 blocks of width 768."""
    preset = COMPARE["vit_b32"]()
    tokens, width = 50, 768
    block = tokens * width * (3 * width + width + 2 * 4 * width) + 2 * tokens**2 * width
    by_hand = 2 * (49 * 32 * 32 * 3 * width + 12 * block + width * 512)
    found = budget.forward_flops(preset)
    assert found == pytest.approx(by_hand, rel=0.02)
    # an ordinary gradient is a forward and a backward pass of twice the work, but for the images'
    assert budget.step_flops(preset, "nonlinear") == pytest.approx(3 * found, rel=0.02)
