"""Kernels as their authors published them, read without torch."""

import numpy as np
import pytest

from linearize.models.torch_archive import TorchArchiveError
from linearize.ntk.published import read_published

torch = pytest.importorskip("torch")
N, M, C = 4, 3, 2


def drawn(*shape):
    return torch.from_numpy(np.random.default_rng(0).normal(size=shape))


def test_a_kernel_is_turned_to_rows_of_the_split(tmp_path):
    kernel, targets = drawn(N, C, M, C), torch.tensor([0, 1, 1])
    torch.save((kernel, targets), tmp_path / "dev_kernels_sst-2.pt")
    found = read_published(tmp_path / "dev_kernels_sst-2.pt")
    assert found.kernel.shape == (M, N, C, C)
    assert found.flipped is None
    for n, c, m, d in np.ndindex(N, C, M, C):
        assert found.kernel[m, n, d, c] == kernel[n, c, m, d]
    np.testing.assert_array_equal(found.labels, [0, 1, 1])


def test_asymmetric_kernels_are_two_and_signs_are_classes(tmp_path):
    kernel, targets = drawn(2, N, 1, M, 1), torch.tensor([-1.0, 1.0, 1.0])
    torch.save((kernel, targets), tmp_path / "kernels.pt")
    found = read_published(tmp_path / "kernels.pt")
    np.testing.assert_array_equal(found.kernel[..., 0, 0], kernel[0, :, 0, :, 0].T)
    np.testing.assert_array_equal(found.flipped[..., 0, 0], kernel[1, :, 0, :, 0].T)
    np.testing.assert_array_equal(found.labels, [0, 1, 1])


class Code:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ((drawn(N, C, M, C), Code()), "nothing was run"),
        (drawn(N, C), "a kernel and its targets"),
        ((drawn(N, C, M, C), [0, 1, 1]), "something else than two tensors"),
        ((drawn(N, C, M), torch.tensor([0, 1, 1])), r"shape \(4, 2, 3\)"),
        ((drawn(N, C, M, C), torch.tensor([0, 1])), "2 targets for 3 examples"),
    ],
)
def test_anything_else_is_refused(tmp_path, capsys, held, message):
    torch.save(held, tmp_path / "kernels.pt")
    with pytest.raises(TorchArchiveError, match=message):
        read_published(tmp_path / "kernels.pt")
    assert capsys.readouterr().out == ""
