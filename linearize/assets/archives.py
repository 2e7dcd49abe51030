"""Reads one member of a wheel, zip, tar, npm package or Debian package, without unpacking it.

The member is copied as bytes: nothing is executed and no path of the archive touches the disk.
"""

import gzip
import io
import lzma
import shutil
import subprocess
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import IO

from linearize import files
from linearize.assets.asset import AssetError, ClientMissingError


def copy_member(archive: Path, member: str, destination: IO[bytes]) -> None:
    """Copies the bytes of ``member`` into ``destination``.

    Args:
        archive: a ``.whl``/``.zip``, a tar file of any compression, or a ``.deb``.
        member: path inside it; a leading ``./`` of the archive's own names is ignored.
        destination: a binary file open for writing.

    Raises:
        AssetError: not an archive of these kinds, damaged, or without such a member.
        OSError: the destination cannot be written.
        ClientMissingError: a zstd-compressed ``.deb`` and no ``dpkg-deb`` to read it.
    """
    try:
        files.check_regular(archive)
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as z, z.open(member) as source:
                shutil.copyfileobj(source, destination)
        else:
            with open_tar(archive) as tar:
                _copy_tar(tar, member, destination)
    except KeyError:
        raise AssetError(f"{archive.name} holds no file {member!r}") from None
    except (*_DAMAGE, OSError, files.CorruptFileError) as error:
        if files.disk_fault(error) is not None:
            raise
        raise AssetError(f"{archive.name} is not a whole archive: {error}") from error


def open_tar(archive: Path) -> tarfile.TarFile:
    """A tar file of any compression, or what a Debian package holds.

    Raises:
        tarfile.TarError, lzma.LZMAError, zlib.error, AssetError: it is damaged.
        ClientMissingError: a zstd-compressed ``.deb`` and no ``dpkg-deb`` to read it.
    """
    with archive.open("rb") as file:
        debian = file.read(len(_AR_MAGIC)) == _AR_MAGIC
    return tarfile.open(fileobj=_deb_data(archive)) if debian else tarfile.open(archive)


_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, EOFError, lzma.LZMAError, zlib.error)


def _copy_tar(tar: tarfile.TarFile, member: str, destination: IO[bytes]) -> None:
    for info in tar:
        if info.name.removeprefix("./") == member and info.isreg():
            source = tar.extractfile(info)
            assert source is not None
            shutil.copyfileobj(source, destination)
            return
    raise KeyError(member)


_AR_MAGIC = b"!<arch>\n"


def _deb_data(path: Path) -> IO[bytes]:
    """The uncompressed ``data.tar`` of a Debian package (an ``ar`` archive)."""
    content = path.read_bytes()
    offset = len(_AR_MAGIC)
    while offset + 60 <= len(content):
        header = content[offset : offset + 60]
        name = header[:16].decode("ascii", "replace").strip().rstrip("/")
        told = header[48:58].strip()
        size = int(told) if told.isdigit() else len(content)
        if size > len(content) - offset - 60:
            raise AssetError(f"{path.name} is not a whole Debian package: {name} is cut off")
        body = content[offset + 60 : offset + 60 + size]
        if name == "data.tar":
            return io.BytesIO(body)
        if name == "data.tar.gz":
            return io.BytesIO(gzip.decompress(body))
        if name == "data.tar.xz":
            return io.BytesIO(lzma.decompress(body))
        if name.startswith("data.tar."):
            return io.BytesIO(_dpkg_data(path, name))
        offset += 60 + size + size % 2
    raise AssetError(f"{path.name} is not a whole Debian package: it has no data.tar")


def _dpkg_data(path: Path, name: str) -> bytes:
    if shutil.which("dpkg-deb") is None:
        raise ClientMissingError(
            f"{path.name} holds {name}, which this Python cannot read; install dpkg "
            "(it brings dpkg-deb) and run again"
        )
    done = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(path)], capture_output=True)
    if done.returncode:
        raise AssetError(f"{path.name} is not a whole Debian package: {done.stderr.decode()}")
    return done.stdout
