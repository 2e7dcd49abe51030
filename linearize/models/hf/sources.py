"""Where weights lie: a folder, one file, shards with an index, or a repository on the Hub."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from linearize.models import torch_modules
from linearize.models.backbone import WeightsError

WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
)
"""Names of weights in a folder or repository, in the order of preference."""
NOTES = ("config.json", "preprocessor_config.json", "open_clip_config.json")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Source:
    """Tensors that are read when asked for, and the JSON files that lie beside them.

    Attributes:
        path: the file of weights, or of its index.
        tensors: how to read each tensor, by name.
        notes: parsed files of :data:`NOTES`, by name; those that there are.
    """

    path: Path
    tensors: Mapping[str, Callable[[], np.ndarray]]
    notes: Mapping[str, Any]

    @classmethod
    def of(
        cls, path: Path, arrays: Mapping[str, np.ndarray], notes: Mapping[str, Any] | None = None
    ) -> "Source":
        """Tensors that are in memory already."""
        return cls(path, {name: partial(np.asarray, x) for name, x in arrays.items()}, notes or {})

    def __str__(self) -> str:
        """The path."""
        return str(self.path)


def read(where: str | Path | Source) -> Source:
    """Open weights; no tensor of a safetensors file is read yet.

    Args:
        where: a folder that ``save_pretrained`` wrote; a ``.safetensors`` file, or the
            ``.safetensors.index.json`` of several; a ``.pt``, ``.pth`` or ``.bin`` of torch, a
            state dict or a whole module, TorchScript included, of which tensors alone are taken
            and nothing is run; or a repository on the Hub, ``"openai/clip-vit-base-patch32"``. What
            is open already is returned.

    Raises:
        FileNotFoundError: neither a file nor a folder, nor the form of a repository's name; or a
            folder without weights.
        WeightsError: a file is truncated or of another kind; or the Hub cannot be reached: the
            message says how to point to a folder.
        TorchArchiveError: a torch file is damaged, or names what no checkpoint needs.
    """
    if isinstance(where, Source):
        return where
    path = Path(where).expanduser()
    if path.is_dir():
        found = next((path / name for name in WEIGHTS if (path / name).is_file()), None)
        if found is None:
            raise FileNotFoundError(
                f"{path} holds none of {', '.join(WEIGHTS)}; point to the folder or the file that "
                "holds the weights"
            )
        return _open(found)
    if path.is_file():
        return _open(path)
    if not _HUB_ID.fullmatch(str(where)):
        raise FileNotFoundError(
            f"weights={str(where)!r} is no file and no folder here, nor a repository's name on "
            "the Hub (owner/name)"
        )
    return _open(_download(str(where)))


def _open(path: Path) -> Source:
    notes = {name: _json(path.parent / name) for name in NOTES if (path.parent / name).is_file()}
    if path.name.endswith(".index.json"):
        shards = _json(path).get("weight_map", {})
        absent = sorted({s for s in shards.values() if not (path.parent / s).is_file()})
        if absent or not shards:
            raise WeightsError(
                f"{path} names {', '.join(absent) or 'no file'}, which {path.parent} does not "
                "hold; fetch all shards"
            )
        tensors: dict[str, Callable[[], np.ndarray]] = {}
        for shard in sorted(set(shards.values())):
            tensors |= _safetensors(path.parent / shard)
        lost = sorted(set(shards) - set(tensors))
        if lost:
            raise WeightsError(f"{path} names tensors that no shard holds: {', '.join(lost)}")
        return Source(path, tensors, notes)
    if path.suffix in (".pt", ".pth", ".bin", ".ckpt") or torch_modules.is_torch(path):
        return Source.of(path, torch_modules.read(path), notes if path.name in WEIGHTS else {})
    return Source(path, _safetensors(path), notes)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path} is no readable JSON ({error}); fetch it again") from error


def _safetensors(path: Path) -> dict[str, Callable[[], np.ndarray]]:
    with _readable(path), safetensors.safe_open(path, framework="numpy") as file:
        names = list(file.keys())

    def tensor(name: str) -> np.ndarray:
        with _readable(path), safetensors.safe_open(path, framework="numpy") as file:
            return file.get_tensor(name)

    return {name: partial(tensor, name) for name in names}


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (safetensors.SafetensorError, ValueError) as error:
        raise WeightsError(
            f"{path} ({path.stat().st_size} bytes) is truncated or is no safetensors file: "
            f"{error}; delete it and fetch it again"
        ) from error


def is_hub(where: str | Path) -> bool:
    """Whether that is a repository's name on the Hub, and neither a file nor a folder here."""
    return not Path(where).expanduser().exists() and bool(_HUB_ID.fullmatch(str(where)))


def held(where: str | Path) -> list[Path]:
    """The files of weights that lie here, shards in place of their index; nothing is fetched.

    Args:
        where: as for :func:`read`; a repository is looked up in the Hub's own cache.

    Returns:
        No path where a file is missing.

    Raises:
        WeightsError: the index of shards is no JSON.
    """
    path = Path(where).expanduser()
    folder = path if path.is_dir() else path.parent
    hub = is_hub(where)

    def find(name: str) -> Path | None:
        if hub:
            return _in_cache(str(where), name)
        return folder / name if (folder / name).is_file() else None

    names = [path.name] if path.is_file() else WEIGHTS if hub or path.is_dir() else []
    found = next((file for name in names if (file := find(name)) is not None), None)
    if found is None or not found.name.endswith(".index.json"):
        return [] if found is None else [found]
    shards = [find(name) for name in sorted(set(_json(found).get("weight_map", {}).values()))]
    there = [shard for shard in shards if shard is not None]
    return there if len(there) == len(shards) else []


def _in_cache(repository: str, file: str) -> Path | None:
    try:
        import huggingface_hub
    except ImportError:
        return None
    found = huggingface_hub.try_to_load_from_cache(repository, file)
    return Path(found) if isinstance(found, str) else None


def beside(where: str | Path | Source, names: Sequence[str]) -> Path | None:
    """The first of these files that lies beside the weights; None where none does.

    Raises:
        WeightsError: the Hub cannot be reached.
    """
    if not isinstance(where, Source) and is_hub(where):
        hub = _Hub(str(where))
        return next((path for name in names if (path := hub.fetch(name)) is not None), None)
    path = where.path if isinstance(where, Source) else Path(where).expanduser()
    folder = path if path.is_dir() else path.parent
    return next((folder / name for name in names if (folder / name).is_file()), None)


class _Hub:
    """A repository's files, in the Hub's own cache.

    Attributes:
        offline: why the Hub was not asked for a file that its cache does not hold, if so.
    """

    def __init__(self, repository: str) -> None:
        self.repository = repository
        self.offline: Exception | None = None

    def fetch(self, file: str) -> Path | None:
        """The file's path; None where there is no such file, or none in the cache while offline."""
        try:
            import huggingface_hub
            from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
        except ImportError:
            raise ModuleNotFoundError(
                f"{self.repository} is fetched with huggingface_hub: pip install huggingface_hub, "
                "or point weights= to a folder that holds it"
            ) from None
        try:
            return Path(huggingface_hub.hf_hub_download(self.repository, file))
        except LocalEntryNotFoundError as error:
            self.offline = error
            return None
        except EntryNotFoundError:
            return None
        except Exception as error:  # the Hub raises httpx's, requests' and its own kinds
            raise _unreachable(self.repository, error) from error


def _unreachable(repository: str, error: Exception) -> WeightsError:
    return WeightsError(
        f"{repository} is not here and could not be fetched from the Hub "
        f"({type(error).__name__}: {error}). Offline, fetch it elsewhere (hf download "
        f"{repository} --local-dir FOLDER) and pass weights=FOLDER"
    )


def _download(repository: str) -> Path:
    """The weights of a repository in the Hub's own cache, with the notes beside them."""
    hub = _Hub(repository)
    for note in NOTES:
        hub.fetch(note)
    found = next((path for name in WEIGHTS if (path := hub.fetch(name)) is not None), None)
    if found is None and hub.offline is not None:
        raise _unreachable(repository, hub.offline)
    if found is None:
        raise WeightsError(f"{repository} holds none of {', '.join(WEIGHTS)}")
    if found.name.endswith(".index.json"):
        for shard in sorted(set(_json(found).get("weight_map", {}).values())):
            hub.fetch(shard)
    return found
