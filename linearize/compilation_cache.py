"""Compiled programs, kept between runs of a command: the second run does not compile them again.

JAX's persistent compilation cache, in the user's cache directory. A program for a CPU is made of
that processor's instructions, and a home directory may be seen from several machines: each kind of
processor has a folder of its own.
"""

import hashlib
import logging
import os
import platform
import warnings
from pathlib import Path

import jax

from linearize.assets import cache_dir

log = logging.getLogger(__name__)

VARIABLE = "JAX_COMPILATION_CACHE_DIR"
_OPTION = VARIABLE.lower()


def keep() -> Path | None:
    """Keep what this process compiles from now on, and read what others kept.

    Nothing is changed where the user has said where, or that nowhere: by the environment variable
    ``JAX_COMPILATION_CACHE_DIR`` (empty for nowhere) or by ``jax.config``.

    Returns:
        The folder; None where it is the user's, or cannot be written.
    """
    for what in ("reading", "writing"):  # by two processes at once, or where the disk is full
        warnings.filterwarnings("ignore", f"Error {what} persistent compilation cache entry")
    if VARIABLE in os.environ or getattr(jax.config, _OPTION) is not None:
        return None
    folder = cache_dir() / "compiled" / processor()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        log.info("compiled programs are not kept: %s", error)
        return None
    jax.config.update(_OPTION, str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return folder


def processor() -> str:
    """A name for this kind of processor: its architecture, and a digest of its features.

    >>> processor() == processor()
    True
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = [platform.processor()]
    told = {x for x in lines if x.split(":")[0].strip() in ("model name", "flags", "Features")}
    return f"{platform.machine()}-{hashlib.sha256(repr(sorted(told)).encode()).hexdigest()[:8]}"
