"""Where weights lie: files of others, under every name and wrapper."""

import json
import os
import shutil
import socket
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from linearize import models, tree
from linearize.models.hf import configs, engine, sources, table, tables
from linearize.models.hf.sources import Source

NO_CONNECTION = sources._no_connection

CONFIG = {
    "model_type": "clip_vision_model",
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
    "projection_dim": 6,
}
SHAPES = {
    "norm/scale": np.zeros(8, np.float32),
    "norm/bias": np.zeros(8, np.float32),
}


def vision_tensors(table=tables.CLIP_VISION):
    fields = configs.vision({"config.json": CONFIG})
    import jax

    from linearize.models import vit

    side = fields.pop("image_size")
    module = vit.ViT(image_size=side, **fields)
    shapes = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, side, side, 3), np.uint8))
    rng = np.random.default_rng(0)
    leaves = {
        n: np.float32(rng.normal(size=x.shape)) for n, x in tree.flatten(shapes["params"]).items()
    }
    return leaves, engine.export_leaves(leaves, table)


@pytest.fixture(scope="module")
def made():
    return vision_tensors()


@pytest.fixture
def folder(made, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    safetensors.numpy.save_file(made[1], tmp_path / "model.safetensors")
    return tmp_path


def loads(where, leaves):
    source = sources.read(where)
    assert configs.kind(source.notes) == "clip"
    got = engine.import_leaves(source.tensors, (tables.CLIP_VISION,), leaves)
    return all(np.array_equal(got[n], x) for n, x in leaves.items())


def shards(folder, tensors, write, ending):
    names = sorted(tensors)
    parts = {f"part-{i}.{ending}": names[i::2] for i in range(2)}
    for file, own in parts.items():
        write(folder / file, {n: tensors[n] for n in own})
    return {n: file for file, own in parts.items() for n in own}


def save_torch(path, tensors):
    torch = pytest.importorskip("torch")
    torch.save({n: torch.tensor(x) for n, x in tensors.items()}, path)


# an index

KINDS = {
    "model.safetensors": (lambda p, t: safetensors.numpy.save_file(t, p), "safetensors"),
    "pytorch_model.bin": (save_torch, "bin"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_is_the_folder(made, tmp_path, kind):
    leaves, tensors = made
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    listed = shards(tmp_path, tensors, *KINDS[kind])
    index = tmp_path / f"{kind}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 3}, "weight_map": listed}))
    assert loads(index, leaves)
    assert loads(tmp_path, leaves)
    assert len(sources.held(tmp_path)) == len(sources.held(index)) == 2


@pytest.mark.parametrize(
    "listed",
    [
        None,
        [],
        {},
        {"a": 3},
        {"a": None},
        {"a": ""},
        {"a": ".."},
        {"a": "../model.safetensors"},
        {"a": "/etc/passwd"},
        {"a": "inner/model.safetensors"},
        {"a": "absent.safetensors"},
        {"a": "model.safetensors"},  # there, without such a tensor
    ],
)
def test_an_index_names_files_of_its_folder_alone(folder, listed):
    index = folder / "other.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": listed}))
    with pytest.raises(models.WeightsError, match=r"other\.safetensors\.index\.json"):
        sources.read(index)


def test_a_shard_may_be_a_link_in_the_hubs_cache_and_not_elsewhere(made, tmp_path):
    leaves, tensors = made
    blobs, home = tmp_path / "models--x--y" / "blobs", tmp_path / "models--x--y" / "snapshots" / "1"
    blobs.mkdir(parents=True)
    home.mkdir(parents=True)
    listed = shards(home, tensors, *KINDS["model.safetensors"])
    (home / "config.json").write_text(json.dumps(CONFIG))
    (home / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))
    for i, path in enumerate(sorted(home.iterdir())):
        shutil.move(path, blobs / str(i))
        path.symlink_to(os.path.relpath(blobs / str(i), home))
    assert loads(home, leaves)
    outside = tmp_path / "outside.safetensors"
    shutil.copy(home / "part-0.safetensors", outside)
    (home / "part-0.safetensors").unlink()
    (home / "part-0.safetensors").symlink_to(outside)
    with pytest.raises(models.WeightsError, match=r"names part-0\.safetensors, a link out of"):
        sources.read(home)


# names of files


@pytest.mark.parametrize("name", ["model.pt", "weights.pth", "last.ckpt", "own.safetensors"])
def test_a_file_of_any_name_beside_its_configuration(made, folder, name):
    leaves, tensors = made
    (folder / "model.safetensors").unlink()
    if name.endswith("safetensors"):
        safetensors.numpy.save_file(tensors, folder / name)
    else:
        save_torch(folder / name, tensors)
    (folder / "training_args.bin").write_bytes(b"x")
    assert loads(folder / name, leaves)
    assert loads(folder, leaves)
    (folder / f"second_{name}").write_bytes(b"x")
    with pytest.raises(FileNotFoundError, match=r"several others \(.*second_"):
        sources.read(folder)


def test_messages_never_tell_to_delete_what_is_whole(folder):
    """Whatever file is named in place of weights, it is named as what it is."""
    (folder / "notes.txt").write_text("whole")
    (folder / "index.json").write_text('{"weight_map": {}}')
    for name in ("config.json", "notes.txt", "index.json"):
        with pytest.raises(models.WeightsError, match="no safetensors file") as caught:
            sources.read(folder / name)
        assert "delete" not in str(caught.value)


def test_open_clips_weights_go_by_open_clips_configuration(folder):
    (folder / "open_clip_config.json").write_text('{"embed_dim": 6}')
    shutil.copy(folder / "model.safetensors", folder / "open_clip_model.safetensors")
    assert "model_type" in sources.read(folder).notes["config.json"]
    own = sources.read(folder / "open_clip_model.safetensors").notes
    assert list(own) == ["open_clip_config.json"]


# names of tensors

DIALECTS = {
    "hugging": tables.CLIP_VISION,
    "openai": tables.OPENAI_VISION,
    "vit": tables.VIT,
    "dinov2": tables.DINOV2,
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "wrapper",
    ["module.", "_orig_mod.", "model.", "module._orig_mod.", "state_dict.module.model.", "net."],
)
def test_wrappers_are_taken_off_in_every_dialect(dialect, wrapper):
    rows = DIALECTS[dialect]
    leaves = {n: np.arange(8, dtype=np.float32) + i for i, n in enumerate(SHAPES)}
    theirs = engine.export_leaves(leaves, rows)
    wrapped = {wrapper + name: (lambda x=x: x) for name, x in theirs.items()}
    got = engine.import_leaves(wrapped, (rows,), SHAPES)
    assert all(np.array_equal(got[n], x) for n, x in leaves.items())
    if wrapper != "model." or dialect != "openai":  # OpenAI's own names may begin so, each alone
        wrapped["alien.weight"] = lambda: np.zeros(1)
        if dialect != "openai":
            with pytest.raises(models.WeightsError, match=r"unknown: |has a name of"):
                engine.import_leaves(wrapped, (rows,), SHAPES)


def test_wrappers_inside_of_names():
    inner = "vision_model._orig_mod.encoder.layers.0._checkpoint_wrapped_module.mlp.fc1.bias"
    assert table.unwrap([inner]) == {inner: "vision_model.encoder.layers.0.mlp.fc1.bias"}
    assert table.unwrap(["model", "module.x"]) == {"model": "model", "module.x": "module.x"}
    twice = {n: (lambda: np.zeros(8, np.float32)) for n in ("norm.weight", "_orig_mod.norm.weight")}
    rows = table.Table("t", (("norm.weight", "norm/scale", table.SAME),))
    with pytest.raises(models.WeightsError, match="twice"):
        engine.import_leaves(twice, (rows,), {"norm/scale": np.zeros(8)})


# dtypes


@pytest.mark.parametrize(
    "dtype", ["float8_e4m3fn", "float8_e5m2", "bfloat16", "float16", "float64"]
)
def test_floating_tensors_are_widened_exactly(tmp_path, dtype):
    from linearize import io

    values = np.linspace(-2, 2, 8).astype(getattr(ml_dtypes, dtype, dtype))
    path = io.save_tree(tmp_path / "a.safetensors", {"n.weight": values, "n.bias": values})
    rows = table.Table(
        "t",
        tuple(
            (f"n.{k}", f"norm/{v}", table.SAME) for k, v in (("weight", "scale"), ("bias", "bias"))
        ),
    )
    got = engine.import_leaves(sources.read(path).tensors, (rows,), SHAPES)
    assert got["norm/scale"].dtype == np.float32
    np.testing.assert_array_equal(got["norm/scale"], values.astype(np.float32))


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "uint16"])
def test_torchs_newer_dtypes_are_read(tmp_path, dtype):
    torch = pytest.importorskip("torch")
    from linearize.models import torch_archive, torch_modules

    values = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 6.0]).to(getattr(torch, dtype))
    torch.save({"x": values.reshape(2, 3).T, "y": values[1:]}, tmp_path / "a.pt")
    for read in (torch_archive.read, torch_modules.read):
        got = read(tmp_path / "a.pt")
        assert got["x"].dtype == np.dtype(getattr(ml_dtypes, dtype, dtype))
        np.testing.assert_array_equal(got["x"].astype(np.float32), [[0, 3], [1, 4], [2, 6]])
        np.testing.assert_array_equal(got["y"].astype(np.float32), [1, 2, 3, 4, 6])


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3", "F8_E8M0", "X9"])
def test_other_dtypes_are_named_with_the_remedy(tmp_path, dtype):
    from linearize import io

    header = json.dumps({"n.weight": {"dtype": dtype, "shape": [4], "data_offsets": [0, 2]}})
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + b"\0\0")
    message = rf"tensor 'n\.weight' has dtype {dtype}.*F32 or BF16"
    with pytest.raises(models.WeightsError, match=message):
        sources.read(path).tensors["n.weight"]()
    with pytest.raises(io.CorruptFileError, match=message) as caught:
        io.load_tree(path)
    assert "delete" not in str(caught.value)


@pytest.mark.parametrize("dtype", ["int64", "bool", "complex64"])
def test_tensors_that_are_no_reals_are_refused_by_name(tmp_path, dtype):
    from linearize import io

    path = io.save_tree(tmp_path / "a.safetensors", {"n.weight": np.zeros(8, dtype)})
    rows = table.Table("t", (("n.weight", "norm/scale", table.SAME),))
    with pytest.raises(models.WeightsError, match=r"not floating: n\.weight \(8,\) " + dtype):
        engine.import_leaves(sources.read(path).tensors, (rows,), {"norm/scale": np.zeros(8)})


def test_numbers_beyond_float32_are_refused_by_name(made, folder):
    huge = {n: x.astype(np.float64) for n, x in made[1].items()}
    huge["visual_projection.weight"][0, 0] = 1e300
    safetensors.numpy.save_file(huge, folder / "model.safetensors")
    with pytest.raises(tree.NonFiniteError, match="projection/kernel: 1 of"):
        models.load("clip", weights=folder)


# a configuration of another size


def test_a_model_that_no_memory_holds_is_refused_before_it_is_built(folder):
    huge = CONFIG | {"hidden_size": 2**15, "intermediate_size": 2**16, "num_hidden_layers": 1000}
    (folder / "config.json").write_text(json.dumps(huge))
    with pytest.raises(models.WeightsError, match=r"describes a model of \d{13} parameters"):
        models.load("clip", weights=folder)


# the Hub


@pytest.mark.parametrize(
    "word",
    ["./clip", "../clip", "~/clip", "/nowhere/clip", "a/b/c", "here/modle", "x/y.safetensors"],
)
def test_what_reads_as_a_path_is_never_asked_of_the_hub(word, tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub, "hf_hub_download", lambda *_: pytest.fail("asked"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here" / "model").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="no file and no folder here") as caught:
        sources.read(word)
    assert ("did you mean 'model'" in str(caught.value)) == (word == "here/modle")


def test_one_failure_decides_for_all_names_of_a_repository(monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    asked = []

    def offline(repository, file):
        asked.append(file)
        raise hub.errors.LocalEntryNotFoundError("no route")

    monkeypatch.setattr(hub, "hf_hub_download", offline)
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(sources, "_unreached", {})
    for _ in range(2):
        with pytest.raises(models.WeightsError, match=r"no route.*weights=FOLDER"):
            sources.read("some/one")
    assert sources.beside("some/one", ["tokenizer.json"]) is None
    assert asked == ["config.json"]


def test_without_a_connection_one_request_is_made(monkeypatch):
    """Not the client's six, which take 23 s."""
    hub = pytest.importorskip("huggingface_hub")
    with socket.socket() as closed:  # bound, but it does not listen: refused at once
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setattr(hub, "hf_hub_url", lambda *names: "/".join((endpoint, *names)))
        monkeypatch.setattr(sources, "_no_connection", NO_CONNECTION)
        monkeypatch.setattr(sources, "_unreached", {})
        monkeypatch.setattr(hub, "hf_hub_download", lambda *_: pytest.fail("asked again"))
        with pytest.raises(models.WeightsError, match=r"some/three is not here.*weights=FOLDER"):
            sources.read("some/three")


@pytest.mark.parametrize(("said", "connected"), [(None, True), ("404", True), ("no route", False)])
def test_what_answers_is_connected(monkeypatch, said, connected):
    hub = pytest.importorskip("huggingface_hub")

    def metadata(url, *, timeout):
        assert url.endswith("/some/four/resolve/main/config.json")
        if said == "404":
            request = SimpleNamespace(method="HEAD", url=url)
            response = SimpleNamespace(status_code=404, headers={}, request=request, text="")
            raise hub.errors.HfHubHTTPError(said, response=response)
        if said:
            raise OSError(said)

    monkeypatch.setattr(hub, "get_hf_file_metadata", metadata)
    assert (NO_CONNECTION("some/four", "config.json") is None) == connected


def test_offline_weights_without_what_decides_the_function_are_refused(folder, monkeypatch):
    """A cache that holds the weights may lack the image processor that the repository has."""
    hub = pytest.importorskip("huggingface_hub")
    there = {"config.json", "model.safetensors"}

    def offline(*_):
        raise hub.errors.LocalEntryNotFoundError("no route")

    def cached(_, file):
        return str(folder / file) if file in there else None

    monkeypatch.setattr(hub, "hf_hub_download", offline)
    monkeypatch.setattr(hub, "try_to_load_from_cache", cached)
    monkeypatch.setattr(sources, "_unreached", {"some/one": (float("inf"), OSError("no route"))})
    with pytest.raises(models.WeightsError, match=r"processor_config\.json.* may be missing"):
        sources.read("some/one")
    (folder / "preprocessor_config.json").write_text("{}")
    there.add("preprocessor_config.json")
    assert sources.read("some/one").path == folder / "model.safetensors"


def test_a_full_disk_is_no_missing_network(monkeypatch):
    hub = pytest.importorskip("huggingface_hub")

    def full(*_):
        raise OSError(28, "No space left on device", "/cache/x")

    monkeypatch.setattr(hub, "hf_hub_download", full)
    with pytest.raises(models.WeightsError, match=r"No space left on device: /cache/x.*HF_HOME"):
        sources.read("some/two")


def test_sources_in_memory_have_a_size(made):
    source = Source.of("x", made[1])
    assert source.size == sum(x.nbytes for x in made[1].values())
