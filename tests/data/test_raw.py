"""What identifies records on disk."""

import pytest

from linearize.data import raw
from linearize.data.raw import folder_fingerprint


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LINEARIZE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "digits"
    folder.mkdir()
    (folder / "features.json").write_text("{}")
    (folder / "digits-train.array_record").write_bytes(bytes(200_000))
    return folder


def test_every_byte_of_every_file_counts(folder):
    seen = {folder_fingerprint(folder)}
    shard = folder / "digits-train.array_record"
    for at in (0, 100_000, 199_999):  # far behind what a file begins with
        changed = bytearray(200_000)
        changed[at] = 1
        shard.write_bytes(changed)
        seen.add(folder_fingerprint(folder))
    shard.rename(folder / "digits-test.array_record")
    seen.add(folder_fingerprint(folder))
    assert len(seen) == 5


def test_a_large_file_is_read_once(folder, monkeypatch):
    monkeypatch.setattr(raw, "_LARGE", 100_000)
    first = folder_fingerprint(folder)

    def read(path, original=raw.sha256):
        assert path.suffix == ".json", "read again"
        return original(path)

    monkeypatch.setattr(raw, "sha256", read)
    assert folder_fingerprint(folder) == first
