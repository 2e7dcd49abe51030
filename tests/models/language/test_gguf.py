"""GGUF files beside transformers' own reader, the quantised ones too; and broken ones."""

import dataclasses
import importlib
import struct

import numpy as np
import pytest

from linearize import models
from linearize.models.language import gguf as ours
from linearize.models.language import rotary

gguf = pytest.importorskip("gguf")

VOCABULARY, WIDTH, HIDDEN, HEADS, SHARED, HEAD = 40, 64, 96, 4, 2, 32
TYPES = gguf.GGMLQuantizationType


TWO = {"input_layernorm": WIDTH, "post_attention_layernorm": WIDTH}
FOUR = TWO | {"pre_feedforward_layernorm": WIDTH, "post_feedforward_layernorm": WIDTH}
HEADS_TOO = FOUR | {"self_attn.q_norm": HEAD, "self_attn.k_norm": HEAD}
NORMS = {"llama": TWO, "gemma": TWO, "gemma2": FOUR, "gemma3": HEADS_TOO}


def turned(weight, heads):
    """Rows as llama.cpp orders them: of each head the pairs (i, i + W / 2) as neighbours."""
    pairs = weight.reshape(heads, 2, -1, *weight.shape[1:])
    return np.stack([pairs[:, 0], pairs[:, 1]], 2).reshape(weight.shape)


def weights(shared=SHARED, arch="llama"):
    """A model of two blocks in transformers' names."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype("float32")  # noqa: E731
    named = {"model.embed_tokens.weight": draw(VOCABULARY, WIDTH), "model.norm.weight": draw(WIDTH)}
    for i in range(2):
        block = f"model.layers.{i}"
        named |= {
            f"{block}.self_attn.q_proj.weight": draw(HEADS * HEAD, WIDTH),
            f"{block}.self_attn.k_proj.weight": draw(shared * HEAD, WIDTH),
            f"{block}.self_attn.v_proj.weight": draw(shared * HEAD, WIDTH),
            f"{block}.self_attn.o_proj.weight": draw(WIDTH, HEADS * HEAD),
            f"{block}.mlp.gate_proj.weight": draw(HIDDEN, WIDTH),
            f"{block}.mlp.up_proj.weight": draw(HIDDEN, WIDTH),
            f"{block}.mlp.down_proj.weight": draw(WIDTH, HIDDEN),
            **{f"{block}.{norm}.weight": draw(size) for norm, size in NORMS[arch].items()},
        }
    return named


NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers.": "blk.",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "input_layernorm": "attn_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def write(path, named, *, kind=TYPES.F32, arch="llama", tokens=VOCABULARY, shared=SHARED, **notes):
    writer = gguf.GGUFWriter(path, arch)
    writer.add_block_count(2)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(shared)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_rope_dimension_count(HEAD)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(500.0)
    if tokens is not None:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("smollm")
        writer.add_token_list([f"w{i}" for i in range(tokens)])
        writer.add_token_types([1] * tokens)
        writer.add_token_merges(["w 1", "w 2"])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
    if arch in ("gemma2", "gemma3"):
        writer.add_sliding_window(5)
    for key, value in notes.items():
        add = writer.add_string if isinstance(value, str) else writer.add_float32
        add(f"{arch}.{key.replace('__', '.')}", value)
    gemma, four = arch.startswith("gemma"), any("pre_feedforward" in name for name in named)
    names = NAMES | {"post_attention_layernorm": "post_attention_norm" if four else "ffn_norm"}
    for name, x in named.items():
        new = name
        for theirs, word in names.items():
            new = new.replace(theirs, word)
        heads = {"attn_q": HEADS, "attn_k": shared}.get(new.split(".")[-2])
        stored = x if heads is None or gemma else turned(x, heads)
        stored = stored + np.float32(gemma and new.endswith("norm.weight"))
        own = kind if x.ndim > 1 else TYPES.F32
        writer.add_tensor(new, gguf.quants.quantize(stored, own), raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("arch", "shared"), [("llama", 1), ("llama", SHARED), ("gemma", 1), ("gemma3", SHARED)]
)
def test_tensors_are_those_that_were_written(tmp_path, arch, shared):
    named = weights(shared, arch)
    source = models.hf.read(write(tmp_path / "m.gguf", named, arch=arch, shared=shared))
    assert source.tensors.keys() == named.keys()
    for name, x in named.items():
        near = 2e-7 if arch != "llama" and x.ndim == 1 else 0  # 1 was added, and rounded
        np.testing.assert_allclose(source.tensors[name](), x, atol=near, rtol=0, err_msg=name)
    config = source.notes["config.json"]
    assert config["rms_norm_eps"] == 1e-5
    assert config["tie_word_embeddings"]
    model = models.load_language(arch, weights=tmp_path)  # the only weights in that folder
    np.testing.assert_array_equal(
        model.params["block_1"]["attention"]["k"]["kernel"],
        named["model.layers.1.self_attn.k_proj.weight"].T,
    )
    assert (model.vocabulary, model.context, model.width) == (VOCABULARY, 64, WIDTH)


def test_what_is_said_of_gemma(tmp_path):
    """As llama.cpp has it: no scalar is written, and 27 B alone divides by the number of heads."""
    told = {"rope__scaling__type": "linear", "rope__scaling__factor": 8.0}
    path = write(tmp_path / "m.gguf", weights(arch="gemma3"), arch="gemma3", **told)
    config = models.hf.read(path).notes["config.json"]
    fields = models.LANGUAGE["gemma3"].configure(config, "m.gguf")
    assert fields["stretch"] == rotary.Linear(8.0)
    assert (fields["theta"], fields["local_theta"], fields["window"]) == (500.0, 1e4, 5)
    assert fields["attention_scale"] == HEAD**-0.5
    for arch, depth in (("gemma2", 46), ("gemma3", 62)):
        notes = {f"{arch}.{word}": n for word, n in {
            "block_count": depth, "embedding_length": 5376, "attention.key_length": 128,
            "attention.head_count": 32,
        }.items()}  # fmt: skip
        assert ours._config(ours._File(path, notes, (), 0), arch)["query_pre_attn_scalar"] == 168


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "kind"),
    [
        *(("llama", k) for k in (TYPES.F16, TYPES.BF16, TYPES.Q8_0, TYPES.Q4_1, TYPES.Q5_0)),
        ("gemma2", TYPES.Q8_0),
        ("gemma3", TYPES.Q8_0),
    ],
)
def test_is_read_as_transformers_reads_it(tmp_path, arch, kind):
    transformers = pytest.importorskip("transformers")
    exact = weights(arch=arch)
    path = write(tmp_path / "m.gguf", exact, kind=kind, arch=arch)
    source = models.hf.read(path)
    read_gguf = importlib.import_module(
        "transformers.modeling_gguf_pytorch_utils"
    ).load_gguf_checkpoint
    theirs = read_gguf(path)
    row = models.LANGUAGE[arch]
    assert theirs["config"].pop("model_type") == row.kind
    made = transformers.AutoConfig.for_model(row.kind, **theirs["config"])
    net = getattr(transformers, row.builds)(made)
    state = read_gguf(path, return_tensors=True, model_to_load=net)["tensors"]
    for name, read in source.tensors.items():
        np.testing.assert_array_equal(read(), state[name], err_msg=name)
        assert np.abs(read() - exact[name]).max() < 0.3
    assert net.config.head_dim == HEAD
    assert source.size < sum(x.nbytes for x in exact.values())
    fields = row.configure(source.notes["config.json"], "m.gguf")
    made.rms_norm_eps = 1e-5  # where transformers has all digits of a float32
    if arch != "llama":  # and the scalar of another size
        made.query_pre_attn_scalar = HEAD
    assert fields == row.configure(made.to_dict(), "")


def test_the_vocabulary_inside(tmp_path):
    found = ours.vocabulary(write(tmp_path / "m.gguf", weights()))
    assert found.tokens[3] == "w3"
    assert found.merges == ("w 1", "w 2")
    assert found.special == {"bos": 1, "eos": 2}
    assert (found.model, found.pre, found.add_bos) == ("gpt2", "smollm", None)
    with pytest.raises(models.WeightsError, match="holds no tokenizer"):
        ours.vocabulary(write(tmp_path / "n.gguf", weights(), tokens=None))


def test_a_truncated_file_is_said_to_be_one(tmp_path):
    whole = write(tmp_path / "m.gguf", weights()).read_bytes()
    cut = tmp_path / "cut.gguf"
    for size in [*range(4, 3000, 41), len(whole) // 2, len(whole) - 1]:
        cut.write_bytes(whole[:size])
        with pytest.raises(models.WeightsError, match="truncated"):
            models.hf.read(cut)
    for broken in (b"", b"GGU", b"PK\3\4" + whole[4:]):
        cut.write_bytes(broken)
        with pytest.raises(models.WeightsError, match="no GGUF"):
            models.hf.read(cut)


def test_counts_that_no_file_holds(tmp_path):
    whole = bytearray(write(tmp_path / "m.gguf", weights()).read_bytes())
    for at in (8, 16):  # of tensors, and of notes
        broken = whole.copy()
        struct.pack_into("<Q", broken, at, 2**62)
        (tmp_path / "b.gguf").write_bytes(broken)
        with pytest.raises(models.WeightsError):
            models.hf.read(tmp_path / "b.gguf")
    struct.pack_into("<I", whole, 4, 1)
    (tmp_path / "b.gguf").write_bytes(whole)
    with pytest.raises(models.WeightsError, match="version 1"):
        models.hf.read(tmp_path / "b.gguf")


def lists(depth):
    """A head whose one note is a list of lists of ... lists."""
    key = b"x"
    head = struct.pack("<4sIQQQ", b"GGUF", 3, 0, 1, len(key)) + key + struct.pack("<I", 9)
    return head + struct.pack("<IQ", 9, 1) * depth


def test_what_is_not_read_is_refused_by_name(tmp_path, monkeypatch):
    path = tmp_path / "m.gguf"

    def refused(match, **options):
        write(path, options.pop("named", weights()), **options)
        with pytest.raises(models.WeightsError, match=match):
            models.load_language("llama", weights=path)

    refused(r"architecture 'mamba'.*llama", arch="mamba")
    refused(r"tokenizer has 39 tokens and its embedding 40 rows", tokens=39)
    refused(r"llama\.rope\.scaling\.factor", rope__scaling__factor=2.0)
    refused(r"unknown: rope_freqs\.weight", named={**weights(), "rope_freqs.weight": np.ones(16)})
    path.write_bytes(lists(100_000))
    with pytest.raises(models.WeightsError, match="lists of lists"):
        models.hf.read(path)
    write(path, weights())
    read = ours._open(path)
    strange = [dataclasses.replace(t, type=99 if "ffn_up" in t.name else 24) for t in read.tensors]
    monkeypatch.setattr(ours, "_open", lambda _: dataclasses.replace(read, tensors=tuple(strange)))
    with pytest.raises(models.WeightsError, match=r"(?s)I8: .*number 99: blk\.0\.ffn_up\.weight"):
        models.hf.read(path)
