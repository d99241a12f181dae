"""Crops by hand, formats by name, and bytes that are no photograph."""

import io
import math
import random
import struct
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from conf.schema import Augment
from infra.errors import DataError
from models.data.decode import CROP_TRIES, central_crop, eval_image, open_image, random_crop, train_image

RNG = np.random.default_rng(0)
PIXELS: NDArray[np.uint8] = RNG.integers(0, 256, (60, 100, 3), dtype=np.uint8)
WHOLE = Augment(crop_area_min=1.0, crop_aspect_max=1.0, flip_prob=0.0)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


PICTURE = Image.fromarray(PIXELS)
PNG = encoded(PICTURE)


@pytest.mark.parametrize(("width", "height"), [(500, 375), (224, 224), (300, 400)])
def test_random_crops_keep_area_and_aspect_within_bounds(width: int, height: int) -> None:
    areas, aspects = [], []
    for seed in range(2000):
        left, top, right, bottom = random_crop(width, height, 224, Augment(), random.Random(seed))
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        areas.append((right - left) * (bottom - top) / (width * height))
        aspects.append((right - left) / (bottom - top))
    rounding = 0.01  # whole pixels
    assert 0.08 - rounding < min(areas) < 0.1
    assert 0.9 < max(areas) <= 1.0
    assert 0.75 - rounding < min(aspects) < 0.8
    assert 1.25 < max(aspects) < 4 / 3 + 2 * rounding
    assert float(np.mean(np.log(aspects))) == pytest.approx(0.0, abs=0.05)  # as often wide as tall


class Scripted(random.Random):
    """Gives the numbers of a list, in order, and counts."""

    def __init__(self, numbers: list[float]) -> None:
        super().__init__(0)
        self.numbers, self.asked = numbers, 0

    def uniform(self, a: float, b: float) -> float:
        self.asked += 1
        return self.numbers.pop(0)

    def randint(self, a: int, b: int) -> int:
        return b


def test_a_crop_has_the_drawn_area_and_aspect() -> None:
    # a quarter of 100 x 64 is 1,600 pixels; aspect 1: 40 x 40, here as far right and down as it goes
    assert random_crop(100, 64, 224, Augment(), Scripted([0.25, 0.0])) == (60, 24, 100, 64)
    # aspect 4/3 = width / height: 46.2 x 34.6
    assert random_crop(100, 64, 224, Augment(), Scripted([0.25, math.log(4 / 3)])) == (54, 29, 100, 64)


def test_a_crop_that_does_not_fit_is_drawn_again() -> None:
    rng = Scripted([1.0, 0.0, 1.0, 0.0, 0.25, 0.0])  # the whole area as a square: 80 x 80 is too high, twice
    assert random_crop(100, 64, 224, Augment(), rng) == (60, 24, 100, 64)
    assert rng.asked == 2 * 3


def test_after_ten_misses_the_crop_is_the_one_of_evaluation() -> None:
    rng = Scripted([1.0, 0.0] * 20)
    assert random_crop(100, 64, 224, Augment(), rng) == (22, 4, 78, 60)
    assert rng.asked == 2 * CROP_TRIES == 20


@pytest.mark.parametrize(("side", "share"), [
    (224, 0.875), (240, 0.882), (260, 0.890), (300, 0.904), (380, 0.922), (456, 0.934), (528, 0.943),
    (600, 0.949), (672, 0.954),
])  # fmt: skip
def test_the_central_crop_takes_the_official_share_of_the_short_side(side: int, share: float) -> None:
    left, top, right, bottom = central_crop(1500, 1000, side, 32)
    assert (right - left) / 1000 == pytest.approx(share, abs=6e-4)
    assert bottom - top == pytest.approx(right - left)
    assert (left + right, top + bottom) == pytest.approx((1500, 1000))


def test_the_evaluation_image_is_pillow_s_own_crop_and_resize() -> None:
    # 60 * 32 / (32 + 32) = 30 pixels in the middle of 100 x 60
    by_hand = PICTURE.resize((32, 32), Image.Resampling.BICUBIC, box=(35, 15, 65, 45))
    found = eval_image(PNG, 32, Augment(eval_crop_pad=32))
    assert np.array_equal(found, np.asarray(by_hand))
    assert (found.dtype, found.shape) == (np.uint8, (32, 32, 3))


def test_without_padding_a_square_image_of_the_right_side_stays_as_it_is() -> None:
    square = PIXELS[:, :60]
    assert np.array_equal(eval_image(encoded(Image.fromarray(square)), 60, Augment(eval_crop_pad=0)), square)


def test_the_training_image_is_the_drawn_crop_resized_and_mirrored_when_drawn() -> None:
    mirrored = set()
    for seed in range(12):
        found = train_image(PNG, 24, Augment(), random.Random(seed))
        rng = random.Random(seed)
        box = random_crop(100, 60, 224, Augment(), rng)
        plain = np.asarray(PICTURE.resize((24, 24), Image.Resampling.BICUBIC, box=box))
        flip = rng.random() < 0.5
        mirrored.add(flip)
        assert np.array_equal(found, plain[:, ::-1] if flip else plain)
    assert mirrored == {True, False}


@pytest.mark.parametrize(("flip_prob", "step"), [(0.0, 1), (1.0, -1)])
def test_a_flip_mirrors_left_and_right(flip_prob: float, step: int) -> None:
    square = PIXELS[:, :60]
    augment = Augment(crop_area_min=1.0, crop_aspect_max=1.0, flip_prob=flip_prob)
    for seed in range(5):
        found = train_image(encoded(Image.fromarray(square)), 60, augment, random.Random(seed))
        assert np.array_equal(found, square[:, ::step])


GREY = PIXELS[:, :, 0]
SIXTEEN_BIT = (GREY.astype(np.uint16) << 8) + 77


@pytest.mark.parametrize(("image", "expected"), [
    (PICTURE, PIXELS),
    (Image.fromarray(GREY), np.stack([GREY] * 3, 2)),
    (Image.fromarray(SIXTEEN_BIT), np.stack([GREY] * 3, 2)),
    (PICTURE.convert("RGBA"), PIXELS),
    (Image.fromarray(GREY).convert("LA"), np.stack([GREY] * 3, 2)),
    (PICTURE.quantize(16), np.asarray(PICTURE.quantize(16).convert("RGB"))),
    (Image.fromarray(GREY > 127), np.stack([np.where(GREY > 127, 255, 0)] * 3, 2)),
], ids=["rgb", "grey", "grey 16 bit", "rgba", "grey + alpha", "palette", "1 bit"])  # fmt: skip
def test_every_kind_of_png_becomes_rgb(image: Image.Image, expected: NDArray[np.uint8]) -> None:
    found = open_image(encoded(image))
    assert found.mode == "RGB"
    assert np.array_equal(np.asarray(found), expected)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_every_kind_of_jpeg_becomes_rgb(mode: str) -> None:
    smooth = Image.linear_gradient("L").resize((64, 64)).convert("RGB").convert(mode)
    found = open_image(encoded(smooth, "JPEG"))
    assert found.mode == "RGB"
    difference = np.asarray(found, float) - np.asarray(smooth.convert("RGB"), float)
    assert np.abs(difference).max() < 12  # what JPEG takes, not a negative


def huge_png(side: int) -> bytes:
    """A valid header that claims ``side`` x ``side`` pixels, and hardly any bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8_193, 9_000, 20_000, 60_000])
def test_a_header_that_claims_too_many_pixels_is_refused_before_decoding(side: int) -> None:
    with pytest.raises(DataError, match="pixels"):
        open_image(huge_png(side))


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_other_formats_are_refused(kind: str) -> None:
    with pytest.raises(DataError, match="does not decode"):
        open_image(encoded(PICTURE, kind))


@pytest.mark.parametrize("data", [
    b"", b"this is a text\n" * 20, PNG[:8], PNG[:40], PNG[: len(PNG) // 2],
    encoded(PICTURE, "JPEG")[:100], encoded(PICTURE, "JPEG")[:-200],
], ids=["empty", "text", "signature", "header", "half png", "start of jpeg", "most of jpeg"])  # fmt: skip
def test_text_and_truncated_images_are_refused(data: bytes) -> None:
    with pytest.raises(DataError, match=f"image of {len(data)} bytes does not decode"):
        open_image(data)


def test_damaged_bytes_give_an_image_or_a_data_error_and_nothing_else() -> None:
    rng = random.Random(0)
    outcomes = {"image": 0, "error": 0}
    for original in (PNG, encoded(PICTURE, "JPEG"), encoded(PICTURE.convert("CMYK"), "JPEG")):
        for _ in range(100):
            data = bytearray(original)
            for _ in range(rng.randint(1, 4)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            try:
                open_image(bytes(data))
                outcomes["image"] += 1
            except DataError:
                outcomes["error"] += 1
    assert min(outcomes.values()) > 20
