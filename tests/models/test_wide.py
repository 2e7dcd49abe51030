"""The wide network against NumPy, and what its weights are drawn from."""

import jax
import numpy as np
import pytest

from linearize.models.wide import WideMLP

X = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


def forward(params, x, weight_std, bias_std, ntk):
    x = x.astype(np.float64)
    for i, name in enumerate(("input", "hidden_1", "output")):
        layer = {k: np.asarray(v, np.float64) for k, v in params[name].items()}
        x = np.maximum(x, 0) if i else x
        scale = weight_std / x.shape[1] ** 0.5 if ntk else 1.0
        x = scale * x @ layer["kernel"]
        if bias_std is not None:
            x = x + (bias_std if ntk else 1.0) * layer["bias"]
    return x


@pytest.mark.parametrize("bias_std", [None, 0.3])
@pytest.mark.parametrize("parametrization", ["ntk", "standard"])
def test_equals_numpy_and_is_drawn_as_said(parametrization, bias_std):
    module = WideMLP(400, 2, 2, 1.3, bias_std, parametrization)
    params = module.init(jax.random.key(0), X)["params"]
    ntk = parametrization == "ntk"
    expected = forward(params, X, 1.3, bias_std, ntk)
    np.testing.assert_allclose(module.apply({"params": params}, X), expected, rtol=2e-5, atol=2e-5)
    for name, fan_in in (("input", 3), ("hidden_1", 400), ("output", 400)):
        kernel = np.asarray(params[name]["kernel"])
        wanted = 1.0 if ntk else 1.3 / fan_in**0.5
        assert abs(kernel.std() / wanted - 1) < 5 / (2 * kernel.size) ** 0.5
        assert ("bias" in params[name]) == (bias_std is not None)
    if bias_std is not None:
        bias = np.asarray(params["hidden_1"]["bias"])
        assert abs(bias.std() / (1.0 if ntk else 0.3) - 1) < 5 / 800**0.5


def test_without_hidden_layers_is_affine():
    module = WideMLP(7, depth=0, outputs=2)
    params = module.init(jax.random.key(0), X)["params"]
    assert {k: v["kernel"].shape for k, v in params.items()} == {"output": (3, 2)}


def test_an_unknown_parametrization_is_named():
    with pytest.raises(ValueError, match="parametrization='mup'"):
        WideMLP(7, parametrization="mup").init(jax.random.key(0), X)
