"""Ten AdamW steps of both regimes against torch."""

import numpy as np
import pytest

from linearize.train import OptimConfig, feed

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


def forward(params, x):
    hidden = torch.tanh(x @ params["first/kernel"] + params["first/bias"])
    return hidden @ params["second/kernel"]


@pytest.mark.slow(but=["tau-linear", "theta-nonlinear"])
@pytest.mark.parametrize("regime", ["nonlinear", "linear"])
@pytest.mark.parametrize("decay", ["tau", "theta"])
def test_ten_steps_match_torch(problem, regime, decay):
    """τ agrees to a relative 1e-4; torch decays what it optimises, so θ or τ is its parameter."""
    steps, batch = 10, 16
    optim = OptimConfig(lr=1e-2, weight_decay=0.1, decay=decay, warmup=3, clip=1.0)
    got = problem.run(regime, steps=steps, batch_size=batch, optim=optim, label_smoothing=0.1)

    theta0 = {
        "first/kernel": problem.params0["first"]["kernel"],
        "first/bias": problem.params0["first"]["bias"],
        "second/kernel": problem.params0["second"]["kernel"],
    }
    base = {n: torch.from_numpy(p.copy()) for n, p in theta0.items()}
    start = {n: torch.zeros_like(p) if decay == "tau" else p.clone() for n, p in base.items()}
    trained = {n: torch.nn.Parameter(p) for n, p in start.items()}
    adamw = torch.optim.AdamW(trained.values(), lr=1e-2, weight_decay=0.1, eps=1e-8)

    for step, index in enumerate(feed.rows(50, batch, seed=0, first=0, count=steps)):
        x = torch.from_numpy(problem.data["inputs"][index])
        y = torch.from_numpy(problem.data["labels"][index]).long()
        tau = {n: p if decay == "tau" else p - base[n] for n, p in trained.items()}
        if regime == "linear":
            f0, moved = torch.func.jvp(lambda p: forward(p, x), (base,), (tau,))  # noqa: B023
            logits = f0 + moved
        else:
            logits = forward({n: base[n] + tau[n] for n in base}, x)
        loss = torch.nn.functional.cross_entropy(logits, y, label_smoothing=0.1)
        adamw.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(trained.values()), 1.0)
        rate = (step + 1) / 3 if step < 3 else 0.5 * (1 + np.cos(np.pi * (step - 3) / 7))
        adamw.param_groups[0]["lr"] = 1e-2 * rate
        adamw.step()
        np.testing.assert_allclose(got.history[step]["loss"], loss.item(), rtol=1e-4)

    expected = {
        n: (p.detach() - (0 if decay == "tau" else base[n])).numpy() for n, p in trained.items()
    }
    apart = sum(((np.asarray(got.tau.delta[n]) - e) ** 2).sum() for n, e in expected.items())
    size = sum((e**2).sum() for e in expected.values())
    assert size > 0.01
    assert np.sqrt(apart / size) < 1e-4
