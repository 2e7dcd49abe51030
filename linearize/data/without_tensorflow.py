"""TFDS's builders write array_record without TensorFlow: what they take from it is given here.

Prepared sets are read without TensorFlow; preparing is another matter. The builders of the papers'
data sets open files through ``tf.io.gfile``, and some encode pixels with it. On local files
Python's own functions do the same.
"""

import contextlib
import glob
import importlib
import io
import os
import shutil
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from linearize.data.images import to_rgb

_JPEG_QUALITY = 95
"""OpenCV's default, which TFDS's SUN397 is written with."""


def _open(path: Any, mode: str = "r") -> Any:
    return open(path, mode, encoding=None if "b" in mode else "utf-8")


def _listdir(path: Any) -> list[str]:
    return sorted(os.listdir(path))


def _glob(pattern: Any) -> list[str]:
    return sorted(glob.glob(os.fspath(pattern)))


def _pixels(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as opened:
        return np.asarray(to_rgb(opened))


def _jpeg(pixels: np.ndarray) -> SimpleNamespace:
    file = _file(Image.fromarray(pixels), "jpeg", quality=_JPEG_QUALITY)
    return SimpleNamespace(numpy=file.getvalue)


TF = SimpleNamespace(
    io=SimpleNamespace(
        gfile=SimpleNamespace(
            GFile=_open,
            exists=os.path.exists,
            isdir=os.path.isdir,
            listdir=_listdir,
            glob=_glob,
            makedirs=lambda path: os.makedirs(path, exist_ok=True),
            copy=shutil.copyfile,
        ),
        encode_jpeg=_jpeg,
    ),
    image=SimpleNamespace(decode_image=_pixels),
    shape=np.shape,
    compat=SimpleNamespace(as_text=lambda text: text.decode() if isinstance(text, bytes) else text),
    errors=SimpleNamespace(UnimplementedError=NotImplementedError),
    Graph=lambda: SimpleNamespace(as_default=contextlib.nullcontext),
)
"""Of TensorFlow, what the builders use."""


@contextlib.contextmanager
def without_tensorflow(builder: Any) -> Iterator[None]:
    """Let a builder prepare its data with :data:`TF` in TensorFlow's place.

    Args:
        builder: of TFDS; of SUN397, images are shrunk with Pillow instead of OpenCV, and of
            ImageNet the 22 CMYK images and the PNG stay as they are, since Pillow reads them.
    """
    module = sys.modules[type(builder).__module__]
    patched: list[tuple[Any, str, Any]] = [(m, "tf", TF) for m in _modules(module)]
    if hasattr(module, "_process_image_file"):
        patched.append((module, "_process_image_file", _shrunk))
        session = SimpleNamespace(nogpu_session=lambda *_: contextlib.nullcontext())
        patched.append((module, "utils", session))
    if hasattr(builder, "_fix_image"):
        patched.append((builder, "_fix_image", lambda _, image: image))
    patched.append((builder, "_generate_examples", _encoding(builder._generate_examples)))
    with contextlib.ExitStack() as stack:
        for owner, name, value in patched:
            stack.enter_context(mock.patch.object(owner, name, value, create=True))
        yield


def _modules(module: Any) -> list[Any]:
    """Those whose ``tf`` a builder reaches."""
    core = "tensorflow_datasets.core.download"
    found: list[Any] = [
        importlib.import_module(f"{core}.{part}") for part in ("extractor", "downloader")
    ]
    found += [module, getattr(module, "imagenet_common", None)]
    return [m for m in found if m is not None and "tf" in vars(m)]


def _encoding(generate: Any) -> Any:
    """The same examples, with pixels as PNG files."""

    def examples(*args: Any, **kwargs: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
        for key, example in generate(*args, **kwargs):
            pixels = example.get("image")
            if isinstance(pixels, np.ndarray):
                grey = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
                example = {**example, "image": _file(Image.fromarray(grey), "png")}
            yield key, example

    return examples


def _shrunk(
    file: Any,
    session: Any,
    filename: str,
    quality: int | None = None,
    target_pixels: int | None = None,
) -> io.BytesIO:
    """SUN397's images, whatever their format, as JPEG of at most so many pixels."""
    with Image.open(io.BytesIO(file.read())) as opened:
        image = to_rgb(opened)
    if target_pixels and image.width * image.height > target_pixels:
        factor = (target_pixels / (image.width * image.height)) ** 0.5
        size = round(image.width * factor), round(image.height * factor)
        image = image.resize(size, Image.Resampling.BICUBIC)
    return _file(image, "jpeg", quality=quality or _JPEG_QUALITY)


def _file(image: Image.Image, encoding: str, **options: Any) -> io.BytesIO:
    buffer = io.BytesIO()
    image.save(buffer, encoding, **options)
    buffer.seek(0)
    return buffer
