"""``--distributed``: the processes that a command line names, to do together what it says."""

import re
import sys
from collections.abc import Sequence
from typing import Any

from linearize.joining import Processes

USAGE = """\
--distributed has several processes do it together, each started with this command on its own host;
they are found by themselves under SLURM, Open MPI 4 and Kubernetes and on Cloud TPU. Elsewhere:
--distributed HOST:PORT of process 0, --processes N, and --process I, from 0. --wait SECONDS is how
long they have to come, 300 by default.
"""


def split(words: Sequence[str], share: bool = False) -> tuple[Processes | None, list[str]]:
    """The processes that a command line names, and its other words.

    Args:
        words: of the command line.
        share: whether it asks for a share of a run.

    Raises:
        SystemExit: what is named is not whole, or together with a share (exit status 2).
    """
    given: dict[str, Any] = {}
    rest = list(words)
    if at := _option(rest, "--distributed", bare=True):
        given["at"] = at[0] or None
    for name in ("processes", "process", "wait"):
        if found := _option(rest, f"--{name}"):
            if not found[0].isdecimal():
                stop(f"--{name} {found[0]}: expected a whole number")
            given[name] = int(found[0])
    if not given:
        return None, rest
    if "at" not in given:
        stop(f"--{next(iter(given))} without --distributed; give --distributed HOST:PORT too")
    if share:
        stop(
            "--distributed and a share of a run are given: processes that share a run each train "
            "alone. Give --distributed, or --plan, --only or --work"
        )
    try:
        return Processes(**given), rest
    except ValueError as error:
        stop(re.sub(r"\b(at|processes|process|wait)=", _as_option, str(error)))
        raise


def _as_option(found: re.Match[str]) -> str:
    return f"--{ {'at': 'distributed'}.get(found[1], found[1]) } "


def _option(words: list[str], name: str, bare: bool = False) -> list[str]:
    """What follows an option, taken out of the words; nothing where it is not among them.

    Args:
        words: of a command line.
        name: the option.
        bare: whether it may stand alone; then "" follows it.
    """
    for i, word in enumerate(words):
        if word.startswith(f"{name}="):
            return [words.pop(i).partition("=")[2]]
        if word == name:
            follows = i + 1 < len(words) and not words[i + 1].startswith("-")
            if not (follows or bare):
                stop(f"{name} needs a value")
            value = words.pop(i + 1) if follows else ""
            words.pop(i)
            return [value]
    return []


def stop(message: str) -> None:
    """Say what is wrong with a command line, and end.

    Raises:
        SystemExit: with status 2.
    """
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)
