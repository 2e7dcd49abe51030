"""OpenCLIP's image encoder with each of its options, against the same written out in torch."""

import json

import numpy as np
import pytest

from linearize import models

torch = pytest.importorskip("torch")
F = torch.nn.functional

WIDTH, DIM, SIDE, PATCH = 32, 6, 8, 4
PLAIN = {"image_size": SIDE, "layers": 1, "width": WIDTH, "patch_size": PATCH, "head_width": 16}
CHANGES = [
    {},
    {"norm_kwargs": {"eps": 0.1}},
    {"act_kwargs": {"approximate": "tanh"}},
    {"pool_type": "avg"},
    {"no_ln_pre": True},
    {"ls_init_value": 0.1},
    {"head_width": 8},
    {"mlp_ratio": 1.5},
    {"patch_dropout": 0.5, "output_tokens": True, "pos_embed_type": "sin_cos_2d"},
]


def tensors(config):
    """A random state dict under OpenCLIP's names."""
    block, hidden = "visual.transformer.resblocks.0", int(WIDTH * config.get("mlp_ratio", 4.0))
    shapes = {
        "visual.class_embedding": (WIDTH,),
        "visual.positional_embedding": ((SIDE // PATCH) ** 2 + 1, WIDTH),
        "visual.conv1.weight": (WIDTH, 3, PATCH, PATCH),
        "visual.proj": (WIDTH, DIM),
        f"{block}.attn.in_proj_weight": (3 * WIDTH, WIDTH),
        f"{block}.attn.in_proj_bias": (3 * WIDTH,),
        f"{block}.attn.out_proj.weight": (WIDTH, WIDTH),
        f"{block}.attn.out_proj.bias": (WIDTH,),
        f"{block}.mlp.c_fc.weight": (hidden, WIDTH),
        f"{block}.mlp.c_fc.bias": (hidden,),
        f"{block}.mlp.c_proj.weight": (WIDTH, hidden),
        f"{block}.mlp.c_proj.bias": (WIDTH,),
    }
    norms = ["visual.ln_post", f"{block}.ln_1", f"{block}.ln_2"]
    norms += [] if config.get("no_ln_pre") else ["visual.ln_pre"]
    shapes |= {f"{norm}.{kind}": (WIDTH,) for norm in norms for kind in ("weight", "bias")}
    if "ls_init_value" in config:
        shapes |= {f"{block}.ls_{n}.gamma": (WIDTH,) for n in (1, 2)}
    torch.manual_seed(0)
    return {n: torch.randn(s) / s[-1] ** (0.5 * (len(s) > 1)) for n, s in shapes.items()}


def features(state, x, config):
    eps = (config.get("norm_kwargs") or {}).get("eps", 1e-5)
    approximate = (config.get("act_kwargs") or {}).get("approximate", "none")
    inner = "visual.transformer.resblocks.0."

    def norm(name, x):
        return F.layer_norm(x, (WIDTH,), state[f"{name}.weight"], state[f"{name}.bias"], eps)

    def linear(name, x):
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def scaled(n, x):
        return x * state[f"{inner}ls_{n}.gamma"] if "ls_init_value" in config else x

    x = F.conv2d(x, state["visual.conv1.weight"], stride=PATCH).flatten(2).transpose(1, 2)
    first = state["visual.class_embedding"].expand(x.shape[0], 1, WIDTH)
    x = torch.cat([first, x], dim=1) + state["visual.positional_embedding"]
    x = x if config.get("no_ln_pre") else norm("visual.ln_pre", x)
    y = norm(f"{inner}ln_1", x)
    y = F.linear(y, state[f"{inner}attn.in_proj_weight"], state[f"{inner}attn.in_proj_bias"])
    q, k, v = (
        part.unflatten(-1, (-1, config["head_width"])).transpose(1, 2) for part in y.chunk(3, -1)
    )
    y = torch.softmax(q @ k.transpose(-1, -2) / config["head_width"] ** 0.5, dim=-1) @ v
    x = x + scaled(1, linear(f"{inner}attn.out_proj", y.transpose(1, 2).flatten(2)))
    y = F.gelu(linear(f"{inner}mlp.c_fc", norm(f"{inner}ln_2", x)), approximate=approximate)
    x = norm("visual.ln_post", x + scaled(2, linear(f"{inner}mlp.c_proj", y)))
    pooled = x[:, 1:].mean(1) if config.get("pool_type") == "avg" else x[:, 0]
    return pooled @ state["visual.proj"]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_features_with_each_option(change, tmp_path):
    config = PLAIN | change
    state = tensors(config)
    note = {"model_cfg": {"embed_dim": DIM, "vision_cfg": config, "text_cfg": {}}}
    note["preprocess_cfg"] = {"mean": [0.2, 0.4, 0.6], "std": [0.5, 0.3, 0.1]}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(note))
    torch.save(state, tmp_path / "open_clip_pytorch_model.bin")
    ours = models.load("clip", weights=tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    pixels = (images / 255 - [0.2, 0.4, 0.6]) / [0.5, 0.3, 0.1]
    pixels = torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=torch.float32)
    expected = features(state, pixels, config).numpy()
    np.testing.assert_allclose(ours.f(ours.params, images), expected, atol=2e-5, rtol=0)
    plain = features(state, pixels, {**PLAIN, "no_ln_pre": config.get("no_ln_pre")}).numpy()
    without = {"mlp_ratio", "patch_dropout", "no_ln_pre"} & change.keys() or not change
    assert without or np.abs(plain - expected).max() > 1e-4  # the option tells


def test_what_transformers_cannot_compute_is_not_exported(tmp_path):
    config = PLAIN | {"pool_type": "avg"}
    note = {"model_cfg": {"embed_dim": DIM, "vision_cfg": config, "text_cfg": {}}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(note))
    torch.save(tensors(config), tmp_path / "open_clip_pytorch_model.bin")
    ours = models.load("clip", weights=tmp_path)
    with pytest.raises(models.WeightsError, match="pooling is 'class_token' there"):
        models.export(tmp_path / "out", ours)
    assert not (tmp_path / "out").exists()
