"""The kernels that *A Kernel-Based View of Language Model Fine-Tuning* published, without torch.

Files ``{split}_kernels_{task}.pt`` hold (kernel, targets) as ``torch.save`` wrote them, kernels as
(train, C, other, C); of asymmetric SignGD two of them, and the second way round.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from linearize.models import torch_archive
from linearize.models.torch_archive import Strided, TorchArchiveError


@dataclass(frozen=True, eq=False)
class Published:
    """One file, in this library's layout."""

    kernel: np.ndarray
    """(M, N, C, C): rows are the split's examples, columns the training examples. Of asymmetric
    SignGD ⟨∇f(x), sign ∇f(x_n)⟩, of which its solvers predict."""
    targets: np.ndarray
    """(M,): class numbers; −1 and 1 of a single output."""
    flipped: np.ndarray | None = None
    """Of asymmetric SignGD alone: ⟨sign ∇f(x), ∇f(x_n)⟩, (M, N, C, C)."""

    @property
    def labels(self) -> np.ndarray:
        """(M,) class numbers, whatever the targets are."""
        return (self.targets > 0).astype(int) if (self.targets < 0).any() else self.targets


def read_published(path: str | Path) -> Published:
    """A file of kernels; its pickle builds tensors and runs nothing.

    Raises:
        FileNotFoundError: there is no such file.
        TorchArchiveError: it is damaged, or holds anything but a kernel and targets.
    """
    found = torch_archive.read_with(path, torch_archive.Unpickler, _select)
    kernel, targets = np.asarray(found["kernel"], np.float64), np.ravel(found["targets"])
    pair = kernel[None] if kernel.ndim == 4 else kernel
    if pair.ndim != 5 or len(pair) > 2 or pair.shape[2] != pair.shape[4]:
        raise TorchArchiveError(
            f"{path} holds a kernel of shape {kernel.shape}; expected (N, C, M, C), or two of them"
        )
    turned = pair.transpose(0, 3, 1, 4, 2)  # (·, M, N, C of M, C of N)
    if len(targets) != turned.shape[1]:
        raise TorchArchiveError(f"{path} has {len(targets)} targets for {turned.shape[1]} examples")
    if not np.isfinite(turned).all():
        raise TorchArchiveError(f"{path} holds NaN or infinity")
    return Published(turned[0], targets.astype(int), turned[1] if len(turned) == 2 else None)


def _select(loaded: Any) -> Mapping[str, Strided]:
    if not isinstance(loaded, tuple | list) or len(loaded) != 2:
        raise TorchArchiveError("the file does not hold a kernel and its targets")
    if not all(isinstance(part, Strided) for part in loaded):
        raise TorchArchiveError("the file holds something else than two tensors")
    return dict(zip(("kernel", "targets"), loaded, strict=True))
