"""Cross-entropy against SciPy in float64, and where classes are masked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from linearize import train
from linearize.losses import cross_entropy

LOGITS = 9 * np.random.default_rng(0).normal(size=(6, 5))
LABELS = np.array([0, 4, 2, 2, 1, 3])


def expected(logits, smoothing=0.0):
    target = (1 - smoothing) * np.eye(5)[LABELS] + smoothing / 5
    return -(target * log_softmax(logits, axis=1)).sum(1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, jnp.float32(0.0), jnp.float32(0.1)])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_it_is_that_of_scipy_in_float32_or_wider(dtype, smoothing):
    with jax.enable_x64(dtype == "float64"):
        logits = jnp.asarray(LOGITS, dtype)
        found = cross_entropy(logits, LABELS, smoothing)
        wide = np.asarray(logits, np.float64)
        assert found.dtype == (jnp.float64 if dtype == "float64" else jnp.float32)
        close = 1e-8 if dtype == "float64" and isinstance(smoothing, float) else 1e-5
        np.testing.assert_allclose(found, expected(wide, float(smoothing)), rtol=close, atol=close)


def test_a_masked_class_has_no_share_in_the_sum():
    masked = np.concatenate([LOGITS, np.full((6, 2), -np.inf)], 1)
    found = cross_entropy(jnp.asarray(masked, jnp.float32), LABELS)
    np.testing.assert_allclose(found, expected(LOGITS), rtol=1e-5, atol=1e-5)
    assert np.isposinf(cross_entropy(jnp.asarray(masked, jnp.float32), LABELS, 0.1)).all()


def test_training_takes_it_from_there():
    assert train.cross_entropy is cross_entropy
