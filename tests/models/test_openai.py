"""OpenAI's and OpenCLIP's files, and the task-vector authors' whole modules, read without torch."""

import copy
import json
import sys
import types

import jax
import numpy as np
import pytest

from linearize import TaskVector, models, tree
from linearize.models import clip, released, torch_modules, vit
from linearize.models.hf import engine, tables
from linearize.models.torch_archive import TorchArchiveError

torch = pytest.importorskip("torch")
nn = torch.nn

WIDTH, TEXT_WIDTH, DIM, CONTEXT, VOCABULARY = 64, 64, 24, 8, 50
NOTES = {
    "model_cfg": {
        "embed_dim": DIM,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": WIDTH, "patch_size": 16},
        "text_cfg": {
            "context_length": CONTEXT,
            "vocab_size": VOCABULARY,
            "width": TEXT_WIDTH,
            "heads": 1,
            "layers": 2,
        },
    },
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
}


def modules():
    """Classes laid out as OpenCLIP's, in a module of their own that can be made to vanish."""

    class Block(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.ln_1 = nn.LayerNorm(width)
            self.attn = nn.MultiheadAttention(width, 1)
            self.ln_2 = nn.LayerNorm(width)
            self.mlp = nn.Sequential()
            self.mlp.add_module("c_fc", nn.Linear(width, 4 * width))
            self.mlp.add_module("gelu", nn.GELU())
            self.mlp.add_module("c_proj", nn.Linear(4 * width, width))

        def forward(self, x):
            y = self.ln_1(x)
            x = x + self.attn(y, y, y, need_weights=False)[0]
            y = self.mlp.c_fc(self.ln_2(x))
            return x + self.mlp.c_proj(y * torch.sigmoid(1.702 * y))

    class Transformer(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.resblocks = nn.ModuleList([Block(width), Block(width)])

        def forward(self, x):
            for block in self.resblocks:
                x = block(x)
            return x

    class Visual(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, WIDTH, 16, 16, bias=False)
            self.class_embedding = nn.Parameter(torch.randn(WIDTH))
            self.positional_embedding = nn.Parameter(torch.randn(5, WIDTH))
            self.ln_pre = nn.LayerNorm(WIDTH)
            self.transformer = Transformer(WIDTH)
            self.ln_post = nn.LayerNorm(WIDTH)
            self.proj = nn.Parameter(torch.randn(WIDTH, DIM) / 8)

        def forward(self, x):
            x = self.conv1(x).flatten(2).transpose(1, 2)
            first = self.class_embedding.expand(x.shape[0], 1, WIDTH)
            x = self.ln_pre(torch.cat([first, x], dim=1) + self.positional_embedding)
            x = self.transformer(x.transpose(0, 1)).transpose(0, 1)
            return self.ln_post(x[:, 0]) @ self.proj

    class CLIP(nn.Module):
        def __init__(self):
            super().__init__()
            self.visual = Visual()
            self.transformer = Transformer(TEXT_WIDTH)
            self.vocab_size = VOCABULARY
            self.token_embedding = nn.Embedding(VOCABULARY, TEXT_WIDTH)
            self.positional_embedding = nn.Parameter(torch.randn(CONTEXT, TEXT_WIDTH))
            self.ln_final = nn.LayerNorm(TEXT_WIDTH)
            self.text_projection = nn.Parameter(torch.randn(TEXT_WIDTH, DIM))
            self.logit_scale = nn.Parameter(torch.tensor(2.5))
            self.register_buffer("attn_mask", torch.zeros(CONTEXT, CONTEXT), persistent=False)

        def forward(self, x):
            return self.visual(x)

    class Preprocess:
        def __init__(self):
            self.steps = [nn.functional.relu, "bicubic", torch.float32]

    class ImageEncoder(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model
            self.train_preprocess = Preprocess()
            self.cache_dir = None
            del self.model.transformer

    class LinearizedModel(nn.Module):
        def __init__(self, before, after):
            super().__init__()
            self.params = nn.ParameterList(after.parameters())
            self.params0 = nn.ParameterList(before.parameters())

    home = types.ModuleType("vanished_clip")
    for made in (Block, Transformer, Visual, CLIP, Preprocess, ImageEncoder, LinearizedModel):
        made.__module__, made.__qualname__ = home.__name__, made.__name__
        setattr(home, made.__name__, made)
    return home


@pytest.fixture(scope="module")
def home():
    made = modules()
    sys.modules[made.__name__] = made
    yield made
    sys.modules.pop(made.__name__, None)


@pytest.fixture(scope="module")
def original(home):
    torch.manual_seed(0)
    model = home.CLIP().eval()
    for p in model.parameters():
        p.data = p.data + 0.1 * torch.randn(p.shape)
    return model


def folder_with(path, name, write):
    path.mkdir(exist_ok=True)
    (path / "open_clip_config.json").write_text(json.dumps(NOTES))
    write(path / name)
    return path


@pytest.fixture(scope="module")
def plain(original, tmp_path_factory):
    """The state dict in OpenCLIP's folder, and its image encoder here."""
    folder = folder_with(
        tmp_path_factory.mktemp("openclip") / "state",
        "open_clip_pytorch_model.bin",
        lambda path: torch.save(original.state_dict(), path),
    )
    return folder, models.load("clip", weights=folder)


def test_image_features_equal_the_original(original, plain):
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    _, ours = plain
    pixels = (images / 255 - 0.5) / 0.25
    with torch.no_grad():
        expected = original(torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=torch.float32))
    np.testing.assert_allclose(ours.f(ours.params, images), expected.numpy(), atol=1e-5, rtol=0)


def test_both_dialects_of_the_text_tower_agree(original, plain, tmp_path):
    """The same tower under Hugging Face's names gives the same features."""
    folder, _ = plain
    text = models.load_text("clip", weights=folder)
    assert np.float32(text.logit_scale) == original.logit_scale.detach().numpy()
    assert (text.context, text.vocabulary, text.feature_dim) == (CONTEXT, VOCABULARY, DIM)
    leaves = {**tree.flatten(text.params), "logit_scale": np.float32(text.logit_scale)}
    for table in (tables.CLIP_TEXT, tables.OPENAI_TEXT):
        theirs = engine.export_leaves(leaves, table)
        lazy = {name: (lambda array=array: array) for name, array in theirs.items()}
        back = engine.import_leaves(lazy, (tables.CLIP_TEXT, tables.OPENAI_TEXT), leaves)
        assert tree.fingerprint(back) == tree.fingerprint(leaves)
    assert theirs.keys() <= torch_modules.read(folder / "open_clip_pytorch_model.bin").keys()


def script(model, path):
    torch.jit.save(torch.jit.trace(model, torch.zeros(1, 3, 32, 32)), path)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_torchscript_as_openai_released_it(original, plain, tmp_path):
    model = copy.deepcopy(original).half()
    model.float()
    path = tmp_path / "ViT-tiny.pt"
    script(model, path)
    half = {n: np.float32(np.float16(x)) for n, x in leaves(plain[1]).items()}
    got = released_weights(plain, path)
    assert tree.fingerprint(got) == tree.fingerprint(half)


def leaves(backbone):
    return {n: np.asarray(x) for n, x in tree.flatten(backbone.params).items()}


def released_weights(plain, path):
    """Leaves of a file without a configuration, at the shapes of the model that is known."""
    source = models.hf.read(path)
    dialects = (tables.CLIP_VISION, tables.OPENAI_VISION)
    return models.hf.import_leaves(source.tensors, dialects, leaves(plain[1]))


@pytest.mark.parametrize("new_format", [True, False])
def test_whole_modules_of_vanished_classes(
    home, original, plain, tmp_path, new_format, monkeypatch
):
    whole = home.ImageEncoder(copy.deepcopy(original))
    path = tmp_path / "zeroshot.pt"
    with pytest.warns() if not new_format else _nothing():
        torch.save(whole, path, _use_new_zipfile_serialization=new_format)
    monkeypatch.delitem(sys.modules, home.__name__)
    with pytest.raises((AttributeError, ModuleNotFoundError)):
        torch.load(path, weights_only=False)
    got = released_weights(plain, path)
    assert tree.fingerprint(got) == tree.fingerprint(leaves(plain[1]))


def _nothing():
    import contextlib

    return contextlib.nullcontext()


@pytest.mark.slow
@pytest.mark.parametrize("named", [True, False])
def test_linearized_checkpoints_give_the_direct_task_vector(home, original, plain, tmp_path, named):
    before = home.ImageEncoder(copy.deepcopy(original))
    after = copy.deepcopy(before)
    for p in after.model.visual.parameters():
        p.data = p.data + 0.01 * torch.randn(p.shape)
    torch.save(before, tmp_path / "zeroshot.pt")
    torch.save(after, tmp_path / "finetuned.pt")
    direct = TaskVector.between(
        *(released_weights(plain, tmp_path / f"{n}.pt") for n in ("zeroshot", "finetuned"))
    )
    linear = nn.Module()
    linear.model = home.LinearizedModel(before, after)
    state = linear.state_dict()
    state["model_name"] = "ViT-tiny"
    torch.save(state, tmp_path / "linear_finetuned.pt")
    like = tmp_path / "zeroshot.pt" if named else None
    theta0, theta = released.read_linear(tmp_path / "linear_finetuned.pt", like=like)
    dialects = (tables.CLIP_VISION, tables.OPENAI_VISION)
    got = TaskVector.between(
        *(models.hf.import_leaves(x.tensors, dialects, leaves(plain[1])) for x in (theta0, theta))
    )
    assert tree.fingerprint(got.delta) == tree.fingerprint(direct.delta)
    assert got.base == direct.base
    assert tree.norm(got.delta) > 0


def test_other_linearized_checkpoints_are_refused(tmp_path):
    torch.save(
        {"model.params.0": torch.zeros(2), "model.params0.1": torch.zeros(2)}, tmp_path / "a"
    )
    with pytest.raises(models.WeightsError, match=r"has 1 params\.i and 1 params0\.i"):
        released.read_linear(tmp_path / "a")
    pair = {f"model.{p}.{i}": torch.zeros(2) for p in ("params", "params0") for i in range(20)}
    torch.save(pair, tmp_path / "b")
    with pytest.raises(models.WeightsError, match="20 parameters and 14 names"):
        released.read_linear(tmp_path / "b")


def test_named_architectures_are_openais():
    """Millions of parameters of both towers, as OpenCLIP's model profile lists them."""
    millions = {
        "clip_vit_b32": (87.85, 63.43),
        "clip_vit_b16": (86.19, 63.43),
        "clip_vit_l14": (303.97, 123.65),
    }
    for name, expected in millions.items():
        fields = clip.VISION[name]
        image = vit.ViT(image_size=fields["patch"], **fields)
        text = clip.TextTower(**clip.TEXT[name])
        pixels = jax.ShapeDtypeStruct((1, image.image_size, image.image_size, 3), np.uint8)
        tokens = jax.ShapeDtypeStruct((1, 77), np.int32)
        for module, example, size in zip((image, text), (pixels, tokens), expected, strict=True):
            made = jax.eval_shape(module.init, jax.random.key(0), example)
            count = sum(x.size for x in jax.tree.leaves(made))
            assert count / 1e6 == pytest.approx(size, abs=0.006)


def test_a_truncated_module_is_an_error(home, original, tmp_path):
    path = tmp_path / "short.pt"
    torch.save(original, path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(TorchArchiveError, match=r"short\.pt"):
        torch_modules.read(path)
