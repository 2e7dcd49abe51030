"""What others fine-tuned as task vectors, against transformers with the same weights merged.

Adapters are written by hand, in the format that PEFT documents; what they add to the weights is
dense arithmetic on torch's own parameters.
"""

import copy
import dataclasses
import json
import logging

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch

import linearize as lz
from linearize import io, models, tree
from linearize.models import WeightsError
from linearize.models.hf import tables
from linearize.models.hf.table import spell

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
TEXT = {
    **{k: v for k, v in SIZES.items() if k not in ("image_size", "patch_size")},
    "vocab_size": 20,
    "max_position_embeddings": 6,
    "bos_token_id": 18,
    "eos_token_id": 19,
}
PREFIX = "base_model.model."
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 3, "use_dora": False, "lora_ga_config": None}


def build(kind):
    torch.manual_seed(0)
    if kind == "vit":
        made = transformers.ViTForImageClassification(transformers.ViTConfig(**SIZES))
    elif kind == "dinov2":
        fields = {k: v for k, v in SIZES.items() if k != "intermediate_size"} | {"mlp_ratio": 2}
        made = transformers.Dinov2Model(transformers.Dinov2Config(**fields))
    else:
        made = transformers.CLIPModel(
            transformers.CLIPConfig(text_config=TEXT, vision_config=SIZES, projection_dim=8)
        )
    for parameter in made.parameters():
        spread = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.3
        parameter.data = torch.randn(parameter.shape) * spread
    return made.eval()


def features(module, model, images):
    """What transformers computes of the images, as our model's features."""
    mean, std = (np.asarray(model.architecture[k]) for k in ("mean", "std"))
    pixels = torch.tensor(((images - mean) / std).transpose(0, 3, 1, 2), dtype=torch.float32)
    with torch.no_grad():
        if model.kind == "clip":
            return module.get_image_features(pixels).pooler_output.numpy()
        tokens = getattr(module, "vit", module)(pixels).last_hidden_state
    if model.kind == "vit":
        return tokens[:, 0].numpy()
    return torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], dim=-1).numpy()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """``base(kind)``: a random model of transformers, its folder, and the same model here."""
    root, made = tmp_path_factory.mktemp("base"), {}

    def get(kind):
        if kind not in made:
            theirs = build(kind)
            theirs.save_pretrained(root / kind)
            made[kind] = theirs, root / kind, models.open_model(str(root / kind))
        return made[kind]

    return get


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)


def pair(module, into, out, rank=2, seed=0):
    rng = np.random.default_rng([seed, *module.encode()])
    drawn = rng.normal(size=(rank, into)) * 0.3, rng.normal(size=(out, rank)) * 0.3
    return {
        f"{PREFIX}{module}.lora_{half}.weight": x.astype(np.float32)
        for half, x in zip("AB", drawn, strict=True)
    }


def write(folder, tensors, **config):
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file(tensors, folder / "adapter_model.safetensors")
    kept = {k: v for k, v in (CONFIG | config).items() if v != "absent"}
    (folder / "adapter_config.json").write_text(json.dumps(kept))
    return folder


def delta(tensors, module, scale=1.5):
    a, b = (np.float32(tensors[f"{PREFIX}{module}.lora_{half}.weight"]) for half in "AB")
    return scale * (b @ a)


Q0, FC1 = "vit.layers.0.attention.q_proj", "vit.layers.1.mlp.fc1"
OLD = {
    "vit.encoder.layer.0.attention.attention.query": Q0,
    "vit.encoder.layer.1.intermediate.dense": FC1,
}
"""Modules as transformers 4 calls them, and as 5 does."""


def vit_case(case):
    """Tensors of an adapter, its configuration, and ``{parameter of torch: what is added}``."""
    both = pair(Q0, 16, 16) | pair(FC1, 16, 24)
    if case == "alpha / r":
        return both, {}, {f"{m}.weight": delta(both, m) for m in (Q0, FC1)}
    if case == "names of transformers 4":
        old = {n: pair(n, 16, out) for n, out in zip(OLD, (16, 24), strict=True)}
        added = {f"{OLD[n]}.weight": delta(x, n) for n, x in old.items()}
        return {k: v for x in old.values() for k, v in x.items()}, {}, added
    if case == "rank-stabilized":
        return (
            both,
            {"use_rslora": True},
            {f"{m}.weight": delta(both, m, 3 / 2**0.5) for m in (Q0, FC1)},
        )
    if case == "patterns":
        wide = pair(Q0, 16, 16) | pair(FC1, 16, 24, rank=4)
        config = {"rank_pattern": {"mlp.fc.": 4}, "alpha_pattern": {"^vit.layers.0.*q_proj": 8}}
        return (
            wide,
            config,
            {f"{Q0}.weight": delta(wide, Q0, 4), f"{FC1}.weight": delta(wide, FC1, 3 / 4)},
        )
    if case == "a convolution":
        rng = np.random.default_rng(1)
        a, b = rng.normal(size=(2, 3, 8, 8)) * 0.1, rng.normal(size=(16, 2, 1, 1)) * 0.1
        name = "vit.embeddings.patch_embeddings.projection"
        tensors = {
            f"{PREFIX}{name}.lora_{h}.weight": np.float32(x) for h, x in (("A", a), ("B", b))
        }
        return tensors, {}, {f"{name}.weight": 1.5 * np.einsum("or,rikl->oikl", b[..., 0, 0], a)}
    raise KeyError(case)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    ["alpha / r", "names of transformers 4", "rank-stabilized", "patterns", "a convolution"],
)
def test_an_adapter_moves_the_model_as_it_moves_transformers(base, images, tmp_path, case):
    theirs, _, ours = base("vit")
    tensors, config, added = vit_case(case)
    tau = models.task_vector(ours, write(tmp_path, tensors, **config))
    merged = copy.deepcopy(theirs)
    for name, x in added.items():
        merged.get_parameter(name).data += torch.tensor(np.float32(x))
    before, expected = (features(m, ours, images) for m in (theirs, merged))
    assert np.abs(expected - before).max() > 1e-2
    got = ours.f(tau.apply_to(ours.params), images)
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)


@pytest.mark.slow(but=["clip"])
@pytest.mark.parametrize("kind", ["clip", "dinov2"])
def test_a_whole_fine_tuned_model(base, images, tmp_path, kind):
    theirs, _, ours = base(kind)
    tuned = copy.deepcopy(theirs)
    for name, parameter in tuned.named_parameters():
        if not any(word in name for word in ("text", "logit_scale", "mask_token")):
            parameter.data += 0.03 * torch.randn(parameter.shape)
    tuned.save_pretrained(tmp_path)
    tau = models.task_vector(ours, tmp_path)
    assert tau.delta.keys() == tree.flatten(ours.params).keys()
    got = ours.f(tau.apply_to(ours.params), images)
    np.testing.assert_allclose(got, features(tuned, ours, images), atol=1e-5, rtol=0)
    running = {n: x.contiguous() for n, x in tuned.state_dict().items()}  # under names of its own
    safetensors.torch.save_file(running, tmp_path / "model.safetensors")
    assert float((models.task_vector(ours, tmp_path) - tau).norm()) == 0
    exact = lz.TaskVector.between(ours.params, models.open_model(str(tmp_path)).params)
    assert float((tau - exact).norm()) == 0 < float(tau.norm())


def test_a_scanned_model_gets_stacked_leaves(base, tmp_path):
    _, folder, ours = base("vit")
    tensors, config, _ = vit_case("alpha / r")
    adapter = write(tmp_path, tensors, **config)
    stacked = models.open_model(str(folder), scan=True)
    tau = models.task_vector(stacked, adapter)
    expected = models.stack(models.task_vector(ours, adapter).delta)
    assert tau.delta.keys() == expected.keys() == tree.flatten(stacked.params).keys()
    for name, x in tau.delta.items():
        np.testing.assert_array_equal(x, expected[name])
    assert not tree.differences(stacked.params, tau.delta)


def test_biases_norms_and_tables_that_an_adapter_holds(base, images, tmp_path):
    """``bias="all"``, ``modules_to_save`` and an embedding with A and B of its own."""
    theirs, _, ours = base("clip")
    rng, block = np.random.default_rng(2), "vision_model.encoder.layers.1"
    linear, norm = f"{block}.self_attn.v_proj", f"{block}.layer_norm2"
    table = "vision_model.embeddings.position_embedding"
    whole = {
        f"{linear}.base_layer.bias": rng.normal(size=16),
        f"{norm}.weight": rng.normal(size=16),
        f"{norm}.bias": rng.normal(size=16),
    }
    a, b = rng.normal(size=(2, 5)), rng.normal(size=(16, 2))
    halves = {f"{table}.lora_embedding_A": a, f"{table}.lora_embedding_B": b}
    tensors = {PREFIX + k: x.astype(np.float32) for k, x in (whole | halves).items()}
    tensors |= pair(linear, 16, 16) | {f"{PREFIX}{linear}.lora_B.bias": np.ones(16, np.float16)}
    config = {"bias": "all", "modules_to_save": ["layer_norm2"]}
    with pytest.raises(WeightsError, match=rf"twice: {linear}.bias"):
        models.task_vector(ours, write(tmp_path, tensors, **config))
    del tensors[f"{PREFIX}{linear}.lora_B.bias"]
    tau = models.task_vector(ours, write(tmp_path, tensors, **config))
    merged = copy.deepcopy(theirs)
    merged.get_parameter(f"{table}.weight").data += torch.tensor(np.float32(1.5 * (b @ a).T))
    merged.get_parameter(f"{linear}.weight").data += torch.tensor(delta(tensors, linear))
    for name, x in whole.items():
        merged.get_parameter(name.replace(".base_layer", "")).data = torch.tensor(np.float32(x))
    got = ours.f(tau.apply_to(ours.params), images)
    np.testing.assert_allclose(got, features(merged, ours, images), atol=1e-5, rtol=0)


def test_what_only_one_side_has_is_named_and_left_out_where_asked(base, tmp_path):
    theirs, _, ours = base("vit")
    tuned = copy.deepcopy(theirs)
    for parameter in tuned.parameters():
        parameter.data += 0.01
    state = {n: x.contiguous() for n, x in tuned.state_dict().items()}
    state["vit.embeddings.position_embeddings"] = torch.zeros(1, 10, 16)
    del state["vit.layernorm.bias"]
    tuned.config.save_pretrained(tmp_path)
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError) as told:
        models.task_vector(ours, tmp_path)
    assert {line.strip() for line in str(told.value).splitlines()[1:]} == {
        "embeddings.position_embeddings is (1, 10, 16), the base's is (1, 5, 16)",
        "missing: layernorm.bias",
        "only there: classifier.weight",
        "only there: classifier.bias",
    }
    tau = models.task_vector(ours, tmp_path, leave_out=["^classifier", "position", "norm.bias$"])
    still = {n for n, x in tau.delta.items() if not np.any(x)}
    assert still == {"class_position", "positions", "norm/bias"}
    assert tau.meta["leave_out"] == ["^classifier", "position", "norm.bias$"]


def test_a_text_tower_that_was_trained_too_is_not_passed_over(base, tmp_path):
    theirs, folder, ours = base("clip")
    tuned = copy.deepcopy(theirs)
    tuned.text_projection.weight.data += 0.1
    tuned.save_pretrained(tmp_path)
    for start in (ours, folder):
        with pytest.raises(WeightsError, match=r"1 problem.*\n.*only there: text_projection.weig"):
            models.task_vector(start, tmp_path)
    assert float(models.task_vector(ours, tmp_path, leave_out="^text_").norm()) == 0


def test_what_both_files_hold_and_no_parameter_is_no_matter(base, tmp_path):
    _, folder, _ = base("vit")
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    tensors["decoder.mask"] = np.float32([0, -np.inf])
    for name in ("before", "after"):
        safetensors.numpy.save_file(tensors, write(tmp_path / name, {}) / "model.safetensors")
        (tmp_path / name / "adapter_model.safetensors").unlink()
        (tmp_path / name / "config.json").write_bytes((folder / "config.json").read_bytes())
    tau = models.task_vector(tmp_path / "before", tmp_path / "after")
    assert float(tau.norm()) == 0


def test_an_adapter_of_the_hub(base, tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    tensors, *_ = vit_case("alpha / r")
    folder = write(tmp_path, tensors)

    def fetch(repository, file):
        assert repository == "some/lora"
        if not (folder / file).is_file():
            raise hub.errors.EntryNotFoundError(file)
        return str(folder / file)

    monkeypatch.setattr(hub, "hf_hub_download", fetch)
    _, _, ours = base("vit")
    tau, again = (models.task_vector(ours, where) for where in ("some/lora", folder))
    assert float(tau.norm()) > 0 == float((tau - again).norm())


Q = f"{PREFIX}{Q0}.lora_A.weight"
"""One of the tensors of ``vit_case("alpha / r")``."""


def without(name):
    return lambda tensors: {n: x for n, x in tensors.items() if n != name}


@pytest.mark.parametrize(
    ("change", "config", "says"),
    [
        (without(Q), {}, rf"missing: {Q0}\.lora_A\.weight"),
        (without(Q.replace("A.w", "B.w")), {}, rf"missing: {Q0}\.lora_B\.weight"),
        (None, {"r": 4}, r"of another rank: .*q_proj has A \(2, 16\) and B \(16, 2\), and r=4"),
        (lambda t: t | {Q: np.zeros((3, 16), "f4")}, {}, r"A \(3, 16\) and B \(16, 2\)"),
        (lambda t: t | {Q: np.zeros((2, 8), "f4")}, {}, r"query.weight is \(16, 8\), the base's"),
        (lambda t: t | {Q: np.zeros((2, 16), "i4")}, {}, "not floating: .*lora_A.weight is int32"),
        (
            lambda t: t | pair("vit.layers.7.mlp.fc1", 16, 24),
            {},
            r"only there: encoder.layer.7.int",
        ),
        (lambda t: t | pair("vit.layers.0.mlp.gate", 16, 24), {}, r"only there: .*mlp.gate.weight"),
        (lambda t: pair("h.0.attn.c_attn", 16, 48), {}, "Is it another model's"),
        (None, {"lora_alpha": "absent"}, "does not tell lora_alpha"),
        (None, {"r": 0}, "r=0; expected an integer from 1"),
        (None, {"rank_pattern": {"fc1": 0}}, "rank_pattern.*\n.*fc1=0; expected"),
        (None, {"alpha_pattern": {"(": 1}}, "alpha_pattern='\\('; no regular expression"),
        (None, {"peft_type": "IA3"}, "peft_type='IA3'; only 'LORA' is supported"),
        (None, {"use_dora": True}, "use_dora=true; only False is supported"),
        (None, {"init_lora_weights": "pissa_niter_4"}, "displace the base too"),
        (None, {"trainable_token_indices": [1]}, r"trainable_token_indices=\[1\] is not underst"),
        (None, {"a_later_switch": True}, "a_later_switch=true is not understood"),
        (None, {"modules_to_save": ["classifier"]}, "missing: classifier, which modules_to_save"),
    ],
)
def test_an_adapter_that_is_not_one_of_this_base_is_refused(base, tmp_path, change, config, says):
    _, _, ours = base("vit")
    tensors, *_ = vit_case("alpha / r")
    folder = write(tmp_path, tensors if change is None else change(tensors), **config)
    with pytest.raises(WeightsError, match=says):
        models.task_vector(ours, folder)


def test_files_that_are_no_adapter(base, tmp_path):
    _, folder, ours = base("vit")
    tensors, *_ = vit_case("alpha / r")
    whole = write(tmp_path / "whole", tensors)
    with pytest.raises(tree.NonFiniteError, match="attention/qkv/kernel"):
        models.task_vector(
            ours, write(tmp_path / "nan", tensors | {Q: np.full((2, 16), np.nan, "f4")})
        )
    cut = tmp_path / "cut"
    cut.mkdir()
    (cut / "adapter_config.json").write_bytes((whole / "adapter_config.json").read_bytes())
    (cut / "adapter_model.safetensors").write_bytes(
        (whole / "adapter_model.safetensors").read_bytes()[:-9]
    )
    with pytest.raises(WeightsError, match="truncated"):
        models.task_vector(ours, cut)
    (cut / "adapter_config.json").unlink()
    (cut / "adapter_model.safetensors").write_bytes(
        (whole / "adapter_model.safetensors").read_bytes()
    )
    with pytest.raises(WeightsError, match=r"no adapter_config.json beside it tells its rank"):
        models.task_vector(ours, cut)
    (whole / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(WeightsError, match=r"an adapter and model.safetensors; point to the file"):
        models.task_vector(ours, whole)
    assert float(models.task_vector(ours, whole / "adapter_model.safetensors").norm()) > 0
    with pytest.raises(FileNotFoundError, match="nowhere"):
        models.task_vector(ours, tmp_path / "nowhere")
    with pytest.raises(WeightsError, match=r"'vit'.*'clip'|names of transformers"):
        models.task_vector(base("clip")[2], folder)
    mine = lz.Model(lambda p, x: x * p["w"], {"w": np.ones(2, np.float32)})
    with pytest.raises(WeightsError, match="merge_and_unload"):
        models.task_vector(mine, whole / "adapter_model.safetensors")


def test_a_configuration_that_makes_another_function_is_refused(base, tmp_path):
    theirs, _, ours = base("vit")
    tuned = copy.deepcopy(theirs)
    tuned.config.num_attention_heads = 4
    tuned.save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="heads is 4 there and 2 here"):
        models.task_vector(ours, tmp_path, leave_out="classifier")


def test_files_of_our_own(base, tmp_path, caplog):
    _, _, ours = base("vit")
    moved = tree.add(ours.params, {"norm/bias": np.ones(16, np.float32)})
    path = io.save_tree(tmp_path / "own.safetensors", moved)
    tau = models.task_vector(ours, path)
    assert float(tau.norm()) == pytest.approx(4, rel=1e-6)
    stored = tau.save(tmp_path / "cars" / "tau")
    for where in (stored, stored.parent):
        if where.is_dir():
            stored = stored.rename(where / "task_vector.safetensors")
        assert float((models.task_vector(ours, where) - tau).norm()) == 0
    with pytest.raises(WeightsError, match="holds a task vector, no weights"):
        models.load("vit_b16", weights=stored)
    with pytest.raises(tree.StructureMismatch, match="another base model"):
        models.task_vector(dataclasses.replace(ours, params=moved), stored)
    stacked = io.save_tree(tmp_path / "stacked.safetensors", models.stack(moved))
    assert float((models.task_vector(ours, stacked) - tau).norm()) == 0
    mine = lz.Model(lambda p, x: x * p["w"], {"w": np.ones(2, np.float32)})
    with pytest.raises(WeightsError, match="missing: w\n"):
        models.task_vector(mine, path)
    other = io.save_tree(tmp_path / "w.safetensors", {"w": np.float32([3, 1])})
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(models.task_vector(mine, other).delta["w"], [2, 0])
    assert "was it fine-tuned from this base?" in caplog.text


def test_what_is_no_place_is_refused_by_name():
    mine = lz.Model(lambda p, x: x * p["w"], {"w": np.ones(2, np.float32)})
    with pytest.raises(TypeError, match="base is a dict; expected a Model, or where its weights"):
        models.task_vector(mine.params, "lora")
    with pytest.raises(TypeError, match="weights is a NoneType; expected where they are"):
        models.task_vector(mine, None)


def random_adapter(model, rank, pattern="kernel$", alpha=3.0):
    start = models.Adapter.start(model.params, rank=rank, alpha=alpha, pattern=pattern)
    rng = np.random.default_rng(7)
    b = {n: rng.normal(size=x.shape).astype(np.float32) * 0.2 for n, x in start.b.items()}
    return dataclasses.replace(start, b=b)


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize(("kind", "rank"), [("clip", 3), ("vit", 20), ("dinov2", 1)])
def test_an_adapter_of_ours_is_read_back_to_the_bit(base, tmp_path, kind, rank, scan):
    """Of every kernel: joint query, key and value, the patches' convolution, the projection."""
    ours = models.open_model(str(base(kind)[1]), scan=True) if scan else base(kind)[2]
    adapter = random_adapter(ours, rank)
    assert adapter.a.keys() == {n for n in tree.names(ours.params) if n.endswith("kernel")}
    models.export_adapter(tmp_path, ours, adapter)
    tau, expected = models.task_vector(ours, tmp_path), adapter.task_vector(ours.params)
    for name, x in tau.delta.items():
        np.testing.assert_array_equal(x, expected.delta.get(name, np.zeros_like(x)))
    assert tau.base == expected.base


@pytest.mark.parametrize("kind", ["clip", "vit", "dinov2"])
def test_an_adapter_of_ours_moves_transformers_as_it_moves_the_model(base, images, tmp_path, kind):
    theirs, _, ours = base(kind)
    adapter = random_adapter(ours, 2)
    models.export_adapter(tmp_path, ours, adapter)
    tensors = safetensors.numpy.load_file(tmp_path / "adapter_model.safetensors")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 2, 3.0)
    merged = copy.deepcopy(theirs)
    for module in config["target_modules"]:
        a, b = (tensors[f"{PREFIX}{module}.lora_{half}.weight"] for half in "AB")
        weight = merged.get_submodule(module).weight
        added = np.tensordot(b.reshape(b.shape[:2]), a, 1)  # as PEFT merges either kind of layer
        weight.data += torch.tensor(config["lora_alpha"] / config["r"] * added)
    assert len(tensors) == 2 * len(config["target_modules"])
    before, expected = (features(m, ours, images) for m in (theirs, merged))
    assert np.abs(expected - before).max() > 1e-2
    got = ours.f(adapter.task_vector(ours.params).apply_to(ours.params), images)
    np.testing.assert_allclose(got, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("table", ["CLIP_VISION", "VIT", "DINOV2", "DINOV2_SWIGLU"])
def test_names_of_running_modules_are_those_of_files(table):
    """But for a kernel that is two modules there, which has no name."""
    table = getattr(tables, table)
    kernels = [theirs for theirs, ours, _ in table.rows if ours.endswith("/kernel")]
    names = [name for theirs in kernels for name in spell(theirs, "3")]
    found = {name: table.module(name) for name in names}
    lost = {name for name, module in found.items() if not module}
    assert lost == {name for name in names if ".mlp.weights_" in name}
    for name in found.keys() - lost:
        assert table.canonical(f"{found[name]}.weight") == name
    assert table.before(f"dinov2.{name}" for name in names) == "dinov2." * table.name.count("DINO")


def test_an_adapter_that_is_not_of_the_model_is_refused_and_nothing_is_written(base, tmp_path):
    _, _, ours = base("clip")
    adapter = random_adapter(ours, 2, pattern="mlp_in/kernel|out/kernel")
    name = "block_0/mlp_in/kernel"
    wrong = {**adapter.a, "block_7/mlp_in/kernel": adapter.a[name], name: adapter.a[name][1:]}
    b = {**adapter.b, "block_7/mlp_in/kernel": adapter.b[name]}
    with pytest.raises(WeightsError, match=r"2 problem.*nothing was written") as told:
        models.export_adapter(tmp_path, ours, dataclasses.replace(adapter, a=wrong, b=b))
    assert "block_7/mlp_in/kernel: no linear map or convolution" in str(told.value)
    assert f"{name}: factors (15, 2) and (2, 24) of a leaf (16, 24)" in str(told.value)
    with pytest.raises(WeightsError, match="class_position: no linear map"):
        models.export_adapter(
            tmp_path,
            ours,
            models.Adapter(
                {"class_position": np.ones((16, 1), "f4")},
                {"class_position": np.ones((1, 1), "f4")},
                1.0,
            ),
        )
    nan = {n: np.full_like(x, np.nan) for n, x in adapter.b.items()}
    with pytest.raises(tree.NonFiniteError, match="the adapter holds NaN"):
        models.export_adapter(tmp_path, ours, dataclasses.replace(adapter, b=nan))
    mine = lz.Model(lambda p, x: x @ p["kernel"], {"kernel": np.ones((2, 2), np.float32)})
    with pytest.raises(ValueError, match="is no CLIP, ViT or DINOv2"):
        models.export_adapter(tmp_path, mine, random_adapter(mine, 1))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("told", [True, False])
def test_adapters_of_conv1d_are_added_as_its_weights_lie(tmp_path, told):
    """GPT-2's weights are (in, out), as PEFT's ``fan_in_fan_out`` says; lm_head's are (out, in)."""
    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 8, "vocab_size": 11}
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes))
    theirs.save_pretrained(tmp_path / "base")
    block = "transformer.h.0"
    tensors = {
        **pair(f"{block}.attn.c_proj", 8, 8),
        **pair(f"{block}.attn.c_attn", 8, 24),
        **pair(f"{block}.mlp.c_proj", 32, 8),
    }
    adapter = write(tmp_path / "lora", tensors, fan_in_fan_out=told)
    ours = models.load_language("gpt2", weights=tmp_path / "base")
    tau = models.task_vector(ours, adapter).delta
    files = models.checkpoint_vector(tmp_path / "base", adapter).delta
    for module, name in (
        ("attn.c_proj", "attention/out"),
        ("attn.c_attn", "attention/qkv"),
        ("mlp.c_proj", "mlp_out"),
    ):
        expected = delta(tensors, f"{block}.{module}").T
        np.testing.assert_allclose(tau[f"block_0/{name}/kernel"], expected, atol=1e-6)
        np.testing.assert_allclose(
            np.asarray(files[f"{block}.{module}.weight"]), expected, atol=1e-6
        )


def test_fan_in_fan_out_decides_where_nothing_else_tells(tmp_path):
    """A checkpoint of a kind that is not known here."""
    (tmp_path / "base").mkdir()
    weight = np.zeros((8, 8), np.float32)
    safetensors.numpy.save_file({"net.w.weight": weight}, tmp_path / "base" / "model.safetensors")
    (tmp_path / "base" / "config.json").write_text('{"model_type": "mine"}')
    tensors = pair("net.w", 8, 8)
    for told in (False, True):
        adapter = write(tmp_path / str(told), tensors, fan_in_fan_out=told)
        found = models.checkpoint_vector(tmp_path / "base", adapter).delta
        expected = delta(tensors, "net.w")
        (name,) = found
        np.testing.assert_allclose(
            np.asarray(found[name]), expected.T if told else expected, atol=1e-6
        )
