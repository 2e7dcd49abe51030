"""Training batches from images on disk: order, crops, resuming, what a run remembers of them."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linearize import edit
from linearize.data import DataError, Loader, for_training
from linearize.data.raw import FolderRecords
from linearize.data.stored import StoredImages
from linearize.train import OptimConfig, RunMismatchError, TrainConfig, fine_tune, loop

N, SIDE = 22, 8


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Noise in files of several sizes; the class decides the brightness."""
    from PIL import Image

    root, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    labels = np.arange(N, dtype=np.int32) % 3
    for i in range(N):
        shape = generator.integers(40, 60, 2)
        pixels = generator.integers(0, 80, (*shape, 3)) + 80 * labels[i]
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"{i}.png")
    files = tuple(f"{i}.png" for i in range(N))
    return StoredImages(FolderRecords("noise/train", root, files, labels, "1"), np.arange(N), SIDE)


def loader(images, **options):
    return Loader(images, {"labels": np.arange(N, dtype=np.int32) % 3}, **options)


def take(loader, count, seed=0, first=0, batch_size=5):
    iterator = loader.batches(batch_size, seed, first)
    taken = list(itertools.islice(iterator, count))
    iterator.close()
    return taken


def assert_same(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


def test_each_epoch_holds_each_example_once(images):
    ids = Loader(images, {"labels": np.arange(N)}, augment=False)
    seen = np.concatenate([b["labels"] for b in take(ids, 14)])
    epochs = seen[: 3 * N].reshape(3, N)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(N), (3, 1)))
    assert len({tuple(epoch) for epoch in epochs}) == 3
    other = np.concatenate([b["labels"] for b in take(ids, 14, seed=1)])
    assert (other != seen).any()


def test_without_augmentation_batches_are_the_images(images):
    ids = Loader(images, {"labels": np.arange(N)}, augment=False)
    for batch in take(ids, 5):
        np.testing.assert_array_equal(batch["inputs"], images[batch["labels"]])


def test_batches_are_functions_of_seed_and_step(images):
    whole = take(loader(images, workers=3), 9)
    assert_same(take(loader(images, workers=1), 5, first=4), whole[4:])
    assert_same(take(loader(images, workers=3), 9), whole)
    plain = take(loader(images, augment=False), 9)
    for augmented, own in zip(whole, plain, strict=True):
        np.testing.assert_array_equal(augmented["labels"], own["labels"])
        assert (augmented["inputs"] != own["inputs"]).any()


def test_an_example_is_cropped_anew_in_each_epoch(images):
    one = StoredImages(images.parts[0], np.array([3]), SIDE)
    crops = [b["inputs"].tobytes() for b in take(Loader(one, {}), 6, batch_size=1)]
    assert len(set(crops)) > 3


class Problem(NamedTuple):
    f: object
    params0: dict


@pytest.fixture(scope="module")
def problem():
    generator = np.random.default_rng(1)

    def f(params, x):
        hidden = jnp.tanh((x / 255.0).reshape(len(x), -1) @ params["w"])
        return hidden @ params["v"]

    shapes = {"w": (SIDE * SIDE * 3, 6), "v": (6, 3)}
    return Problem(
        f, {n: generator.normal(0, 0.1, s).astype(np.float32) for n, s in shapes.items()}
    )


CONFIG = TrainConfig(
    optim=OptimConfig(lr=1e-2, warmup=1),
    steps=9,
    batch_size=5,
    checkpoint_every=3,
    log_every=1,
    tensorboard=False,
)


def run(problem, data, **options):
    return fine_tune(problem.f, problem.params0, data, regime="linear", config=CONFIG, **options)


class Stopped(BaseException):
    """Stands for a process that dies."""


def test_a_run_that_is_killed_goes_on_bitwise(images, problem, tmp_path, monkeypatch):
    whole = run(problem, loader(images), run_dir=tmp_path / "whole")
    advance = loop._Run._advance

    def dying(self, step):
        if step >= 7:
            raise Stopped
        return advance(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "_advance", dying)
        with pytest.raises(Stopped):
            run(problem, loader(images), run_dir=tmp_path / "cut")
    got = run(problem, loader(images, workers=2), run_dir=tmp_path / "cut")
    assert got.resumed_from == 6
    assert_same(dict(got.tau.delta), dict(whole.tau.delta))
    assert got.history[-1]["loss"] == whole.history[-1]["loss"]
    with pytest.raises(RunMismatchError, match="data: there '22 examples"):
        run(problem, loader(images, augment=False), run_dir=tmp_path / "cut")


def test_a_loader_trains_as_its_batches_do(images, problem):
    """Plain batches of evaluation pixels: the steps of the same batches, one by one."""
    tau = run(problem, loader(images, augment=False)).tau
    rows = np.concatenate(
        [b["labels"] for b in take(Loader(images, {"labels": np.arange(N)}, augment=False), 9)]
    )
    labels = np.arange(N, dtype=np.int32) % 3

    class Ordered:
        """The same examples, gathered from memory."""

        examples, columns, fingerprint = N, {"labels": labels}, "memory"
        spec = {"inputs": ((SIDE, SIDE, 3), np.dtype(np.uint8)), "labels": ((), labels.dtype)}

        def batches(self, batch_size, seed, first):
            for at in np.split(rows, 9)[first:]:
                yield {"inputs": images[at], "labels": labels[at]}

    assert_same(dict(run(problem, Ordered()).tau.delta), dict(tau.delta))


def test_joint_training_reads_from_disk_too(images, problem):
    labels = np.arange(N, dtype=np.int32) % 3
    examples = edit.joint_examples([(images, labels), (images, labels)])
    both = for_training(examples, augment=False)
    assert isinstance(both, Loader)
    assert both.examples == 2 * N
    heads = [lambda z: z, lambda z: -z]
    tau = run(problem, both, loss=edit.joint_loss(heads)).tau
    assert all(np.isfinite(d).all() for d in tau.delta.values())
    arrays = {"inputs": np.zeros((2, 3)), "labels": labels[:2]}
    assert for_training(arrays) is arrays


def test_wrong_entries_are_refused(images, problem):
    with pytest.raises(ValueError, match="has 4 rows for 22 images"):
        Loader(images, {"labels": np.zeros(4, np.int32)})
    with pytest.raises(ValueError, match="no entry 'labels'; it has 'inputs'"):
        run(problem, Loader(images, {}))
    with pytest.raises(ValueError, match=r"lie in 0\.\.3, but the logits have 3 classes"):
        run(problem, Loader(images, {"labels": np.arange(N) % 4}))
    none = StoredImages(images.parts[0], np.arange(0), SIDE)
    with pytest.raises(ValueError, match="no example"):
        run(problem, Loader(none, {"labels": np.zeros(0, np.int32)}))


def test_an_image_that_does_not_decode_stops_the_run_by_name(images, problem, tmp_path):
    raw = images.parts[0]
    for i in range(N):
        content = (raw.root / f"{i}.png").read_bytes()
        (tmp_path / f"{i}.png").write_bytes(content[:60] if i == 13 else content)
    broken = FolderRecords("noise/train", tmp_path, raw.files, raw.labels, "2")
    data = loader(StoredImages(broken, np.arange(N), SIDE))
    with pytest.raises(DataError, match=r"noise/train: example 13 '13\.png' does not decode"):
        run(problem, data)
