"""Prototype heads and linear probes against their definitions and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linearize.models import heads

CLASSES, WIDTH = 4, 6


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, 200).astype(np.int32)
    means = rng.normal(size=(CLASSES, WIDTH))
    features = 5 + means[labels] + 0.7 * rng.normal(size=(200, WIDTH))
    return features.astype(np.float32), labels


def unit(z):
    return z / np.linalg.norm(z, axis=-1, keepdims=True)


@pytest.mark.parametrize("center", [True, False])
def test_prototype_logits_follow_their_definition(data, center):
    features, labels = data
    head = heads.prototype_head(
        features, labels, CLASSES, shots=7, temperature=20.0, seed=3, center=center
    )
    picked = heads.few_shot(labels, CLASSES, shots=7, seed=3)
    z, y = features[picked].astype(float), labels[picked]
    middle = z.mean(0) if center else np.zeros(WIDTH)  # seven of each class: means agree
    prototypes = unit(np.stack([unit(z[y == c] - middle).mean(0) for c in range(CLASSES)]))
    expected = 20 * unit(features - middle) @ prototypes.T
    np.testing.assert_allclose(heads.apply_head(head, features), expected, atol=2e-4)
    direct = (features - np.asarray(head.center)) @ np.asarray(head.kernel)
    np.testing.assert_array_equal(direct.argmax(1), expected.argmax(1))


def test_a_head_without_normalisation_is_affine_and_predicts_the_same(data):
    features, labels = data
    options = {"shots": 7, "temperature": 20.0, "seed": 3}
    plain = heads.prototype_head(features, labels, CLASSES, normalize=False, **options)
    usual = heads.prototype_head(features, labels, CLASSES, **options)
    np.testing.assert_array_equal(plain.kernel, usual.kernel)
    np.testing.assert_array_equal(plain.center, usual.center)
    logits, cosines = (np.asarray(heads.apply_head(h, features)) for h in (plain, usual))
    np.testing.assert_array_equal(logits.argmax(1), cosines.argmax(1))
    z = features - np.asarray(plain.center)
    picked = heads.few_shot(labels, CLASSES, shots=7, seed=3)
    typical = np.linalg.norm(z[picked].astype(float), axis=1).mean()
    np.testing.assert_allclose(logits, 20 / typical * z @ np.asarray(plain.kernel), atol=2e-4)
    a, b = features[:5], features[5:10]
    middle = heads.apply_head(plain, (a + b) / 2)
    halves = (heads.apply_head(plain, a) + heads.apply_head(plain, b)) / 2
    np.testing.assert_allclose(middle, halves, atol=1e-4)


def test_few_shot_draw_is_balanced_deterministic_and_seeded(data):
    _, labels = data
    draw = heads.few_shot(labels, CLASSES, shots=5, seed=1)
    np.testing.assert_array_equal(labels[draw], np.repeat(np.arange(CLASSES), 5))
    assert len(set(draw.tolist())) == len(draw)
    np.testing.assert_array_equal(draw, heads.few_shot(labels, CLASSES, shots=5, seed=1))
    assert set(draw.tolist()) != set(heads.few_shot(labels, CLASSES, shots=5, seed=2).tolist())


def test_features_of_the_drawn_examples_suffice(data):
    features, labels = data
    whole = heads.prototype_head(features, labels, CLASSES, shots=5, seed=1)
    picked = heads.few_shot(labels, CLASSES, shots=5, seed=1)
    part = heads.prototype_head(features[picked], labels[picked], CLASSES, shots=None)
    np.testing.assert_allclose(whole.kernel, part.kernel, atol=1e-6)
    np.testing.assert_allclose(whole.center, part.center, atol=1e-6)


def test_head_is_a_pytree_with_finite_derivatives_at_its_center(data):
    features, labels = data
    head = heads.prototype_head(features, labels, CLASSES)
    assert len(jax.tree.leaves(head)) == 3
    jitted = jax.jit(heads.apply_head)(head, features)
    np.testing.assert_allclose(jitted, heads.apply_head(head, features), atol=1e-4)
    gradient = jax.grad(lambda z: heads.apply_head(head, z).sum())(head.center[None])
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("l2", [1e-1, 1e-3])
def test_linear_probe_equals_scikit_learn(data, l2, standardize):
    from sklearn.linear_model import LogisticRegression

    features, labels = data
    exact = features.astype(float)
    scale = exact.std(0) if standardize else np.ones(WIDTH)
    z = (exact - exact.mean(0)) / scale
    oracle = LogisticRegression(C=1 / (l2 * len(z)), tol=1e-10, max_iter=2000).fit(z, labels)
    expected = oracle.predict_log_proba(z)
    head = heads.linear_probe(
        features, labels, CLASSES, l2=l2, standardize=standardize, tolerance=1e-7
    )
    got = jax.nn.log_softmax(heads.apply_head(head, features))
    np.testing.assert_allclose(got, expected, atol=5e-4, rtol=1e-4)
    np.testing.assert_allclose(
        np.asarray(head.kernel) * scale[:, None],
        oracle.coef_.T - oracle.coef_.T.mean(1, keepdims=True),
        atol=5e-4,
    )


def test_linear_probe_on_normalised_features_and_constant_columns(data):
    features, labels = data
    wide = np.concatenate([features, np.full((len(features), 1), 3.0, np.float32)], axis=1)
    for normalize_features in (False, True):
        head = heads.linear_probe(
            wide, labels, CLASSES, l2=1e-4, normalize_features=normalize_features
        )
        assert head.normalize is normalize_features
        logits = np.asarray(heads.apply_head(head, wide))
        assert np.isfinite(logits).all()
        assert (logits.argmax(1) == labels).mean() > 0.8


def with_label(labels, value):
    return np.concatenate([labels[1:], np.asarray([value], labels.dtype)])


@pytest.mark.parametrize("fit", [heads.prototype_head, heads.linear_probe])
def test_bad_input_is_named(data, fit):
    features, labels = data
    with pytest.raises(ValueError, match="labels go from -1"):
        fit(features, with_label(labels, -1), CLASSES)
    with pytest.raises(ValueError, match=f"expected 0 to {CLASSES - 1}"):
        fit(features, with_label(labels, CLASSES), CLASSES)
    with pytest.raises(ValueError, match=r"class 4 has"):
        fit(features, labels, CLASSES + 1)
    with pytest.raises(ValueError, match="at least 2 classes"):
        fit(features, np.zeros_like(labels), 1)
    with pytest.raises(ValueError, match="integers"):
        fit(features, labels.astype(np.float32), CLASSES)
    with pytest.raises(ValueError, match=r"199 labels"):
        fit(features, labels[1:], CLASSES)
    broken = features.copy()
    broken[7, 2] = np.nan
    with pytest.raises(ValueError, match=r"1 row\(s\), first 7"):
        fit(broken, labels, CLASSES)


def test_too_few_shots_names_each_class(data):
    features, labels = data
    rare = labels.copy()
    rare[np.flatnonzero(labels == 2)[3:]] = 0
    with pytest.raises(ValueError, match=r"shots=4 .* class 2 has 3; lower shots"):
        heads.prototype_head(features, rare, CLASSES, shots=4)
    with pytest.raises(ValueError, match="shots=0"):
        heads.prototype_head(features, labels, CLASSES, shots=0)


def test_other_arguments_are_checked(data):
    features, labels = data
    with pytest.raises(ValueError, match="temperature=0"):
        heads.prototype_head(features, labels, CLASSES, temperature=0)
    with pytest.raises(ValueError, match="center has shape"):
        heads.prototype_head(features, labels, CLASSES, center=np.zeros(3))
    with pytest.raises(ValueError, match=r"prototype of class 0 is zero"):
        heads.prototype_head(np.ones_like(features), labels, CLASSES)
    with pytest.raises(ValueError, match="l2=-1"):
        heads.linear_probe(features, labels, CLASSES, l2=-1)
    head = heads.prototype_head(features, labels, CLASSES)
    with pytest.raises(ValueError, match=r"expects \(B, 6\)"):
        heads.apply_head(head, jnp.zeros((2, 5)))


@pytest.mark.parametrize("fit", [heads.prototype_head, heads.linear_probe])
def test_padding_adds_classes_without_probability(data, fit):
    features, labels = data
    head = fit(features, labels, CLASSES)
    padded = heads.pad_head(head, CLASSES + 3)

    def loss(z, head):
        logits = heads.apply_head(head, z)
        return -jax.nn.log_softmax(logits)[jnp.arange(len(z)), labels].mean()

    (plain, grad), (wide, wide_grad) = (
        jax.value_and_grad(loss)(jnp.asarray(features), h) for h in (head, padded)
    )
    np.testing.assert_allclose(wide, plain, rtol=1e-6)
    np.testing.assert_allclose(wide_grad, grad, rtol=1e-5, atol=1e-8)
    logits = heads.apply_head(padded, features)
    np.testing.assert_array_equal(logits[:, :CLASSES], heads.apply_head(head, features))
    np.testing.assert_array_equal(jax.nn.softmax(logits)[:, CLASSES:], 0)


def test_a_head_is_not_padded_to_fewer_classes(data):
    with pytest.raises(ValueError, match="n_classes=3"):
        heads.pad_head(heads.prototype_head(*data, CLASSES), CLASSES - 1)
