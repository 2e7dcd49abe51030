"""Kernel files: whole, checked, of one model."""

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from linearize import io, tree
from linearize.ntk import archive
from linearize.ntk.regression import predict, regression
from linearize.task_vector import TaskVector

N, M, C = 5, 3, 2
PARAMS = {"w": jnp.arange(4.0)}


def contents(shape=(N, N, C, C), dtype=np.float32, rows=N):
    rng = np.random.default_rng(0)
    return {
        "kernel": rng.normal(size=shape).astype(dtype),
        "f0": rng.normal(size=(rows, C)).astype(np.float32),
        "labels": np.arange(rows) % C,
        "ids": [f"image-{i}" for i in range(rows)],
        "fingerprint": tree.fingerprint(PARAMS),
    }


@pytest.fixture
def path(tmp_path):
    return archive.save(tmp_path / "k.safetensors", **contents(), config={"implementation": "auto"})


@pytest.mark.parametrize("shape", [(N, N), (N, N, C), (N, N, C, C)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_round_trip(tmp_path, shape, dtype):
    given = contents(shape, dtype)
    found = archive.load(
        archive.save(tmp_path / "k", **given, config={"batch_size": 8, "seed": None}),
        fingerprint=tree.fingerprint(PARAMS),
    )
    for name in ("kernel", "f0", "labels"):
        np.testing.assert_array_equal(getattr(found, name), given[name])
        assert getattr(found, name).dtype == given[name].dtype
    assert found.ids.tolist() == found.train_ids.tolist() == given["ids"]
    assert found.config["batch_size"] == 8
    assert found.config["versions"]["jax"] == io.versions()["jax"]


def test_integer_ids_and_jax_arrays(tmp_path):
    given = contents((N, N)) | {"ids": np.arange(10, 10 + N), "kernel": jnp.eye(N)}
    found = archive.load(archive.save(tmp_path / "k", **given))
    np.testing.assert_array_equal(found.ids, np.arange(10, 10 + N))
    np.testing.assert_array_equal(found.kernel, np.eye(N))


def test_predicts_without_the_model(tmp_path):
    rng = np.random.default_rng(1)
    jacobian = rng.normal(size=(N + M, C, 30))
    kernel = np.einsum("ncp,mdp->nmcd", jacobian, jacobian[:N])
    f0 = rng.normal(size=(N + M, C))
    key = tree.fingerprint(PARAMS)
    y = np.eye(C)[np.arange(N) % C]
    train = archive.save(tmp_path / "train", kernel[:N], f0[:N], y, range(N), key)
    test = archive.save(
        tmp_path / "test", kernel[N:], f0[N:], [0] * M, range(N, N + M), key, train_ids=range(N)
    )
    a, b = archive.load(train), archive.load(test)
    found = predict(regression(a.kernel, a.f0, a.labels, ridge=0.1), b.kernel, b.f0)
    expected = predict(regression(kernel[:N], f0[:N], y, 0.1), kernel[N:], f0[N:])
    np.testing.assert_array_equal(found, expected)
    assert b.train_ids.tolist() == a.ids.tolist()
    assert b.ids.tolist() == [5, 6, 7]


def test_a_kernel_of_another_model(path):
    other = tree.fingerprint({"w": jnp.arange(4.0) + 1})
    with pytest.raises(ValueError, match="kernel of another model") as caught:
        archive.load(path, fingerprint=other)
    assert other[:16] in str(caught.value)
    assert tree.fingerprint(PARAMS)[:16] in str(caught.value)


def test_every_flipped_byte_and_every_truncation_is_found(path):
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for at in [*range(24), *rng.integers(0, len(whole), 60).tolist(), len(whole) - 1]:
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises((io.CorruptFileError, tree.NonFiniteError)):
            archive.load(path)
    for length in [0, 7, 100, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(io.CorruptFileError, match="truncated"):
            archive.load(path)
    path.write_bytes(whole)
    assert archive.load(path).ids[0] == "image-0"


def test_other_files(tmp_path):
    vector = TaskVector.between(PARAMS, {"w": jnp.ones(4)}).save(tmp_path / "tau")
    with pytest.raises(io.CorruptFileError, match=r"kind 'linearize\.task_vector'"):
        archive.load(vector)
    (tmp_path / "pickle").write_bytes(b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00N.")
    with pytest.raises(io.CorruptFileError):
        archive.load(tmp_path / "pickle")
    with pytest.raises(FileNotFoundError):
        archive.load(tmp_path / "absent")


def test_a_file_that_is_there_stays(path):
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        archive.save(path, **contents((N, N)))
    with pytest.raises(tree.NonFiniteError):
        archive.save(path, **contents((N, N)) | {"kernel": np.full((N, N), np.nan)}, overwrite=True)
    with pytest.raises(TypeError, match="no form in JSON"):
        archive.save(path, **contents((N, N)), config={"f": archive.save}, overwrite=True)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    archive.save(path, **contents((N, N)), overwrite=True)
    assert archive.load(path).kernel.shape == (N, N)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel": np.eye(N)[0]}, r"kernel has shape \(5,\)"),
        ({"f0": np.zeros((N, C + 1))}, r"f0 has shape \(5, 3\); expected \(5, 2\)"),
        ({"f0": np.zeros((N - 1, C))}, r"f0 has shape \(4, 2\)"),
        ({"labels": np.zeros(N - 1)}, r"labels has shape \(4,\)"),
        ({"ids": ["a"] * N}, "ids repeats 1: 'a'"),
        ({"ids": range(N - 1)}, r"ids has shape \(4,\)"),
        ({"ids": [0.5] * N}, "dtype float64"),
        ({"fingerprint": ""}, "fingerprint is empty"),
        ({"kernel": np.zeros((N, M, C, C))}, "train_ids is None"),
        (
            {"kernel": np.zeros((N, M)), "train_ids": ["x", "image-2", "y"]},
            "overlap in 1: 'image-2'",
        ),
        ({"kernel": np.zeros((N, M)), "train_ids": ["x"]}, r"train_ids has shape \(1,\)"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        archive.save(tmp_path / "k", **contents() | change)
    assert not list(tmp_path.iterdir())
