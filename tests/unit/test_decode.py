"""Boxes against Pillow, formats by name, and bytes that are no photograph."""

import io
import random
import struct
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from infra.errors import DataError
from models.data.decode import DecodeError, backends, fill, open_image

RNG = np.random.default_rng(0)
PIXELS: NDArray[np.uint8] = RNG.integers(0, 256, (60, 100, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


PICTURE = Image.fromarray(PIXELS)
PNG = encoded(PICTURE)
SMOOTH = Image.fromarray(RNG.integers(0, 256, (15, 20, 3), dtype=np.uint8)).resize((200, 150), Image.Resampling.BICUBIC)


BOXES = [(0, 0, 100, 60), (35, 15, 65, 45), (1, 3, 98, 50), (60, 20, 61, 21), (50, 0, 100, 60)]


def filled(blob: bytes, box: tuple[int, ...], side: int, flip: bool = False, using: str | None = None) -> Any:
    out = np.zeros((1, side, side, 3), np.uint8)
    fill(out, [blob], np.array([box], np.int32), np.array([flip]), None, using)
    return out[0]


def by_pillow(image: Image.Image, box: tuple[int, ...], side: int) -> NDArray[np.uint8]:
    return np.asarray(image.convert("RGB").crop(box).resize((side, side), Image.Resampling.BICUBIC))


def needs_native() -> None:
    if backends()["native"] != "ok":
        pytest.skip(f"native decoder: {backends()['native']}")


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("using", [None, "pillow"])
def test_an_image_is_pillow_s_own_crop_and_resize(box: tuple[int, ...], using: str | None) -> None:
    assert np.array_equal(filled(PNG, box, 32, using=using), by_pillow(PICTURE, box, 32))


@pytest.mark.parametrize("using", [None, "pillow"])
def test_a_flip_mirrors_left_and_right(using: str | None) -> None:
    jpeg = encoded(SMOOTH, "JPEG")
    plain, mirrored = filled(jpeg, (3, 5, 90, 60), 40, False, using), filled(jpeg, (3, 5, 90, 60), 40, True, using)
    assert np.array_equal(mirrored, plain[:, ::-1])


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    squared = float(np.mean((a.astype(float) - b.astype(float)) ** 2))
    return 10 * float(np.log10(255**2 / squared)) if squared else 99.0


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("side", [17, 64, 224])
def test_the_native_decoder_gives_pillow_s_pixels_for_any_box(subsampling: int, progressive: bool, side: int) -> None:
    needs_native()
    buffer = io.BytesIO()
    SMOOTH.save(buffer, "JPEG", quality=92, subsampling=subsampling, progressive=progressive)
    decoded = Image.open(buffer).convert("RGB")
    rng = random.Random(side)
    for _ in range(20):
        left, top = rng.randrange(0, 180), rng.randrange(0, 130)
        box = (left, top, rng.randrange(left + 2, 201), rng.randrange(top + 2, 151))
        found = filled(buffer.getvalue(), box, side, using="native")
        assert psnr(found, by_pillow(decoded, box, side)) > 50


REAL = Path(__file__).parents[2].parent / "shared" / "data" / "imagenet" / "ILSVRC2012_img_train.tar"


@pytest.mark.skipif(not REAL.exists(), reason="no real images beside the checkout")
def test_the_native_decoder_gives_pillow_s_pixels_on_real_images() -> None:
    needs_native()
    found = []
    with tarfile.open(REAL) as outer:
        for member in outer.getmembers()[:100]:
            inner = outer.extractfile(member)
            assert inner is not None
            with tarfile.open(fileobj=inner) as classes:
                file = classes.extractfile(classes.getmembers()[0])
                assert file is not None
                data = file.read()
            image = open_image(data)
            box = (image.width // 7, image.height // 9, image.width - 3, image.height - image.height // 5)
            found.append(psnr(filled(data, box, 224, using="native"), by_pillow(image, box, 224)))
    assert len(found) == 100
    assert min(found) > 50


@pytest.mark.parametrize("using", [None, "pillow"])
@pytest.mark.parametrize("blob", [b"", b"text", encoded(PICTURE, "JPEG")[:-400], PNG[:90]])
def test_the_image_of_a_chunk_that_does_not_decode_is_named(blob: bytes, using: str | None) -> None:
    out = np.zeros((3, 8, 8, 3), np.uint8)
    boxes = np.array([[0, 0, 100, 60]] * 3, np.int32)
    with pytest.raises(DecodeError) as raised:
        fill(out, [PNG, encoded(PICTURE, "JPEG"), blob], boxes, np.zeros(3, np.bool_), None, using)
    assert raised.value.index == 2


@pytest.mark.parametrize("using", [None, "pillow"])
@pytest.mark.parametrize("blob", [PNG, encoded(PICTURE, "JPEG")])
@pytest.mark.parametrize("box", [(0, 0, 101, 60), (-1, 0, 5, 5), (5, 5, 5, 9), (0, 0, 100, 61)])
def test_a_box_outside_the_image_is_refused(box: tuple[int, ...], blob: bytes, using: str | None) -> None:
    with pytest.raises(DecodeError, match="100 x 60"):
        filled(blob, box, 16, using=using)


def test_damaged_jpegs_never_break_the_native_decoder() -> None:
    needs_native()
    rng = random.Random(1)
    original, outcomes = encoded(SMOOTH, "JPEG"), {"image": 0, "error": 0}
    for _ in range(400):
        data = bytearray(original)
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            end = len(data) if rng.random() < 0.5 else rng.randint(len(data) // 2, len(data))
            filled(bytes(data[:end]), (10, 10, 180, 140), 48, using="native")
            outcomes["image"] += 1
        except DecodeError:
            outcomes["error"] += 1
    assert min(outcomes.values()) > 5


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
