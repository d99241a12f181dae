"""Decoding: boxes against Pillow, every format, and bytes that are not an image."""

import io
import random
import struct
import tarfile
import zlib
from typing import Any

import numpy as np
import pytest
from checkout import REAL_DATA
from matrix import with_slow_rest
from numpy.typing import NDArray
from PIL import Image

from infra.errors import ConfigError, DataError
from models.data.loading.auto_augment import Op, Ops
from models.data.loading.decode import BACKENDS, DecodeError, backends, fill
from models.data.shards.images import open_image

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
REAL = REAL_DATA / "imagenet" / "ILSVRC2012_img_train.tar"
AGREE_DB = 60.0  # maximum difference of the backends, from rounding
BICUBIC = Image.Resampling.BICUBIC


def filled(blob: bytes, box: tuple[int, ...], side: int, flip: bool = False, using: str | None = None) -> Any:
    if using and (state := backends()[using]) != "ok":
        pytest.skip(f"{using}: {state}")
    out = np.zeros((1, side, side, 3), np.uint8)
    fill(out, [blob], np.array([box], np.int32), np.array([flip]), None, using)
    return out[0]


def by_pillow(image: Image.Image, box: tuple[int, ...], side: int) -> NDArray[np.uint8]:
    part = image.convert("RGB").crop(box)
    return np.asarray(part.resize((side, part.height), BICUBIC).resize((side, side), BICUBIC))


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    squared = float(np.mean((a.astype(float) - b.astype(float)) ** 2))
    return 10 * float(np.log10(255**2 / squared)) if squared else 99.0


def test_a_bilinear_resize_is_pillow_s() -> None:
    for blob in (PNG, encoded(SMOOTH, "JPEG")):
        out = np.zeros((1, 24, 24, 3), np.uint8)
        box = (35, 15, 95, 55)
        fill(out, [blob], np.array([box], np.int32), np.array([False]), interpolation="bilinear")
        crop = open_image(blob).crop(box)
        expected = np.asarray(crop.resize((24, 24), Image.Resampling.BILINEAR))
        assert psnr(out[0], expected) >= AGREE_DB
        assert psnr(out[0], filled(blob, box, 24, using="pillow")) < AGREE_DB - 10


every_backend = pytest.mark.parametrize("using", BACKENDS)


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("using", ["native", "pillow"])
def test_a_png_is_pillow_s_own_crop_and_resize(box: tuple[int, ...], using: str) -> None:
    assert np.array_equal(filled(PNG, box, 32, using=using), by_pillow(PICTURE, box, 32))


@every_backend
def test_a_flip_mirrors_left_and_right(using: str) -> None:
    jpeg = encoded(SMOOTH, "JPEG")
    plain, mirrored = filled(jpeg, (3, 5, 90, 60), 40, False, using), filled(jpeg, (3, 5, 90, 60), 40, True, using)
    assert np.array_equal(mirrored, plain[:, ::-1])


@every_backend
@pytest.mark.parametrize("side", [17, 64, 224])
@pytest.mark.parametrize("kind", with_slow_rest(["4:4:4", "4:2:2", "4:2:0", "progressive", "grey"]))
def test_every_backend_gives_pillow_s_pixels_for_any_box(kind: str, side: int, using: str) -> None:
    how: dict[str, Any] = {"progressive": True} if kind == "progressive" else {"subsampling": kind}
    buffer = io.BytesIO()
    (SMOOTH.convert("L") if kind == "grey" else SMOOTH).save(
        buffer, "JPEG", quality=92, **({} if kind == "grey" else how)
    )
    rng = random.Random(side)
    for _ in range(10):
        left, top = rng.randrange(0, 180), rng.randrange(0, 130)
        box = (left, top, rng.randrange(left + 2, 201), rng.randrange(top + 2, 151))
        pixels = filled(buffer.getvalue(), box, side, using=using)
        assert psnr(pixels, by_pillow(Image.open(buffer), box, side)) > AGREE_DB


@pytest.mark.skipif(not REAL.exists(), reason=f"no real images: {REAL.name} is not beside the checkout")
@pytest.mark.parametrize("using", with_slow_rest(["native", "simplejpeg"]))
def test_real_images_have_pillow_s_pixels(using: str) -> None:
    agree, plain = [], []
    for data in real_images(60):
        image = open_image(data)
        box = (image.width // 7, image.height // 9, image.width - 3, image.height - image.height // 5)
        opened = filled(data, box, 224, using=using)
        agree.append(psnr(opened, by_pillow(image, box, 224)))
        plain.append(psnr(opened, np.asarray(image.crop(box).resize((224, 224), BICUBIC))))
    assert len(agree) == 60
    assert min(agree) > AGREE_DB
    assert min(plain) > 50  # Pillow 13 resizes tall boxes vertically first


def real_images(count: int) -> list[bytes]:
    blobs = []
    with tarfile.open(REAL) as outer:
        for member in outer.getmembers()[:count]:
            with tarfile.open(fileobj=outer.extractfile(member)) as inner:
                file = inner.extractfile(inner.getmembers()[0])
                assert file is not None
                blobs.append(file.read())
    return blobs


@every_backend
@pytest.mark.parametrize("blob", [b"", b"text", encoded(PICTURE, "JPEG")[:-400], PNG[:90]])
def test_the_image_of_a_chunk_that_does_not_decode_is_named(blob: bytes, using: str) -> None:
    out = np.zeros((3, 8, 8, 3), np.uint8)
    boxes = np.array([[0, 0, 100, 60]] * 3, np.int32)
    with pytest.raises(DecodeError) as raised:
        fill(out, [PNG, encoded(PICTURE, "JPEG"), blob], boxes, np.zeros(3, np.bool_), None, using)
    assert raised.value.index == 2
    assert "does not decode" in raised.value.reason


@every_backend
@pytest.mark.parametrize("blob", [PNG, encoded(PICTURE, "JPEG")])
@pytest.mark.parametrize("box", [(0, 0, 101, 60), (-1, 0, 5, 5), (5, 5, 5, 9), (0, 0, 100, 61)])
def test_a_box_outside_the_image_is_refused(box: tuple[int, ...], blob: bytes, using: str) -> None:
    with pytest.raises(DecodeError, match=r"box \(.* 100 x 60 pixels"):
        filled(blob, box, 16, using=using)


@every_backend
def test_operations_are_applied_last_and_identically_by_every_backend(using: str) -> None:
    ops = Ops(np.array([[Op.INVERT, Op.POSTERIZE]], np.int32), np.array([[[0, 0, 0], [3, 0, 0]]], np.float32))
    blob, box, flips = encoded(SMOOTH, "JPEG"), (3, 5, 90, 60), np.array([True])
    plain = filled(blob, box, 40, flip=True, using=using)
    out = np.zeros((1, 40, 40, 3), np.uint8)
    fill(out, [blob], np.array([box], np.int32), flips, ops, using)
    assert np.array_equal(out[0], (255 - plain) & 0b11100000)


def test_an_unknown_backend_is_refused_by_name() -> None:
    out = np.zeros((1, 8, 8, 3), np.uint8)
    with pytest.raises(ConfigError, match="fast"):
        fill(out, [PNG], np.array([[0, 0, 9, 9]], np.int32), np.array([False]), None, "fast")


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((1, 8, 9, 3), np.uint8),
        np.zeros((1, 8, 8, 3)),
        np.zeros((2, 8, 8, 3), np.uint8),
        np.zeros((1, 3, 8, 8), np.uint8).transpose(0, 2, 3, 1),
    ],
    ids=["not square", "float", "two images", "planes"],
)
def test_an_output_of_another_shape_type_or_layout_is_refused(out: Any) -> None:
    with pytest.raises(ValueError, match="out must be"):
        fill(out, [PNG], np.array([[0, 0, 9, 9]], np.int32), np.array([False]))


def jpeg(image: Image.Image, **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, **how)
    return buffer.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: rotated by 90 degrees
    return jpeg(SMOOTH, exif=exif)


def with_segments(blob: bytes, body: bytes, count: int) -> bytes:
    segment = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    return blob[:2] + segment * count + blob[2:]


def claiming(blob: bytes, width: int, height: int) -> bytes:
    """Returns a JPEG whose header states another size."""
    at = blob.index(b"\xff\xc0") + 5
    return blob[:at] + struct.pack(">HH", height, width) + blob[at + 4 :]


ALPHA = SMOOTH.quantize(16)
ALPHA.info["transparency"] = bytes(range(0, 160, 10))
SIXTEEN = Image.fromarray(np.asarray(SMOOTH.convert("L")).astype(np.uint16) << 8)
GOOD = {
    "cmyk": (jpeg(SMOOTH.convert("CMYK")), SMOOTH),
    "png as jpeg": (encoded(SMOOTH), SMOOTH),
    "grey": (jpeg(SMOOTH.convert("L")), SMOOTH.convert("L")),
    "16 bit png": (encoded(SIXTEEN), SMOOTH.convert("L")),
    "palette and alpha": (encoded(ALPHA), ALPHA.convert("RGBA")),
    "1 x 1": (jpeg(SMOOTH.resize((1, 1))), SMOOTH.resize((1, 1))),
    "progressive": (jpeg(SMOOTH, progressive=True), SMOOTH),
    "orientation 6": (turned(), SMOOTH),
    "10 MB of EXIF": (with_segments(jpeg(SMOOTH), b"Exif\0\0" + b"MM\0*" + b"\0" * 65_000, 160), SMOOTH),
    "lying EXIF": (
        with_segments(jpeg(SMOOTH), b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x87\x69\0\x04\xff\xff\xff\xff", 1),
        SMOOTH,
    ),
    "bytes after the end": (jpeg(SMOOTH) + b"\0" * 5000, SMOOTH),
}
BAD = {
    "cut at 50 %": jpeg(SMOOTH)[: len(jpeg(SMOOTH)) // 2],
    "without its last two bytes": jpeg(SMOOTH)[:-2],
    "progressive, cut": jpeg(SMOOTH, progressive=True)[:-2000],
    "empty": b"",
    "text": b"this is a text\n" * 20,
    "jpeg bomb": claiming(jpeg(SMOOTH), 65_000, 65_000),
    "just too large": claiming(jpeg(SMOOTH), 8_193, 8_193),
}


@every_backend
@pytest.mark.parametrize("name", GOOD)
def test_every_backend_gives_the_same_pixels_for_unusual_images(name: str, using: str) -> None:
    blob, expected = GOOD[name]
    width, height = expected.size
    box = (width // 5, height // 5, width, height)
    pixels = filled(blob, box, 40, using=using)
    assert psnr(pixels, by_pillow(expected, box, 40)) > 30  # loss of JPEG
    assert psnr(pixels, filled(blob, box, 40, using="pillow")) > AGREE_DB


@every_backend
@pytest.mark.parametrize("name", BAD)
def test_every_backend_refuses_the_same_files(name: str, using: str) -> None:
    with pytest.raises(DecodeError, match=r"does not decode|pixels, more than"):
        filled(BAD[name], (0, 0, 2, 2), 8, using=using)  # a box whose pixels exist even in a truncated file


@every_backend
def test_damaged_jpegs_give_an_image_or_a_decode_error_and_nothing_else(using: str) -> None:
    rng = random.Random(1)
    original, outcomes = encoded(SMOOTH, "JPEG"), {"image": 0, "error": 0}
    for _ in range(200):
        data = bytearray(original)
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            end = len(data) if rng.random() < 0.5 else rng.randint(len(data) // 2, len(data))
            filled(bytes(data[:end]), (10, 10, 180, 140), 48, using=using)
            outcomes["image"] += 1
        except DecodeError:
            outcomes["error"] += 1
    assert min(outcomes.values()) > 5


GREY = PIXELS[:, :, 0]
SIXTEEN_BIT = (GREY.astype(np.uint16) << 8) + 77


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (PICTURE, PIXELS),
        (Image.fromarray(GREY), np.stack([GREY] * 3, 2)),
        (Image.fromarray(SIXTEEN_BIT), np.stack([GREY] * 3, 2)),
        (PICTURE.convert("RGBA"), PIXELS),
        (Image.fromarray(GREY).convert("LA"), np.stack([GREY] * 3, 2)),
        (PICTURE.quantize(16), np.asarray(PICTURE.quantize(16).convert("RGB"))),
        (Image.fromarray(GREY > 127), np.stack([np.where(GREY > 127, 255, 0)] * 3, 2)),
    ],
    ids=["rgb", "grey", "grey 16 bit", "rgba", "grey + alpha", "palette", "1 bit"],
)
def test_every_kind_of_png_becomes_rgb(image: Image.Image, expected: NDArray[np.uint8]) -> None:
    opened = open_image(encoded(image))
    assert opened.mode == "RGB"
    assert np.array_equal(np.asarray(opened), expected)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_every_kind_of_jpeg_becomes_rgb(mode: str) -> None:
    smooth = Image.linear_gradient("L").resize((64, 64)).convert("RGB").convert(mode)
    opened = open_image(encoded(smooth, "JPEG"))
    assert opened.mode == "RGB"
    difference = np.asarray(opened, float) - np.asarray(smooth.convert("RGB"), float)
    assert np.abs(difference).max() < 12  # loss of JPEG; a negative would differ more


def huge_png(side: int) -> bytes:
    """Returns a valid header that states ``side`` x ``side`` pixels, with hardly any data."""

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


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"this is a text\n" * 20,
        PNG[:8],
        PNG[:40],
        PNG[: len(PNG) // 2],
        encoded(PICTURE, "JPEG")[:100],
        encoded(PICTURE, "JPEG")[:-200],
    ],
    ids=["empty", "text", "signature", "header", "half png", "start of jpeg", "most of jpeg"],
)
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
