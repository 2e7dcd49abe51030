"""CLIP's preprocessing against transformers' image processor; crops against their definition."""

import io
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from linearize.data import preprocess


def noise(width, height, seed=0):
    generator = np.random.default_rng([width, height, seed])
    smooth = generator.integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), np.uint8)
    return Image.fromarray(smooth).resize((width, height), Image.Resampling.BILINEAR)


@pytest.fixture(scope="module")
def processor():
    pytest.importorskip("torch")
    clip = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")

    def run(image, size, **options):
        return clip.CLIPImageProcessorPil(
            size={"shortest_edge": size}, crop_size={"height": size, "width": size}, **options
        )(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)

    return run


SIZES = [(500, 375), (375, 500), (333, 251), (64, 64), (32, 32), (640, 97), (229, 224), (57, 41)]


@pytest.mark.parametrize("size", [224, 32, 48])
@pytest.mark.parametrize("shape", SIZES)
def test_pixels_are_those_of_transformers(processor, shape, size):
    image = noise(*shape)
    theirs = processor(image, size, do_rescale=False, do_normalize=False)
    np.testing.assert_array_equal(preprocess.clip_image(image, size), theirs)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_grey_and_colour_modes(processor, mode):
    image = noise(61, 47).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "jpeg")
    with Image.open(buffer) as opened:
        theirs = processor(opened, 32, do_rescale=False, do_normalize=False)
    ours = preprocess.clip_image(preprocess.open_image(buffer.getvalue()), 32)
    np.testing.assert_array_equal(ours, theirs)


def test_what_the_model_subtracts_is_what_the_processor_subtracts(processor):
    """Together with the model's first operations: the processor's floats, in pixel units."""
    from linearize.models import clip, images

    image = noise(50, 41)
    ours = images.prepare(preprocess.clip_image(image, 32)[None], 32, clip.MEAN, clip.STD)[0]
    off = np.abs(np.asarray(ours) - processor(image, 32)) * np.asarray(clip.STD)
    assert off.max() < 1e-4  # of 255


@given(width=st.integers(1, 400), height=st.integers(1, 400), seed=st.integers(0, 2**32 - 1))
def test_crops_are_random_resized_crops(width, height, seed):
    left, top, right, bottom = preprocess.crop_box(width, height, np.random.default_rng(seed))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    w, h = right - left, bottom - top
    if min(w, h) > 20:
        assert 3 / 4 * 0.95 < w / h < 4 / 3 * 1.05
        fits = 3 / 4 <= width / height <= 4 / 3
        if fits:  # sides are rounded, by half a pixel each
            slack = (w + h) / 2 + 1
            assert 0.9 * width * height - slack < w * h < width * height + slack


def test_a_long_image_is_cropped_in_the_middle():
    box = preprocess.crop_box(1000, 30, np.random.default_rng(0))
    assert box == (480, 0, 520, 30)


def test_areas_and_places_are_uniform():
    """Of a large square, where every draw with a ratio near 1 fits: moments of the uniform law."""
    rng = np.random.default_rng(0)
    boxes = np.array([preprocess.crop_box(4000, 4000, rng) for _ in range(4000)])
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    # a draw is kept if both sides fit: |log ratio| <= -log(share), share uniform in [0.9, 1], so
    # the density of the share is proportional to -log(share)
    shares = np.linspace(0.9, 1, 100_001)
    expected = np.average(shares, weights=-np.log(shares))
    spread = math.sqrt(np.average((shares - expected) ** 2, weights=-np.log(shares)))
    fitting = w * h < 0.9999 * 4000 * 4000
    assert abs((w * h / 4000**2)[fitting].mean() - expected) < 5 * spread / math.sqrt(4000)
    free = boxes[:, 0] / np.maximum(4000 - w, 1)
    assert abs(free[w < 3900].mean() - 0.5) < 5 * math.sqrt(1 / 12 / (w < 3900).sum())


def test_crops_are_resized_as_cropped_images():
    image = noise(60, 50)
    box = preprocess.crop_box(60, 50, np.random.default_rng(3))
    expected = image.crop(box).resize((32, 32), Image.Resampling.BICUBIC)
    ours = preprocess.random_crop(image, 32, np.random.default_rng(3))
    np.testing.assert_array_equal(ours, np.asarray(expected))
