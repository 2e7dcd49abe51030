"""What accelerators are rated at, and what share of it a program reaches."""

import math
import os

GIVEN = "LINEARIZE_PEAKS"
"""The environment variable that names the rates of a device that is not in :data:`PEAKS`."""

_A100 = {"bfloat16": 312e12, "tensorfloat32": 156e12, "float32": 19.5e12}
_HOPPER = {"bfloat16": 989e12, "tensorfloat32": 494e12, "float32": 67e12}
PEAKS = {
    # NVIDIA A100 Tensor Core GPU datasheet; PCIe and SXM are rated alike
    "NVIDIA A100-SXM4-40GB": _A100,
    "NVIDIA A100-SXM4-80GB": _A100,
    "NVIDIA A100-PCIE-40GB": _A100,
    "NVIDIA A100 80GB PCIe": _A100,
    # NVIDIA H100 and H200 datasheets, SXM; of tensor cores they print the sparse rate, twice this
    "NVIDIA H100 80GB HBM3": _HOPPER,
    "NVIDIA H200": _HOPPER,
}
"""Dense operations a second, by ``device_kind`` and arithmetic.

Names are compared whole: slower PCIe and NVL cards and MIG slices have longer ones."""

FLOAT32 = dict.fromkeys(
    (None, "default", "bfloat16", "high", "tensorfloat32", "TF32_TF32_F32"), "tensorfloat32"
) | dict.fromkeys(("highest", "float32", "F32_F32_F32"), "float32")
"""How an NVIDIA GPU from Ampere on multiplies float32, by ``jax_default_matmul_precision``: the
documentation of ``jax.lax.Precision`` and ``jax.lax.DotAlgorithmPreset``."""


def peaks(kind: str) -> dict[str, float]:
    """Operations a second by arithmetic: those of :data:`GIVEN`, else of :data:`PEAKS`, if any.

    Raises:
        ValueError: the variable is not of the form ``bfloat16=989e12,tensorfloat32=494e12``.
    """
    given = os.environ.get(GIVEN, "")
    try:
        pairs = [pair.split("=") for pair in given.split(",") if pair]
        chosen = {name.strip(): float(rate) for name, rate in pairs}
    except ValueError:
        chosen = {"": math.nan}
    if not all(n in _HOPPER and 0 < rate < math.inf for n, rate in chosen.items()):
        raise ValueError(
            f"{GIVEN}={given!r}; give operations a second of {', '.join(_HOPPER)}, such as "
            "'bfloat16=989e12,tensorfloat32=494e12'"
        )
    return PEAKS.get(kind, {}) | chosen


def utilisation(flops: float, images: int, seconds: float, peak: float) -> float:
    """Share of ``peak`` operations a second, of ``images`` with ``flops`` operations each."""
    return flops * images / seconds / peak
