"""Resident memory of this process: what a training step needs beyond its weights. Linux only."""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def available() -> bool:
    """Whether the kernel tells a process its peak and lets it start anew."""
    return _STATUS.exists() and _CLEAR.exists()


def steady_peak(begin: Callable[[], Callable[[], object]], steps: int) -> dict[str, float]:
    """Peak resident memory of steady-state steps, beyond imports and weights.

    The baseline is the resident size when this is called: the framework imported, weights and one
    batch loaded, no training state yet. ``begin`` makes the training state and gives the step; two
    steps warm it up (compile it, fill its buffers). Then freed memory is handed back to the system,
    the kernel's peak counter is reset, and ``steps`` steps run. So the figure holds the training
    state (τ, two moments), what a step allocates, and whatever of the compiled program and of
    the allocator's caches stays resident.

    Returns:
        ``baseline``, ``resting`` (between steps) and ``peak``, in bytes; ``extra`` is ``peak -
        baseline``, ``extra_step`` is ``peak - resting``.
    """
    _release()
    baseline = _status("VmRSS")
    step = begin()
    for _ in range(2):
        step()
    _release()
    _CLEAR.write_text("5")
    resting = _status("VmRSS")
    for _ in range(steps):
        step()
    peak = _status("VmHWM")
    return {
        "baseline": baseline,
        "resting": resting,
        "peak": peak,
        "extra": peak - baseline,
        "extra_step": peak - resting,
    }


def peak(run: Callable[[], T]) -> tuple[T, int]:
    """What ``run()`` gives, and the bytes by which resident memory rose above its start."""
    _release()
    baseline = _status("VmRSS")
    _CLEAR.write_text("5")
    found = run()
    return found, _status("VmHWM") - baseline


def _release() -> None:
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _status(field: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{_STATUS} has no {field}")


def most() -> int:
    """Bytes of the largest resident memory of this process since it began.

    ``getrusage`` also counts what the process that started it had.
    """
    return _status("VmHWM")
