"""Files of others: regular, bounded, and JSON that is no more than JSON."""

import errno
import json
import os
import socket

import numpy as np
import pytest

from linearize import config as configuration
from linearize import disentangle, files, io, models, ntk, report
from linearize.assets import archives
from linearize.assets.asset import AssetError
from linearize.assets.unpickle import load_array
from linearize.data import DataError
from linearize.data.tfds import _builder
from linearize.models import onnx_tensors, prompts, released, torch_archive, torch_modules
from linearize.task_vector import TaskVector


def fifo(path):
    os.mkfifo(path)


def endless(path):
    path.symlink_to("/dev/zero")


def unix_socket(path):
    here = os.getcwd()
    os.chdir(path.parent)  # the path of a socket has a hundred characters at most
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


KINDS = {
    "a FIFO": fifo,
    "a device": endless,
    "a socket": unix_socket,
    "a directory": lambda path: path.mkdir(),
}
READERS = {
    "bytes": files.read_bytes,
    "json": files.read_json,
    "tree": io.load_tree,
    "vector": TaskVector.load,
    "kernel": ntk.archive.load,
    "map": disentangle.ErrorMap.load,
    "torch": torch_archive.read,
    "module": torch_modules.read,
    "released": released.read_linear,
    "onnx": onnx_tensors.read,
    "weights": models.hf.read,
    "pickle": load_array,
    "config": lambda path: configuration.load_config(configuration.ModelConfig, path),
    "archive": lambda path: archives.copy_member(path, "x", None),
    "templates": lambda path: prompts._read(path, 0),
}


FOLDERS = ("a directory", "weights")  # which may well be a folder


@pytest.mark.parametrize(
    ("kind", "reader"), [(k, r) for k in KINDS for r in READERS if (k, r) != FOLDERS]
)
def test_what_is_no_file_is_named_and_never_waited_for(kind, reader, tmp_path):
    path = tmp_path / "it"
    KINDS[kind](path)
    foreseen = (ValueError, AssetError)  # of this library's own, never an OSError of the system
    with pytest.raises(foreseen, match=kind) as caught:
        READERS[reader](path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kind", ["a FIFO", "a device", "a socket"])
def test_what_lies_beside_is_no_file_either(kind, tmp_path):
    for name in ("results.json", "config.json", "dataset_info.json"):
        (tmp_path / name).mkdir()
        (tmp_path / name).rmdir()
    KINDS[kind](tmp_path / "results.json")
    with pytest.raises(report.ResultsError, match=rf"results\.json is {kind}"):
        report.read_page(tmp_path)
    KINDS[kind](tmp_path / "config.json")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(models.WeightsError, match=rf"config\.json is {kind}"):
        models.hf.read(tmp_path)
    (tmp_path / "dataset_info.json").write_text("{}")
    with pytest.raises(DataError, match=f"is {kind}"):
        _builder(str(tmp_path), None, download=False)


def test_a_link_to_nothing_is_not_passed_over(tmp_path):
    (tmp_path / "config.json").symlink_to(tmp_path / "gone")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(models.WeightsError, match=r"config\.json"):
        models.hf.read(tmp_path)


BAD = {
    "nested": "[" * 100_000 + "]" * 100_000,
    "nested objects": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "deep": '{"a":' * 70 + "1" + "}" * 70,
    "twice": '{"key": 1, "key": 2}',
    "NaN": '{"a": {"b": [1, NaN]}}',
    "infinite": '{"a": -Infinity}',
    "overflow": '{"a": 1e999}',
    "long": '{"a": ' + "9" * 10_000 + "}",
    "cut": '{"a": 1',
    "list": "[1]",
    "empty": "",
    "latin": b'{"a": "\xe9"}',
    "zero": b"\0" * 100,
}


@pytest.mark.parametrize("case", BAD)
def test_json_that_is_refused_by_name(case, tmp_path):
    path, text = tmp_path / "a.json", BAD[case]
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(files.CorruptFileError, match=r"a\.json"):
        io.read_json(path)


def test_json_that_is_read(tmp_path):
    value = {"a": [1, 2.5, None, True, "ü"], "b": {"c": {}}}
    path = io.write_json(tmp_path / "a.json", value)
    assert io.read_json(path) == value
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as editors on Windows begin a file
    assert io.read_json(path) == value
    path.write_text('{"a": {"b": [1, NaN]}}')
    with pytest.raises(files.CorruptFileError, match=r"a\.json: a\.b\[1\] is nan"):
        io.read_json(path)
    path.write_text("[" * 64 + "]" * 64)
    assert io.read_json(path, kind=list)
    with pytest.raises(files.CorruptFileError, match=r"has 128 bytes; .* 100 at most"):
        io.read_json(path, most=100)
    with pytest.raises(FileNotFoundError):
        io.read_json(tmp_path / "none")


def test_faults_of_a_disk_are_found_through_what_they_caused():
    try:
        try:
            raise OSError(errno.EROFS, "Read-only file system", "/x")
        except OSError as error:
            raise RuntimeError("could not fetch") from error
    except RuntimeError as error:
        found = files.disk_fault(error)
    assert (found.errno, found.filename) == (errno.EROFS, "/x")
    assert files.disk_fault(TimeoutError("no answer")) is None
    assert files.said_fault("pip: [Errno 13] Permission denied: '/x'") == "Permission denied"
    assert files.said_fault("pip: connection refused") == ""


# damaged variants of what others wrote

BREAK = (None, -1, 0, 3.5, 10**30, "x", [], {}, True, "\ud800", [[[]]], 1e308)


def refusal(kind, read):
    """What an error of that kind says; None where there is none."""
    try:
        read()
    except kind as error:
        return str(error)
    return None


def damaged(value, rng):
    """The value with one entry deleted or replaced by something else, somewhere in it."""
    value = json.loads(json.dumps(value))
    places = []

    def collect(inner):
        for key in list(inner) if isinstance(inner, dict) else range(len(inner)):
            places.append((inner, key))
            if isinstance(inner[key], dict | list):
                collect(inner[key])

    collect(value)
    inner, key = places[rng.integers(len(places))]
    if rng.random() < 0.25:
        del inner[key]
    else:
        inner[key] = BREAK[rng.integers(len(BREAK))]
    return value


def damaged_text(value, rng):
    text = json.dumps(damaged(value, rng))
    if rng.random() < 0.2:
        return text[: rng.integers(len(text))]
    if rng.random() < 0.1:
        place = rng.integers(len(text))
        return text[:place] + chr(rng.integers(32, 126)) + text[place + 1 :]
    return text


CONFIGS = {
    "config.json": {
        "model_type": "clip",
        "projection_dim": 6,
        "vision_config": {
            "hidden_size": 8,
            "intermediate_size": 12,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 8,
            "patch_size": 4,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-5,
        },
        "text_config": {"hidden_size": 8, "num_attention_heads": 2, "vocab_size": 30},
    },
    "processor_config.json": {
        "image_processor": {
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "do_rescale": True,
            "rescale_factor": 0.01,
            "resample": 3,
            "size": {"shortest_edge": 8},
            "crop_size": {"height": 8, "width": 8},
        }
    },
    "open_clip_config.json": {
        "model_cfg": {
            "embed_dim": 6,
            "quick_gelu": True,
            "vision_cfg": {"image_size": 8, "layers": 1, "width": 8, "patch_size": 4},
            "text_cfg": {"width": 8, "heads": 2, "layers": 1, "norm_kwargs": {"eps": 1e-6}},
        },
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    },
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_damaged_configuration_is_read_or_named(name, tmp_path):
    """Of three hundred variants, fields of sane types or an error that names the file."""
    from linearize.models.hf import configs, sources

    rng = np.random.default_rng(0)
    whole = {k: v for k, v in CONFIGS.items() if k == name or k == "config.json"}
    if name == "open_clip_config.json":
        del whole["config.json"]
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    for file, value in whole.items():
        (tmp_path / file).write_text(json.dumps(value))

    def fields():
        source = sources.read(tmp_path)
        for read in (configs.vision, configs.text):
            got = read(source.notes, tmp_path)
            if got is not None:
                hash(tuple(got.values()))  # all are plain values
                assert got["width"] % got["heads"] == 0

    refused = 0
    for _ in range(300):
        (tmp_path / name).write_text(damaged_text(whole[name], rng), errors="surrogatepass")
        said = refusal(models.WeightsError, fields)
        refused += said is not None
        assert said is None or (name in said and len(said) < 3000)
    assert 30 < refused < 300


def test_a_damaged_index_is_read_or_named(tmp_path):
    from linearize.models.hf import sources

    io.save_tree(tmp_path / "a.safetensors", {"x": np.zeros(2)})
    index = tmp_path / "model.safetensors.index.json"
    value = {"metadata": {"total_size": 16}, "weight_map": {"x": "a.safetensors"}}
    rng = np.random.default_rng(1)
    for _ in range(100):
        index.write_text(damaged_text(value, rng), errors="surrogatepass")
        said = refusal(models.WeightsError, lambda: sources.read(tmp_path).tensors["x"]())
        assert said is None or index.name in said


@pytest.mark.slow
def test_a_damaged_experiments_configuration_is_read_or_named(tmp_path):
    from configs.compare import debug

    kind = type(debug())
    whole = configuration.to_dict(debug())
    path = tmp_path / "config.json"
    rng = np.random.default_rng(2)
    refused = 0
    for _ in range(300):
        path.write_text(damaged_text(whole, rng), errors="surrogatepass")
        said = refusal(
            configuration.ConfigError,
            lambda: configuration.to_dict(configuration.load_config(kind, path)),
        )
        refused += said is not None
        assert said is None or str(path) in said
    assert refused > 50


def test_a_damaged_header_is_read_or_named(tmp_path):
    path = io.save_tree(tmp_path / "a.safetensors", {"x": np.zeros((2, 3)), "y": np.ones(4)})
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    rng = np.random.default_rng(3)
    for _ in range(300):
        text = damaged_text(header, rng).encode(errors="surrogatepass")
        path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
        said = refusal(io.CorruptFileError, lambda: io.load_tree(path))
        assert said is None or str(path) in said


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.json"])
def test_a_damaged_tokenizer_is_read_or_named(name, tmp_path):
    pytest.importorskip("tokenizers")
    from linearize.models import tokenizer

    words = {"a": 0, "b": 1, "ab": 2, "c</w>": 3, tokenizer.START: 4, tokenizer.END: 5}
    whole = json.loads(tokenizer._clip(words, [("a", "b")]).to_str())
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    value = {"tokenizer.json": whole, "vocab.json": words}[name]
    rng = np.random.default_rng(4)
    refused = 0
    for _ in range(150):
        (tmp_path / name).write_text(damaged_text(value, rng), errors="surrogatepass")
        said = refusal(
            tokenizer.TokenizerError,
            lambda: tokenizer.load_tokenizer(tmp_path, vocabulary=6)(["a"]),
        )
        refused += said is not None
        assert said is None or str(tmp_path) in said
    assert refused > 20
