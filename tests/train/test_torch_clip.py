"""Ten AdamW steps of a small CLIP in both regimes, against transformers' on torch."""

import copy
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from linearize import models, train, tree
from linearize.curvature import measure
from linearize.methods import attention_only, tak, tau_jp
from linearize.models.heads import apply_head
from linearize.train import OptimConfig, Penalty, Stream, TrainConfig

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

N, STEPS, WARMUP, LR, DECAY = 12, 10, 3, 1e-3, 0.1


@pytest.fixture(scope="module")
def theirs():
    vision = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 16,
        "projection_dim": 24,
    }
    config = transformers.CLIPVisionConfig(**vision, attn_implementation="eager")
    torch.manual_seed(0)
    model = transformers.CLIPVisionModelWithProjection(config).eval()
    for parameter in model.parameters():
        spread = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.3
        parameter.data = torch.randn(parameter.shape) * spread
    return model


@pytest.fixture(scope="module")
def ours(theirs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    theirs.save_pretrained(folder)
    return models.load("clip", weights=folder)


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (N, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(N, dtype=np.int32) % 4
    head = models.zero_shot_head([jnp.asarray(row[None]) for row in rng.normal(size=(4, 24))], 2.0)
    return images, labels, head


@pytest.mark.slow
@pytest.mark.parametrize("regime", ["nonlinear", "linear"])
def test_ten_steps_equal_torch(theirs, ours, problem, regime, tmp_path):
    """Relative 1e-3 in τ; θ decays as in the papers' code, and each batch is the whole data set.

    Biases of the keys are left out: softmax does not see them, so that their gradient is rounding,
    which Adam blows up to the learning rate in either framework.
    """
    images, labels, head = problem
    optim = OptimConfig(lr=LR, weight_decay=DECAY, decay="theta", warmup=WARMUP, clip=1.0)
    got = train.fine_tune(
        ours.f,
        ours.params,
        {"inputs": images, "labels": labels},
        regime=regime,
        readout=Partial(apply_head, head),
        config=TrainConfig(optim=optim, steps=STEPS, batch_size=N, log_every=1, tensorboard=False),
        run_dir=tmp_path / "run",
    )

    pixels = pixels_of(ours, images)
    targets = torch.from_numpy(labels).long()
    kernel = torch.from_numpy(np.array(head.scale * head.kernel))
    base = {n: p.detach().clone() for n, p in theirs.named_parameters()}
    theta = {n: torch.nn.Parameter(p.clone()) for n, p in base.items()}
    adamw = torch.optim.AdamW(theta.values(), lr=LR, weight_decay=DECAY, eps=1e-8)

    def features(params):
        return torch.func.functional_call(theirs, params, (pixels,)).image_embeds

    for step in range(STEPS):
        if regime == "linear":
            tau = {n: p - base[n] for n, p in theta.items()}
            f0, moved = torch.func.jvp(features, (base,), (tau,))
            z = f0 + moved
        else:
            z = features(theta)
        logits = z / z.norm(dim=-1, keepdim=True) @ kernel
        loss = torch.nn.functional.cross_entropy(logits, targets)
        np.testing.assert_allclose(got.history[step]["loss"], loss.item(), rtol=1e-4)
        adamw.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(theta.values()), 1.0)
        after = (step - WARMUP) / (STEPS - WARMUP)
        rate = (step + 1) / WARMUP if step < WARMUP else 0.5 * (1 + np.cos(np.pi * after))
        adamw.param_groups[0]["lr"] = LR * rate
        adamw.step()
    assert got.history[-1]["loss"] < 0.9 * got.history[0]["loss"]

    assert_same(got.tau, theirs, theta, ours, tmp_path / "end")


def along(theirs, ours, images, base, tau):
    """f0 and Jτ, by torch."""
    x = pixels_of(ours, images)
    call = lambda params: torch.func.functional_call(theirs, params, (x,)).image_embeds  # noqa: E731
    return torch.func.jvp(call, (base,), (tau,))


def two_steps(theirs, ours, problem, penalty, form):
    """Plain descent with a penalty on τ in both, whose second step has the penalty's gradient.

    ``form(base, tau)`` is the penalty in torch, without λ. What comes back is the run, torch's
    parameters, and the loss and the penalty of its last step.
    """
    images, labels, head = problem
    got = train.fine_tune(
        ours.f,
        ours.params,
        {"inputs": images, "labels": labels},
        regime="linear",
        readout=Partial(apply_head, head),
        penalties=[penalty],
        config=TrainConfig(
            optim=OptimConfig("sgd", lr=0.01, schedule="constant", clip=None),
            steps=2,
            batch_size=N,
            log_every=1,
            tensorboard=False,
        ),
    )
    kernel = torch.from_numpy(np.array(head.scale * head.kernel))
    base = {n: p.detach().clone() for n, p in theirs.named_parameters()}
    theta = {n: torch.nn.Parameter(p.clone()) for n, p in base.items()}
    for _ in range(2):
        tau = {n: p - base[n] for n, p in theta.items()}
        z = sum(along(theirs, ours, images, base, tau))
        logits = z / z.norm(dim=-1, keepdim=True) @ kernel
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels).long())
        value = form(base, tau)
        slopes = torch.autograd.grad(loss + penalty.weight * value, list(theta.values()))
        for p, slope in zip(theta.values(), slopes, strict=True):
            p.data -= 0.01 * slope
    return got, theta, loss, value


@pytest.mark.slow
@pytest.mark.parametrize("power", [1, 2], ids=["norm", "squared"])
def test_two_steps_with_tau_jp_equal_torch(theirs, ours, problem, power, tmp_path):
    """‖Jτ‖, as in the paper's code, and ‖Jτ‖², as written; the mean of sets."""
    rng = np.random.default_rng(1)
    others = [rng.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8) for _ in range(2)]
    streams = [Stream({"inputs": x}, 3) for x in others]

    def form(base, tau):
        moved = [along(theirs, ours, x, base, tau)[1] for x in others]
        return torch.stack([(each.norm(dim=-1) ** power).mean() for each in moved]).mean()

    value = {1: tau_jp.norms, 2: tau_jp.squares}[power]
    penalty = Penalty("tau_jp", value, 2.0, streams)
    got, theta, _, value = two_steps(theirs, ours, problem, penalty, form)
    assert got.history[1]["penalty/tau_jp"] == pytest.approx(value.item(), rel=1e-4)
    assert_same(got.tau, theirs, theta, ours, tmp_path / "end")


def descent(theirs, ours, problem, kept, **options):
    """Two steps of plain non-linear descent in both; ``kept`` of torch's parameters by name."""
    images, labels, head = problem
    got = train.fine_tune(
        ours.f,
        ours.params,
        {"inputs": images, "labels": labels},
        regime="nonlinear",
        readout=Partial(apply_head, head),
        config=TrainConfig(
            optim=OptimConfig("sgd", lr=0.1, schedule="constant", clip=None),
            steps=2,
            batch_size=N,
            tensorboard=False,
        ),
        **options,
    )
    kernel = torch.from_numpy(np.array(head.scale * head.kernel))
    theta = {n: torch.nn.Parameter(p.detach().clone()) for n, p in theirs.named_parameters()}
    for _ in range(2):
        call = torch.func.functional_call(theirs, theta, (pixels_of(ours, images),))
        z = call.image_embeds
        logits = z / z.norm(dim=-1, keepdim=True) @ kernel
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels).long())
        slopes = torch.autograd.grad(loss, list(theta.values()))
        for (name, p), slope in zip(theta.items(), slopes, strict=True):
            p.data -= 0.1 * kept[name] * slope
    return got, theta


@pytest.mark.slow
def test_two_steps_of_the_attention_s_matrices_alone_equal_torch(theirs, ours, problem, tmp_path):
    """W_q, W_k, W_v and W_o without their biases (Jin et al. 2025)."""
    own = re.compile(r"self_attn\.(q|k|v|out)_proj\.weight$")
    kept = {n: float(bool(own.search(n))) for n, _ in theirs.named_parameters()}
    assert sum(kept.values()) == 8
    trainable = tree.exactly(attention_only.leaves(ours.params))
    got, theta = descent(theirs, ours, problem, kept, trainable=trainable)
    assert_same(got.tau, theirs, theta, ours, tmp_path / "end")


@pytest.mark.slow
def test_two_steps_of_a_tenth_of_the_entries_equal_torch(theirs, ours, problem, tmp_path):
    """What TaLoS trains, once it has chosen."""
    rng = np.random.default_rng(2)
    kept = {
        n: torch.from_numpy((rng.random(p.shape) < 0.1).astype(np.float32))
        for n, p in theirs.named_parameters()
    }
    chosen = copy.deepcopy(theirs)
    chosen.load_state_dict(kept, strict=False)
    chosen.save_pretrained(tmp_path / "mask")
    mask = tree.flatten(models.load("clip", weights=tmp_path / "mask").params)
    mask = {name: np.asarray(leaf) == 1 for name, leaf in mask.items()}
    got, theta = descent(theirs, ours, problem, kept, mask=mask)
    assert_same(got.tau, theirs, theta, ours, tmp_path / "end")


@pytest.mark.slow
def test_two_steps_with_tak_equal_torch(theirs, ours, problem, tmp_path):
    """Factors by hooks of each linear layer, queries, keys and values apart; whole blocks else."""
    others = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    card = measure(ours.f, ours.params, others, seed=7, batch_size=2)
    kronecker = kronecker_form(theirs, pixels_of(ours, others), seed=7)
    penalty = Penalty("tak", tak.curvature, 100.0, [list(card.blocks)])
    got, theta, loss, value = two_steps(
        theirs, ours, problem, penalty, lambda base, tau: kronecker(tau)
    )
    assert 100.0 * value.item() > 0.1 * loss.item()
    assert got.history[1]["penalty/tak"] == pytest.approx(value.item(), rel=1e-4)
    assert_same(got.tau, theirs, theta, ours, tmp_path / "end")


def kronecker_form(model, pixels, seed):
    """Σ tr(B ΔW A ΔWᵀ) of linear layers with biases folded in, (Jᵀv)(Jᵀv)ᵀ of all other leaves."""
    met = {}
    hooks = [
        module.register_forward_hook(lambda m, x, y, name=name: met.update({name: (m, x[0], y)}))
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
    ]
    z = model(pixels).image_embeds
    for hook in hooks:
        hook.remove()
    N, C = z.shape
    keys = (jax.random.fold_in(jax.random.key(seed), n) for n in range(N))
    v = torch.tensor(np.stack([jax.random.normal(key, (1, C))[0] for key in keys]))
    along = (v * z / z.norm(dim=-1, keepdim=True)).sum(-1)
    slopes = torch.autograd.grad(along.sum(), [y for _, _, y in met.values()], retain_graph=True)
    factors = {}
    for (name, (module, x, _)), g in zip(met.items(), slopes, strict=True):
        if isinstance(module, torch.nn.Conv2d):
            x = torch.nn.functional.unfold(x, module.kernel_size, stride=module.stride).mT
            g = g.flatten(2).mT
        a = x.reshape(-1, x.shape[-1]).detach()
        if module.bias is not None:
            a = torch.cat([a, torch.ones(len(a), 1)], 1)
        g = g.reshape(-1, g.shape[-1])
        factors[name] = a.T @ a / len(a), g.T @ g / N
    named = dict(model.named_parameters())
    rest = [n for n in named if n.rpartition(".")[0] not in met]
    pulled = [
        torch.autograd.grad(one, [named[n] for n in rest], retain_graph=True) for one in along
    ]

    def form(tau):
        total = 0.0
        for name, (A, B) in factors.items():
            W = tau[f"{name}.weight"].flatten(1)
            if f"{name}.bias" in tau:
                W = torch.cat([W, tau[f"{name}.bias"][:, None]], 1)
            total = total + torch.trace(B @ W @ A @ W.T)
        for i, name in enumerate(rest):
            rows = slice(0, 1), slice(1, None)  # the class token's position is a leaf of its own
            for at in rows if "position" in name else [...]:
                moved = torch.stack([(j[i][at] * tau[name][at]).sum() for j in pulled])
                total = total + (moved**2).mean()
        return total

    return form


def pixels_of(ours, images):
    mean, std = (np.asarray(ours.architecture[k]) for k in ("mean", "std"))
    return torch.tensor(((images - mean) / std).transpose(0, 3, 1, 2), dtype=torch.float32)


def assert_same(got, theirs, theta, ours, place):
    """τ is that of torch's θ, which comes here as a checkpoint: no names are told."""
    end = copy.deepcopy(theirs)
    end.load_state_dict({n: p.detach() for n, p in theta.items()}, strict=False)
    end.save_pretrained(place)
    expected = tree.subtract(models.load("clip", weights=place).params, ours.params)
    assert got.delta.keys() <= expected.keys()
    found = {n: np.array(got.delta.get(n, np.zeros_like(x))) for n, x in expected.items()}
    for name, leaf in found.items():
        if name.endswith("qkv/bias"):
            keys = slice(leaf.size // 3, 2 * leaf.size // 3)
            leaf[keys] = np.asarray(expected[name])[keys]
    apart = tree.norm({n: x - np.asarray(expected[n]) for n, x in found.items()})
    assert apart < 1e-3 * tree.norm(expected)
