"""Files that are whole or absent."""

import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from linearize import io, tree

DTYPES = [
    *("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "complex64"),
    *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool"),
]


@pytest.fixture
def saved(tmp_path):
    params = {"a": {"b": np.arange(6, dtype=np.float32).reshape(2, 3)}, "n": np.int32(7)}
    return io.save_tree(tmp_path / "x.safetensors", params, {"kind": "test"}), params


class TestTree:
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_every_dtype_round_trips(self, tmp_path, dtype):
        values = np.array([[0, 1, 0], [1, 1, 0]]).astype(getattr(ml_dtypes, dtype, dtype))
        params = {"matrix": values, "row": values[0], "scalar": values[0, 1], "empty": values[:0]}
        loaded, _ = io.load_tree(io.save_tree(tmp_path / "x", params))
        assert set(loaded) == set(params)
        for name, leaf in params.items():
            assert loaded[name].dtype == leaf.dtype
            assert loaded[name].shape == leaf.shape
            np.testing.assert_array_equal(loaded[name], leaf)

    def test_bfloat16_of_jax_is_kept_bit_by_bit(self, tmp_path):
        leaf = jax.random.normal(jax.random.key(0), (64,), jnp.bfloat16)
        loaded, _ = io.load_tree(io.save_tree(tmp_path / "x", {"w": leaf}))
        np.testing.assert_array_equal(loaded["w"].view(np.uint16), np.asarray(leaf).view(np.uint16))

    def test_strided_leaves(self, tmp_path):
        leaf = np.arange(12, dtype=np.float32).reshape(3, 4).T[::2]
        loaded, _ = io.load_tree(io.save_tree(tmp_path / "x", {"w": leaf}))
        np.testing.assert_array_equal(loaded["w"], leaf)

    def test_other_readers_open_it(self, saved):
        path, params = saved
        read = safetensors.numpy.load_file(path)
        np.testing.assert_array_equal(read["a/b"], params["a"]["b"])

    def test_opens_what_others_wrote(self, tmp_path):
        path = tmp_path / "other.safetensors"
        safetensors.numpy.save_file({"w": np.ones(3)}, path, {"format": "pt"})
        loaded, notes = io.load_tree(path)
        np.testing.assert_array_equal(loaded["w"], np.ones(3))
        assert notes == {"format": "pt"}

    def test_metadata_comes_back(self, saved):
        assert io.load_tree(saved[0])[1] == {"kind": "test"}

    def test_every_flipped_bit_is_found(self, saved):
        path, params = saved
        whole = path.read_bytes()
        silent = []
        for i in range(len(whole)):
            for bit in range(8):
                flipped = bytearray(whole)
                flipped[i] ^= 1 << bit
                path.write_bytes(flipped)
                try:
                    loaded, notes = io.load_tree(path)
                except (io.CorruptFileError, tree.NonFiniteError):
                    continue
                same = notes == {"kind": "test"} and not tree.differences(
                    tree.flatten(params), loaded
                )
                if not (same and tree.fingerprint(loaded) == tree.fingerprint(params)):
                    silent.append((i, bit))
        assert silent == []

    def test_every_truncation_is_found(self, saved):
        path, _ = saved
        whole = path.read_bytes()
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            with pytest.raises(io.CorruptFileError, match=f"{length} bytes"):
                io.load_tree(path)

    def test_appended_bytes_are_found(self, saved):
        path, _ = saved
        path.write_bytes(path.read_bytes() + b"\0")
        with pytest.raises(io.CorruptFileError):
            io.load_tree(path)

    def test_absent_file(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            io.load_tree(tmp_path / "absent")

    @pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_non_finite_is_refused_both_ways(self, tmp_path, dtype, value):
        leaf = np.ones(5).astype(dtype)
        leaf[2] = value
        with pytest.raises(tree.NonFiniteError, match="w: 1 of 5"):
            io.save_tree(tmp_path / "x", {"w": leaf})
        assert list(tmp_path.iterdir()) == []
        safetensors.numpy.save_file({"w": leaf}, tmp_path / "x")
        with pytest.raises(tree.NonFiniteError, match="w: 1 of 5"):
            io.load_tree(tmp_path / "x")

    def test_keys_and_odd_dtypes_are_refused_by_name(self, tmp_path):
        with pytest.raises(TypeError, match="rng is a PRNG key"):
            io.save_tree(tmp_path / "x", {"rng": jax.random.key(0)})
        with pytest.raises(TypeError, match="w has dtype complex128"):
            io.save_tree(tmp_path / "x", {"w": np.ones(2, np.complex128)})
        with pytest.raises(ValueError, match="'__metadata__' has no place"):
            io.save_tree(tmp_path / "x", {"__metadata__": np.ones(2)})


class TestAtomic:
    def test_makes_its_directory_and_replaces(self, tmp_path):
        path = tmp_path / "new" / "deep" / "file.txt"
        io.atomic_write(path, "first")
        io.atomic_write(path, "zweiter – ü")
        assert path.read_text(encoding="utf-8") == "zweiter – ü"
        assert [p.name for p in path.parent.iterdir()] == ["file.txt"]

    def test_honours_the_umask(self, tmp_path):
        old = os.umask(0o027)
        try:
            path = io.atomic_write(tmp_path / "x", b"")
        finally:
            os.umask(old)
        assert path.stat().st_mode & 0o777 == 0o640

    def test_full_disk_keeps_the_old_file(self, tmp_path, saved):
        """The kernel refuses to write more than a limit, as a full disk does."""
        path, _ = saved
        before = path.read_bytes()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
            with pytest.raises(OSError, match=r"nothing was written.*x\.safetensors"):
                io.save_tree(path, {"w": np.ones(10_000)})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, handler)
        assert path.read_bytes() == before
        assert [p.name for p in path.parent.iterdir()] == [path.name]

    def test_no_space_left_on_device(self, monkeypatch, tmp_path):
        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left on device") as caught:
            io.atomic_write(tmp_path / "x", b"data")
        assert caught.value.errno == 28
        assert caught.value.filename == str(tmp_path / "x")
        assert list(tmp_path.iterdir()) == []

    def test_a_file_where_a_directory_should_be(self, tmp_path):
        (tmp_path / "file").write_text("here first")
        with pytest.raises(OSError, match="nothing was written"):
            io.atomic_write(tmp_path / "file" / "x", b"data")
        assert (tmp_path / "file").read_text() == "here first"

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_read_only_directory(self, tmp_path):
        tmp_path.chmod(0o500)
        with pytest.raises(PermissionError, match="nothing was written"):
            io.atomic_write(tmp_path / "x", b"data")

    def test_interruption_leaves_no_part(self, monkeypatch, tmp_path):
        def interrupt(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            io.atomic_write(tmp_path / "x", b"data")
        assert list(tmp_path.iterdir()) == []

    def test_sigkill_before_the_rename_keeps_the_old_file(self, tmp_path):
        path = io.atomic_write(tmp_path / "x", b"old")
        program = """
            import os, signal, sys
            from linearize import io
            os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
            io.atomic_write(sys.argv[1], b"new" * 1000)
        """
        root = Path(io.__file__).parents[1]
        killed = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program), str(path)], cwd=root, check=False
        )
        assert killed.returncode == -signal.SIGKILL
        assert path.read_bytes() == b"old"


class TestJson:
    def test_values_of_the_field(self, tmp_path):
        @dataclasses.dataclass
        class Config:
            rate: float
            path: Path

        value = {
            "config": Config(1e-5, Path("run")),
            "array": np.arange(4, dtype=np.int32).reshape(2, 2),
            "device": jnp.ones(2),
            "scalar": np.float32(0.5),
            "flag": np.bool_(True),
            "names": {"b", "a"},
            "nothing": None,
            3: (1, 2.5),
            "nan": [float("nan"), np.inf],
        }
        path = io.write_json(tmp_path / "results.json", value)
        assert json.loads(path.read_text()) == {
            "config": {"rate": 1e-5, "path": "run"},
            "array": [[0, 1], [2, 3]],
            "device": [1.0, 1.0],
            "scalar": 0.5,
            "flag": True,
            "names": ["a", "b"],
            "nothing": None,
            "3": [1, 2.5],
            "nan": [None, None],
        }

    def test_what_has_no_form_is_refused_and_nothing_lost(self, tmp_path):
        path = io.write_json(tmp_path / "x.json", {"old": 1})
        with pytest.raises(TypeError, match="of type object has no form in JSON"):
            io.write_json(path, {"new": object()})
        assert json.loads(path.read_text()) == {"old": 1}


def test_versions_name_what_the_numbers_depend_on():
    found = io.versions()
    assert found["jax"] == jax.__version__
    assert found["numpy"] == np.__version__
