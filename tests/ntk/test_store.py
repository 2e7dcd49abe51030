"""Kernels on disk: what is unfinished, missing, truncated or changed is never read as numbers."""

import json
import shutil
from contextlib import closing

import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore as ts

from linearize import ntk
from linearize.io import CorruptFileError
from linearize.ntk import store
from linearize.ntk.store import Disk, UnfinishedKernelError

SHAPE, ROWS = (5, 5, 2, 2), 2
STARTS = [(i, j) for i in (0, 2, 4) for j in (0, 2, 4)]


def blocks():
    whole = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    return whole, {(i, j): whole[i : i + ROWS, j : j + ROWS] for i, j in STARTS}


def disk(path):
    """A store that holds no lock: tests open several of one folder."""
    found = Disk(path, SHAPE, np.dtype(np.float32), ROWS, {"output": "full"})
    found.close()
    return found


def write(path, starts=STARTS):
    with closing(Disk(path, SHAPE, np.dtype(np.float32), ROWS, {"output": "full"})) as whole:
        for start in starts:
            whole.put(start, blocks()[1][start])
    return path


def chunk(path, start):
    return path.joinpath("array.zarr", "c", str(start[0] // ROWS), str(start[1] // ROWS), "0", "0")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return write(tmp_path_factory.mktemp("kernel") / "k")


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "k")


def test_a_finished_kernel_is_read_bit_for_bit(finished):
    np.testing.assert_array_equal(ntk.open_kernel(finished), blocks()[0])
    np.testing.assert_array_equal(ntk.open_kernel(finished)[1:3, 4], blocks()[0][1:3, 4])


def test_an_unfinished_kernel_is_refused_or_has_nan(tmp_path):
    path = write(tmp_path / "k", STARTS[:4])
    with pytest.raises(UnfinishedKernelError, match=r"lacks 5 of 9 blocks, the first at \(2, 2\)"):
        ntk.open_kernel(path)
    found = np.asarray(ntk.open_kernel(path, unfinished=True))
    np.testing.assert_array_equal(found[:2], blocks()[0][:2])
    assert np.isnan(found[2:, 2:]).all()


def test_one_process_at_a_time_writes_whichever_kernel_it_is(tmp_path):
    first = Disk(tmp_path / "k", SHAPE, np.dtype(np.float32), ROWS, {"output": "full"})
    for output in ("full", "trace"):
        with pytest.raises(BlockingIOError, match="another process writes a kernel there"):
            Disk(tmp_path / "k", SHAPE, np.dtype(np.float32), ROWS, {"output": output})
    first.close()
    with pytest.raises(FileExistsError, match="differs in output"):
        Disk(tmp_path / "k", SHAPE, np.dtype(np.float32), ROWS, {"output": "trace"})
    disk(tmp_path / "k")  # the refused one let go


@pytest.mark.parametrize("start", STARTS)
def test_a_missing_block_is_named_and_computed_again(copy, start):
    chunk(copy, start).unlink()
    with pytest.raises(CorruptFileError, match=rf"block \({start[0]}, {start[1]}\).* is missing"):
        ntk.open_kernel(copy)
    again = disk(copy)
    assert [s for s in STARTS if not again.holds(s)] == [start]
    again.put(start, blocks()[1][start])
    np.testing.assert_array_equal(ntk.open_kernel(copy), blocks()[0])


@pytest.mark.parametrize("keep", [0, 1, 63, 67])
def test_a_truncated_block_is_named(copy, keep):
    file = chunk(copy, (2, 4))
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CorruptFileError, match=r"block \(2, 4\) of the kernel is truncated"):
        ntk.open_kernel(copy)
    assert not disk(copy).holds((2, 4))


def test_a_flipped_bit_of_a_block_is_named_when_it_is_read(copy):
    file = chunk(copy, (2, 0))
    whole = file.read_bytes()
    for bit in range(0, 8 * len(whole), 7):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        again = disk(copy)
        assert not again.holds((2, 0))
        assert again.holds((0, 2))
        if bit // 8 >= len(whole) - 4:  # the checksum, which was noted
            with pytest.raises(CorruptFileError, match=r"block \(2, 0\) of the kernel is another"):
                ntk.open_kernel(copy)
            continue
        kernel = ntk.open_kernel(copy)
        with pytest.raises(ValueError, match=r"c/1/0/0/0"):
            np.asarray(kernel)
        with pytest.raises(ValueError, match=r"c/1/0/0/0"):
            kernel[2].read().result()
        np.testing.assert_array_equal(kernel[:2], blocks()[0][:2])


@pytest.mark.parametrize("source", [(2, 0), (2, 2), "another kernel's"])
def test_a_whole_block_in_another_s_place_is_named_and_computed_again(copy, source, tmp_path):
    if isinstance(source, str):
        disk(tmp_path / "other").put((0, 2), 2 * blocks()[1][0, 2])
        shutil.copy(chunk(tmp_path / "other", (0, 2)), chunk(copy, (0, 2)))
    else:
        shutil.copy(chunk(copy, source), chunk(copy, (0, 2)))
    with pytest.raises(CorruptFileError, match=r"block \(0, 2\) of the kernel is another block"):
        ntk.open_kernel(copy)
    again = disk(copy)
    assert [s for s in STARTS if not again.holds(s)] == [(0, 2)]
    again.put((0, 2), blocks()[1][0, 2])
    np.testing.assert_array_equal(ntk.open_kernel(copy), blocks()[0])


@pytest.mark.parametrize("name", ["kernel.json", "array.zarr/zarr.json"])
def test_a_flipped_bit_of_a_description_never_gives_other_numbers(copy, name):
    file, refused = copy / name, []
    whole = file.read_bytes()
    for bit in range(0, 8 * len(whole), 61):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        try:
            found = np.asarray(ntk.open_kernel(copy))
        except ValueError as error:
            refused.append(str(error))
        else:  # white space, or a note that no reader heeds
            np.testing.assert_array_equal(found, blocks()[0])
    assert len(refused) > 10
    assert all(str(copy) in message for message in refused)


def test_a_damaged_list_of_blocks_is_named(copy):
    file = copy / "blocks.txt"
    whole = file.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"blocks\.txt|lacks|is another block"):
            ntk.open_kernel(copy)
    file.write_bytes(whole[:-3])  # a kill in the middle of a line
    with pytest.raises(UnfinishedKernelError, match="lacks 1 of 9"):
        ntk.open_kernel(copy)
    file.unlink()
    with pytest.raises(UnfinishedKernelError, match="lacks 9 of 9"):
        ntk.open_kernel(copy)


def test_stores_that_noted_no_checksums_are_read(copy):
    held = json.loads((copy / "kernel.json").read_text()) | {"format": 2}
    held["sha256"] = store._hash(held)
    (copy / "kernel.json").write_text(json.dumps(held))
    (copy / "blocks.txt").write_text("".join(f"{i} {j}.\n" for i, j in STARTS))
    np.testing.assert_array_equal(ntk.open_kernel(copy), blocks()[0])
    assert all(disk(copy).holds(start) for start in STARTS)


def as_version_0_1(path, starts):
    """A store as it was written before there were checksums."""
    path.mkdir()
    described = {"output": "full", "shape": list(SHAPE), "dtype": "float32", "rows": ROWS}
    (path / "kernel.json").write_text(json.dumps(described))
    array = ts.open(
        {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path / 'array.zarr'}/"}},
        create=True,
        dtype=ts.float32,
        shape=SHAPE,
        chunk_layout=ts.ChunkLayout(chunk_shape=[ROWS, ROWS, 2, 2]),
    ).result()
    for i, j in starts:
        array[i : min(i + ROWS, 5), j : min(j + ROWS, 5)].write(blocks()[1][i, j]).result()
    (path / "blocks.txt").write_text("".join(f"{i} {j}.\n" for i, j in starts))
    return path


def test_stores_of_version_0_1(tmp_path):
    old = as_version_0_1(tmp_path / "old", STARTS)
    np.testing.assert_array_equal(ntk.open_kernel(old), blocks()[0])
    assert all(disk(old).holds(start) for start in STARTS)
    chunk(old, (0, 4)).unlink()
    with pytest.raises(CorruptFileError, match=r"block \(0, 4\) of the kernel is missing"):
        ntk.open_kernel(old)
    half = as_version_0_1(tmp_path / "half", STARTS[:3])
    for unfinished in (False, True):  # zeros stand for its blocks
        with pytest.raises(UnfinishedKernelError, match="lacks 6 of 9"):
            ntk.open_kernel(half, unfinished=unfinished)
    again = disk(half)
    for start in STARTS:
        if not again.holds(start):
            again.put(start, blocks()[1][start])
    np.testing.assert_array_equal(again.result(), blocks()[0])


def test_a_kernel_is_mended_by_computing_it_again(tmp_path, caplog):
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)

    def kernel(out=None):
        return ntk.kernel(
            lambda params, x: jnp.sin(x @ params["w"]),
            {"w": jnp.ones((3, 2))},
            x,
            batch_size=2,
            out=out,
        )

    expected = kernel()
    kernel(tmp_path / "k")
    for start in ((0, 2), (2, 0)):  # either of a mirrored pair
        file = chunk(tmp_path / "k", start)
        damaged = bytearray(file.read_bytes())
        damaged[5] ^= 16
        file.write_bytes(damaged)
        np.testing.assert_array_equal(kernel(tmp_path / "k"), expected)
        assert f"block {start}" in caplog.text


def test_a_part_of_the_blocks_is_computed_and_the_next_call_goes_on(tmp_path):
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)

    def kernel(**how):
        return ntk.kernel(
            lambda params, x: jnp.sin(x @ params["w"]),
            {"w": jnp.ones((3, 2))},
            x,
            batch_size=2,
            output="trace",
            **how,
        )

    whole = kernel()
    with pytest.raises(ValueError, match="max_pairs=2 without out"):
        kernel(max_pairs=2)
    with pytest.raises(ValueError, match="max_pairs=-1"):
        kernel(max_pairs=-1, out=tmp_path)
    for noted in (0, 3, 6, 9, 9):  # of pairs (0, 0), (0, 2); (0, 4), (2, 2); (2, 4), (4, 4)
        found = np.asarray(kernel(max_pairs=2 if noted else 0, out=tmp_path))
        assert ntk.count_blocks(tmp_path) == (noted, 9)
        there = ~np.isnan(found)
        np.testing.assert_array_equal(found[there], whole[there])
        assert there.sum() == {0: 0, 3: 12, 6: 20, 9: 25}[noted]
    with pytest.raises(FileNotFoundError, match="holds no kernel"):
        ntk.count_blocks(tmp_path / "other")


def test_a_block_of_another_process_counts_once_it_is_noted(tmp_path):
    with closing(Disk(tmp_path / "k", SHAPE, np.dtype(np.float32), ROWS, {"output": "full"})) as k:
        other = store.Elsewhere(tmp_path / "k")
        assert other.kind == k.kind
        first, *rest = STARTS
        written = {start: other.write(start, blocks()[1][start]) for start in STARTS}
        assert not k.holds(first)
        assert ntk.count_blocks(tmp_path / "k") == (0, 9)
        chunk(tmp_path / "k", first).unlink()  # as where the folder is another one there
        with pytest.raises(
            FileNotFoundError, match=r"block \(0, 0\) was written, but .* is missing"
        ):
            k.note(written)
        assert ntk.count_blocks(tmp_path / "k") == (0, 9)
        k.note({start: written[start] for start in rest})
        assert [start for start in STARTS if k.holds(start)] == rest
        k.put(first, blocks()[1][first])
        np.testing.assert_array_equal(other.result(), blocks()[0])
    with pytest.raises(FileNotFoundError, match="all processes see"):
        store.Elsewhere(tmp_path / "not there")


def test_a_description_of_former_names_is_read(tmp_path):
    params, x = {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}, np.ones((3, 2), np.float32)

    def f(params, x):
        return x @ params["w"] + params["b"][None]

    def kernel(trainable):
        return np.asarray(ntk.kernel(f, params, x, trainable=trainable, out=tmp_path))

    first = kernel("w")
    described = json.loads((tmp_path / "kernel.json").read_text())
    described["params_filter"] = described.pop("trainable")
    described["sha256"] = store._hash(described)
    (tmp_path / "kernel.json").write_text(json.dumps(described))
    np.testing.assert_array_equal(kernel("w"), first)
    with pytest.raises(FileExistsError, match="differs in f, trainable"):
        kernel("b")


def test_another_model_of_the_same_parameters_is_another_kernel(tmp_path, caplog):
    x, params = np.ones((3, 2), np.float32), {"w": jnp.ones((2, 2))}

    def kernel(f, out):
        return np.asarray(ntk.kernel(f, params, x, out=out))

    def sine(params, x):
        return jnp.sin(x @ params["w"])

    first = kernel(sine, tmp_path / "k")
    again = kernel(lambda p, inputs: jnp.sin(inputs @ p["w"]), tmp_path / "k")
    np.testing.assert_array_equal(first, again)
    with pytest.raises(FileExistsError, match="differs in f"):
        kernel(lambda params, x: jnp.cos(x @ params["w"]), tmp_path / "k")
    described = tmp_path / "k" / "kernel.json"
    old = json.loads(described.read_text())
    described.write_text(json.dumps({k: old[k] for k in old if k not in ("f", "format", "sha256")}))
    shutil.rmtree(tmp_path / "k" / "array.zarr")
    (tmp_path / "k" / "blocks.txt").unlink()
    np.testing.assert_array_equal(kernel(sine, tmp_path / "k"), first)
    assert "did not note f" in caplog.text
