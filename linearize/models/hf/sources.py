"""Where weights lie: a folder, one file, shards with an index, or a repository on the Hub."""

import contextlib
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from linearize import choices, files, io, shards
from linearize.models import torch_modules
from linearize.models.backbone import WeightsError

WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
)
"""Names of weights in a folder or repository, in the order of preference."""
NOTES = (
    "config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "open_clip_config.json",
)
"""Names of what is said about them."""
GGUF = ".gguf"
_TORCH = (".pt", ".pth", ".bin", ".ckpt")
_NO_WEIGHTS = (
    "training_args.bin",
    "optimizer.bin",
    "optimizer.pt",
    "scheduler.bin",
    "scheduler.pt",
)
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Source:
    """Tensors that are read when asked for, and the JSON files that lie beside them.

    Attributes:
        path: the file of weights, or of its index.
        tensors: how to read each tensor, by name.
        notes: parsed files of :data:`NOTES`, by name; those that there are.
        size: bytes of all tensors together; None where that is not known.
    """

    path: Path
    tensors: Mapping[str, Callable[[], np.ndarray]]
    notes: Mapping[str, Any]
    size: int | None = None

    @classmethod
    def of(
        cls, path: Path, arrays: Mapping[str, np.ndarray], notes: Mapping[str, Any] | None = None
    ) -> "Source":
        """Tensors that are in memory already."""
        tensors = {name: partial(np.asarray, x) for name, x in arrays.items()}
        return cls(path, tensors, notes or {}, sum(x.nbytes for x in arrays.values()))

    def __str__(self) -> str:
        """The path."""
        return str(self.path)


def read(where: str | Path | Source) -> Source:
    """Open weights; no tensor of a safetensors file is read yet.

    Args:
        where: a folder that ``save_pretrained`` wrote; a ``.safetensors`` file, or the
            ``.index.json`` of several files; a ``.pt``, ``.pth`` or ``.bin`` of torch, a state dict
            or a whole module, TorchScript included, of which tensors alone are taken and nothing is
            run; a ``.gguf`` of llama.cpp (:mod:`linearize.models.language.gguf`), which tells its
            configuration itself; or a repository on the Hub, ``"openai/clip-vit-base-patch32"``.
            What is open already is returned. A word that reads as a path (it begins with ``.``,
            ``/`` or ``~``, has two separators, ends as weights do, or its folder is here) is not
            asked of the Hub.

    Raises:
        FileNotFoundError: neither a file nor a folder, nor the form of a repository's name; or a
            folder without weights, or with several of no usual name.
        WeightsError: a file is truncated, of another kind or none; a configuration beside it is no
            JSON; or the Hub cannot be reached: the message says how to point to a folder.
        TorchArchiveError: a torch file is damaged, or names what no checkpoint needs.
    """
    if isinstance(where, Source):
        return where
    return _open(locate(where))


def locate(where: str | Path) -> Path:
    """The file of weights, or of their index, that :func:`read` opens.

    Raises:
        FileNotFoundError, WeightsError: as :func:`read`.
    """
    path = Path(where).expanduser()
    if path.is_dir():
        return _in_folder(path)
    if os.path.lexists(path):
        return path
    if not is_hub(where):
        likely = ", nor a repository's name on the Hub (owner/name)"
        if _HUB_ID.fullmatch(str(where)) and path.parent.is_dir():
            likely = (
                f"; as there is a folder {str(path.parent)!r} here, it was not asked of the Hub: "
                f"for that, hf download {where} --local-dir FOLDER and pass weights=FOLDER"
            )
        raise FileNotFoundError(
            f"weights={str(where)!r} is no file and no folder here{likely}{_near(path)}"
        )
    return _download(str(where))


def _in_folder(folder: Path) -> Path:
    """The file of weights: of a usual name, or the only one that ends as weights do."""
    found = next((folder / name for name in WEIGHTS if (folder / name).exists()), None)
    if found is not None:
        return found
    others = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix in (*_TORCH, ".safetensors", GGUF) and path.name not in _NO_WEIGHTS
    ]
    if len(others) != 1:
        several = f"and several others ({', '.join(p.name for p in others[:4])}, ...)"
        raise FileNotFoundError(
            f"{folder} holds none of {', '.join(WEIGHTS)}{', ' + several if others else ''}; point "
            "to the folder or the file that holds the weights"
        )
    return others[0]


def _near(path: Path) -> str:
    """What lies beside a path that is not there and is named nearly so."""
    home = next((p for p in path.parents if p.is_dir()), Path())
    missing = path.relative_to(home).parts[0] if path.parts else ""
    with contextlib.suppress(OSError):
        return choices.hint(missing, os.listdir(home), most=3)
    return ""


def _open(path: Path) -> Source:
    notes = _notes(path)
    whole = _sharded(path) if path.name.endswith(".index.json") else _tensors(path)
    return replace(whole, notes=whole.notes or notes)


def _notes(path: Path) -> dict[str, Any]:
    """What lies beside the weights; OpenCLIP's own weights go by OpenCLIP's configuration."""
    notes = {
        name: read_note(path.parent / name)
        for name in NOTES
        if os.path.lexists(path.parent / name)  # a link to nothing is not passed over
    }
    if path.name.startswith("open_clip") and "open_clip_config.json" in notes:
        return {"open_clip_config.json": notes["open_clip_config.json"]}
    return notes


def _tensors(path: Path) -> Source:
    """The tensors of one file; torch's are read at once."""
    try:
        files.check_regular(path)
        if path.suffix == GGUF:
            from linearize.models.language import gguf  # which reads configurations of all sorts

            return gguf.read(path)
        if path.suffix in _TORCH or torch_modules.is_torch(path):
            return Source.of(path, torch_modules.read(path))
        stored = io.stored_tensors(path)
    except (OSError, files.CorruptFileError) as error:
        raise WeightsError(f"weights cannot be read: {error}") from error

    def tensor(name: str) -> np.ndarray:
        try:
            return stored[name].read()
        except (OSError, files.CorruptFileError) as error:
            raise WeightsError(f"weights cannot be read: {error}") from error

    size = sum(x.end - x.begin for x in stored.values())
    return Source(path, {name: partial(tensor, name) for name in stored}, {}, size)


def _sharded(index: Path) -> Source:
    listed = _weight_map(index)
    parts = {name: _tensors(index.parent / name) for name in sorted(set(listed.values()))}
    with _as_weights():
        held = {name for name, part in listed.items() if name in parts[part].tensors}
        shards.check_held(index, listed, held)
    tensors = {name: read for part in parts.values() for name, read in part.tensors.items()}
    tensors |= {name: parts[part].tensors[name] for name, part in listed.items()}
    return Source(index, tensors, {}, sum(part.size or 0 for part in parts.values()))


def _weight_map(index: Path, *, here: bool = True) -> dict[str, str]:
    """The shard of each tensor by the index's word, each a name within its folder.

    Args:
        index: the file.
        here: whether the shards must lie there.
    """
    with _as_weights():
        return shards.weight_map(index, read_note(index), here=here)


@contextlib.contextmanager
def _as_weights() -> Iterator[None]:
    """What is wrong with a file, as an error of weights."""
    try:
        yield
    except files.CorruptFileError as error:
        raise WeightsError(str(error)) from error


def read_note(path: Path, kind: type = dict) -> Any:
    """What a JSON file beside weights says; ``kind`` is what it holds.

    Raises:
        WeightsError: it cannot be read, or is no JSON.
    """
    try:
        return files.read_json(path, kind=kind, most=_MOST_JSON)
    except (OSError, files.CorruptFileError) as error:
        raise WeightsError(f"{error}; fetch it again") from error


_MOST_JSON = 2**26
"""Bytes; an index of a hundred thousand tensors has some 2**24."""


def is_hub(where: str | Path) -> bool:
    """Whether that is a repository's name on the Hub, and reads as no path of this machine."""
    word, path = str(where), Path(where).expanduser()
    return (
        bool(_HUB_ID.fullmatch(word))
        and not word.startswith((".", "~"))
        and path.suffix not in (*_TORCH, ".safetensors", GGUF, ".json")
        and not os.path.lexists(path)
        and not (path.parent.is_dir() and not _cached(word))
    )


def _cached(repository: str) -> bool:
    return any(_in_cache(repository, name) for name in (*WEIGHTS, *NOTES))


def held(where: str | Path) -> list[Path]:
    """The files of weights that lie here, shards in place of their index; nothing is fetched.

    Args:
        where: as for :func:`read`; a repository is looked up in the Hub's own cache.

    Returns:
        No path where a file is missing.

    Raises:
        WeightsError: the index of shards cannot be read.
    """
    path = Path(where).expanduser()
    folder = path if path.is_dir() else path.parent
    hub = is_hub(where)

    def find(name: str) -> Path | None:
        if hub:
            return _in_cache(str(where), name)
        return folder / name if (folder / name).is_file() else None

    if path.is_dir():
        try:
            names: Sequence[str] = [_in_folder(path).name]
        except FileNotFoundError:
            names = []
    else:
        names = [path.name] if path.is_file() else WEIGHTS if hub else []
    found = next((file for name in names if (file := find(name)) is not None), None)
    if found is None or not found.name.endswith(".index.json"):
        return [] if found is None else [found]
    parts = [find(name) for name in sorted(set(_weight_map(found, here=False).values()))]
    there = [part for part in parts if part is not None]
    return there if len(there) == len(parts) else []


_ENOUGH = (
    {"config.json", "processor_config.json"},
    {"config.json", "preprocessor_config.json"},
    {"open_clip_config.json"},
)
"""Notes that tell a function whole, whatever else a repository has."""


def _known_absent(repository: str, file: str) -> bool:
    """Whether the Hub's cache remembers that there is no such file."""
    import huggingface_hub

    found = huggingface_hub.try_to_load_from_cache(repository, file)
    return found is not None and not isinstance(found, str)


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
    return next((folder / name for name in names if os.path.lexists(folder / name)), None)


_REMEMBERED = 60.0
"""Seconds for which a repository that could not be reached is not asked again."""
_unreached: dict[str, tuple[float, Exception]] = {}


class _Hub:
    """A repository's files, in the Hub's own cache.

    Attributes:
        offline: why the Hub was not asked for a file that its cache does not hold, if so.
    """

    def __init__(self, repository: str) -> None:
        self.repository = repository
        when, why = _unreached.get(repository, (-math.inf, None))
        self.offline = why if time.monotonic() - when < _REMEMBERED else None
        self.tried = False

    def fetch(self, file: str) -> Path | None:
        """The file's path; None where there is no such file, or none in the cache while offline."""
        found = _in_cache(self.repository, file)
        if self.offline is None and found is None:
            self._try_once(file)
        if self.offline is not None:
            return found
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
            self._note(error)
            return None
        except EntryNotFoundError:
            return None
        except Exception as error:  # the Hub raises httpx's, requests' and its own kinds
            fault = files.disk_fault(error)
            if fault is not None:
                raise WeightsError(
                    f"{self.repository} cannot be kept in the Hub's cache ({fault.strerror}: "
                    f"{fault.filename}); make room or permit writing there, set HF_HOME to a "
                    "folder elsewhere, or pass weights=FOLDER"
                ) from error
            raise _unreachable(self.repository, error) from error

    def _try_once(self, file: str) -> None:
        """Whether there is a connection at all, at the first file that is not in the cache."""
        if not self.tried:
            self.tried = True
            error = _no_connection(self.repository, file)
            if error is not None:
                self._note(error)

    def _note(self, error: Exception) -> None:
        self.offline = error
        _unreached[self.repository] = (time.monotonic(), error)


def _no_connection(repository: str, file: str) -> Exception | None:
    """Why the Hub gives no answer, by one request; a download makes six, in 23 s."""
    try:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError:
        return None  # told where it is needed
    try:
        url = huggingface_hub.hf_hub_url(repository, file)
        huggingface_hub.get_hf_file_metadata(url, timeout=10)
    except HfHubHTTPError:
        return None  # an answer, which the download gets too
    except Exception as error:  # of httpx, requests, or the client itself
        return error
    return None


def _unreachable(repository: str, error: Exception) -> WeightsError:
    return WeightsError(
        f"{repository} is not here and could not be fetched from the Hub "
        f"({type(error).__name__}: {error}). Offline, fetch it elsewhere (hf download "
        f"{repository} --local-dir FOLDER) and pass weights=FOLDER"
    )


def _download(repository: str) -> Path:
    """The weights of a repository in the Hub's own cache, with the notes beside them."""
    hub = _Hub(repository)
    notes = {note for note in NOTES if hub.fetch(note) is not None}
    found = next((path for name in WEIGHTS if (path := hub.fetch(name)) is not None), None)
    if found is None and hub.offline is not None:
        raise _unreachable(repository, hub.offline)
    if hub.offline is not None and not any(notes >= enough for enough in _ENOUGH):
        lost = ", ".join(n for n in NOTES if n not in notes and not _known_absent(repository, n))
        if lost:
            raise WeightsError(
                f"{repository}: its weights are in the Hub's cache and {lost} may be missing "
                f"there, which decide the function; the Hub cannot be reached ({hub.offline})"
            )
    if found is None:
        raise WeightsError(f"{repository} holds none of {', '.join(WEIGHTS)}")
    if found.name.endswith(".index.json"):
        for shard in sorted(set(_weight_map(found, here=False).values())):
            hub.fetch(shard)
    return found
