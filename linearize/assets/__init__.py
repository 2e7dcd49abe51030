"""Packaged weights and data: fetched with ordinary clients, verified, cached, read as files."""

from linearize.assets.asset import Asset as Asset
from linearize.assets.asset import AssetError as AssetError
from linearize.assets.asset import CacheError as CacheError
from linearize.assets.asset import ChecksumError as ChecksumError
from linearize.assets.asset import ClientMissingError as ClientMissingError
from linearize.assets.asset import RegistryError as RegistryError
from linearize.assets.asset import UnknownAssetError as UnknownAssetError
from linearize.assets.asset import UnsafePickleError as UnsafePickleError
from linearize.assets.cache import cache_dir as cache_dir
from linearize.assets.cache import fetch as fetch
from linearize.assets.cache import fetch_all as fetch_all
from linearize.assets.registry import REGISTRY as REGISTRY
