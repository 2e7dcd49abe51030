"""Tensors of an ONNX file by name, without running it."""

from pathlib import Path

import numpy as np

from linearize import files
from linearize.models.backbone import WeightsError


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Every initializer of an ONNX graph.

    An exporter leaves the transposed kernel of a linear layer nameless (``onnx::MatMul_1966``);
    such a tensor is called after the node that uses it, ``/encoder/layer.0/fc1/MatMul`` giving
    ``encoder.layer.0.fc1.MatMul``.

    Raises:
        WeightsError: the file is not ONNX, or a nameless tensor has not exactly one user.
        ModuleNotFoundError: the ``onnx`` package is missing.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "reading these weights needs the onnx package: pip install 'linearize[demo]'"
        ) from error
    try:
        files.check_regular(path)
        graph = onnx.load(str(path)).graph
    except FileNotFoundError:
        raise
    except Exception as error:  # protobuf's DecodeError has no public home
        raise WeightsError(
            f"{path} is not a readable ONNX file ({error}); fetch it again"
        ) from error
    users: dict[str, list[str]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node.name)
    out = {}
    for tensor in graph.initializer:
        name = tensor.name
        if name.startswith("onnx::"):
            found = users.get(name, [])
            if len(found) != 1:
                raise WeightsError(
                    f"{path}: nameless tensor {name} is used by {found or 'no node'}"
                )
            name = found[0].removeprefix("/").replace("/", ".")
        out[name] = numpy_helper.to_array(tensor)
    if not out:
        raise WeightsError(f"{path} holds no tensors; fetch it again")
    return out
