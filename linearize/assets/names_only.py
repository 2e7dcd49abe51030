"""What pip is given for setuptools where it fetches a source distribution: it runs nothing.

pip asks a package's backend for its name and version before it keeps an archive. setuptools runs
``setup.py`` to answer; here the answer is copied out of ``PKG-INFO``. Copied to where pip looks for
setuptools, so it imports nothing of ours.
"""

import sys
from pathlib import Path
from typing import Any


def get_requires_for_build_wheel(settings: Any = None) -> list[str]:
    """Nothing."""
    return []


def prepare_metadata_for_build_wheel(folder: str, settings: Any = None) -> str:
    """Writes name and version of the package in the present folder; returns what was made."""
    head = Path("PKG-INFO").read_text("utf-8").partition("\n\n")[0]
    kept = [line for line in head.split("\n") if line.startswith(("Name:", "Version:"))]
    said = dict(line.split(": ", 1) for line in kept)
    made = Path(
        folder, f"{said['Name'].strip().replace('-', '_')}-{said['Version'].strip()}.dist-info"
    )
    made.mkdir()
    (made / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", *kept, ""]), "utf-8")
    return made.name


__legacy__ = sys.modules[__name__]
"""What pip asks where a package has no ``pyproject.toml``."""
