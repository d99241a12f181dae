"""The C decoder: decoding a part equals cropping the whole image bit for bit, and no input crashes it."""

import ctypes
import io
import os
import subprocess
import sys
import tarfile
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkout import REAL_DATA, ROOT
from matrix import with_slow_rest
from numpy.typing import NDArray
from PIL import Image

from models.data.loading import native
from models.data.loading.native import DONE, NOT_OURS, OUTSIDE, Native

REAL = REAL_DATA / "imagenet" / "ILSVRC2012_img_train.tar"
RNG = np.random.default_rng(0)
NOISE: NDArray[np.uint8] = RNG.integers(0, 256, (119, 149, 3), dtype=np.uint8)  # not a multiple of the block size


def jpeg(pixels: NDArray[np.uint8], **how: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **how)
    return buffer.getvalue()


@pytest.fixture
def decoder() -> Iterator[Native]:
    try:
        loaded = native.load()
    except OSError as error:
        pytest.skip(f"the C decoder does not work here: {error}")
    yield loaded
    loaded.use_vectors(512)


def square(decoder: Native, blob: bytes, box: tuple[int, ...], side: int, flip: bool = False) -> NDArray[np.uint8]:
    out = np.zeros((1, side, side, 3), np.uint8)
    status, _ = decoder.fill(out, [blob], np.array([box], np.int32), np.array([flip]), None)
    assert status[0] == DONE
    pixels: NDArray[np.uint8] = out[0]
    return pixels


def require_equal_parts(decoder: Native, blob: bytes, tries: int) -> None:
    """Boxes of the size of the output are not resized, so they show the decoded pixels."""
    whole = np.asarray(Image.open(io.BytesIO(blob)).convert("RGB"))
    height, width = whole.shape[:2]
    for _ in range(tries):
        side = int(RNG.integers(1, min(width, height) + 1))
        left, top = int(RNG.integers(0, width - side + 1)), int(RNG.integers(0, height - side + 1))
        pixels = square(decoder, blob, (left, top, left + side, top + side), side)
        assert np.array_equal(pixels, whole[top : top + side, left : left + side]), (width, height, left, top, side)


@pytest.mark.parametrize("how", [{}, {"progressive": True}, {"restart_marker_blocks": 3}], ids=str)
@pytest.mark.parametrize("subsampling", with_slow_rest(["4:2:0", "4:2:2", "4:4:4"]))
@pytest.mark.parametrize("size", [(119, 149), (16, 16), (7, 5), (1, 1), (2, 40), (40, 2)], ids=str)
def test_a_part_is_the_part_of_a_full_decode(
    decoder: Native, size: tuple[int, int], subsampling: str, how: dict[str, Any]
) -> None:
    require_equal_parts(decoder, jpeg(NOISE[: size[0], : size[1]], subsampling=subsampling, **how), 15)


@pytest.mark.parametrize("how", [{}, {"progressive": True}], ids=str)
def test_a_part_of_a_grey_image_is_the_part_of_a_full_decode(decoder: Native, how: dict[str, Any]) -> None:
    require_equal_parts(decoder, jpeg(NOISE[:, :, 0], **how), 20)


@pytest.mark.parametrize("subsampling", ["440", "411"])
def test_a_part_is_the_part_of_a_full_decode_with_rare_subsamplings(decoder: Native, subsampling: str) -> None:
    simplejpeg = pytest.importorskip("simplejpeg")
    require_equal_parts(decoder, simplejpeg.encode_jpeg(NOISE, colorsubsampling=subsampling), 20)


@pytest.mark.slow
@pytest.mark.skipif(not REAL.exists(), reason=f"no real images: {REAL.name} is not beside the checkout")
def test_a_part_of_a_real_image_is_the_part_of_a_full_decode(decoder: Native) -> None:
    with tarfile.open(REAL) as outer:
        for member in outer.getmembers()[100:200]:
            with tarfile.open(fileobj=outer.extractfile(member)) as inner:
                file = inner.extractfile(inner.getmembers()[0])
                assert file is not None
                require_equal_parts(decoder, file.read(), 3)


@pytest.mark.parametrize("side", [1, 2, 3, 10, 11, 31, 64, 224])
def test_every_width_of_vectors_gives_the_same_bytes(decoder: Native, side: int) -> None:
    blob = jpeg(NOISE)
    for box in [(0, 0, 149, 119), (3, 5, 9, 100), (20, 30, 140, 33), (148, 118, 149, 119), (10, 10, 70, 69)]:
        for flip in (False, True):
            decoder.use_vectors(0)
            plain = square(decoder, blob, box, side, flip)
            for bits in (256, 512):
                decoder.use_vectors(bits)
                assert np.array_equal(square(decoder, blob, box, side, flip), plain), (box, flip, bits)


@pytest.mark.parametrize("side", [8, 31, 160])
def test_every_width_of_vectors_gives_the_same_bytes_from_a_column_to_four_times_the_side(
    decoder: Native, side: int
) -> None:
    """Every number of taps and distance of inputs; for 160 of 321 pixels, weights that do not fit two bytes."""
    noise = RNG.integers(0, 256, (2, 4 * side + 9, 3), dtype=np.uint8)
    blob = jpeg(noise, subsampling="4:4:4")
    for width in [*range(1, noise.shape[1] + 1, max(1, side // 31)), 2 * side + 1]:
        left = int(RNG.integers(0, noise.shape[1] - width + 1))
        decoder.use_vectors(256)
        expected = square(decoder, blob, (left, 0, left + width, 2), side)
        decoder.use_vectors(512)
        assert np.array_equal(square(decoder, blob, (left, 0, left + width, 2), side), expected), (left, width)


@pytest.mark.parametrize("side", [1, 2, 5, 33, 224])
@pytest.mark.parametrize("box", [(0, 0, 149, 119), (3, 5, 9, 100), (148, 118, 149, 119), (10, 10, 70, 69)])
def test_the_resize_equals_pillow_s_up_to_rounding_even_on_noise(
    decoder: Native, box: tuple[int, int, int, int], side: int
) -> None:
    blob = jpeg(NOISE)
    part = Image.open(io.BytesIO(blob)).crop(box)
    wide = part.resize((side, part.height), Image.Resampling.BICUBIC)
    expected = np.asarray(wide.resize((side, side), Image.Resampling.BICUBIC)).astype(int)
    difference = np.abs(square(decoder, blob, box, side) - expected)
    assert difference.max() <= 2  # one per pass
    assert np.mean(difference != 0) < 0.04


def test_images_of_a_chunk_are_independent(decoder: Native) -> None:
    blobs = [
        jpeg(NOISE),
        b"text",
        jpeg(NOISE[:50, :60], subsampling="4:4:4"),
        jpeg(NOISE[:, :, 0]),
        jpeg(NOISE[:9, :9]),
    ]
    boxes = np.array([(0, 0, 149, 119), (0, 0, 9, 9), (3, 3, 60, 50), (7, 0, 140, 119), (0, 0, 10, 9)], np.int32)
    out = np.zeros((5, 48, 48, 3), np.uint8)
    status, header_sizes = decoder.fill(out, blobs, boxes, np.zeros(5, np.bool_), None)
    assert status.tolist() == [DONE, NOT_OURS, DONE, DONE, OUTSIDE]
    assert header_sizes[[0, 2, 3, 4]].tolist() == [[149, 119], [60, 50], [149, 119], [9, 9]]
    for index in (0, 2, 3):
        assert np.array_equal(out[index], square(decoder, blobs[index], tuple(boxes[index].tolist()), 48))


def test_a_jpeg_without_tables_does_not_use_those_of_another_image(decoder: Native) -> None:
    whole = jpeg(NOISE, quality=30)
    at = whole.index(b"\xff\xdb")
    bare = whole[:at] + whole[whole.index(b"\xff\xc0") :]  # no quantisation tables
    out = np.zeros((2, 8, 8, 3), np.uint8)
    boxes = np.array([[0, 0, 100, 100]] * 2, np.int32)
    status, _ = decoder.fill(out, [whole, bare], boxes, np.zeros(2, np.bool_), None)
    assert status.tolist() == [DONE, NOT_OURS]


def test_other_threads_run_while_a_chunk_is_decoded(decoder: Native) -> None:
    count, side = 200, 224
    work = ([jpeg(NOISE)] * count, np.array([[0, 0, 149, 119]] * count, np.int32), np.zeros(count, np.bool_))
    out = np.zeros((count, side, side, 3), np.uint8)
    thread = threading.Thread(target=decoder.fill, args=(out, *work, None))
    thread.start()
    turns = 0
    while thread.is_alive():
        turns += 1
    assert turns > 1000


@pytest.mark.parametrize("path", native.libjpegs())
def test_every_loadable_libjpeg_gives_the_same_pixels(decoder: Native, path: str) -> None:
    expected = square(decoder, jpeg(NOISE), (10, 11, 140, 112), 64)
    reason = ctypes.create_string_buffer(200)
    if decoder.library.effnet_open_jpeg(path.encode(), reason, 200):
        pytest.skip(reason.value.decode())
    try:
        pixels = square(decoder, jpeg(NOISE), (10, 11, 140, 112), 64)
    finally:
        for other in native.libjpegs():  # the library in use is restored at the end
            if decoder.library.effnet_open_jpeg(other.encode(), reason, 200) == 0:
                break
    assert np.array_equal(pixels, expected)


@pytest.mark.parametrize(("paths", "reason"), [(["absent.so"], "absent.so"), (["libm.so.6"], "has no jpeg_"), ([], "")])
def test_without_a_libjpeg_the_reason_is_reported(
    decoder: Native, monkeypatch: pytest.MonkeyPatch, paths: list[str], reason: str
) -> None:
    monkeypatch.setattr(native, "libjpegs", lambda: paths)
    reason_text = native._load_once.__wrapped__()
    assert isinstance(reason_text, str)
    assert reason in reason_text
    assert square(decoder, jpeg(NOISE), (0, 0, 9, 9), 9).any()  # the library in use is unchanged


def test_without_the_built_library_the_remedy_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(native, "__file__", str(tmp_path / "__init__.py"))
    assert "compiler" in str(native._load_once.__wrapped__())


def test_without_a_compiler_the_installation_continues(tmp_path: Path) -> None:
    command = [sys.executable, "setup.py", "-q", "build_ext", f"--build-lib={tmp_path}", f"--build-temp={tmp_path}"]
    environment = os.environ | {"CC": "/bin/false", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "_effnet" in done.stderr  # the build was attempted
    assert not list(tmp_path.rglob("*.so"))


def test_the_entropy_decoder_accepts_only_jpegs(decoder: Native) -> None:
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, "PNG")
    assert decoder.entropy_decode(jpeg(NOISE))
    assert not decoder.entropy_decode(buffer.getvalue())


FUZZ = """
    import io, random
    import numpy as np
    from PIL import Image
    from models.data.loading import native
    decoder, rng, originals = native.load(), random.Random(0), []
    picture = Image.effect_noise((90, 70), 60).convert("RGB")
    for how in ({}, {"progressive": True}, {"restart_marker_blocks": 2}):
        for subsampling in (0, 1, 2):
            buffer = io.BytesIO()
            picture.save(buffer, "JPEG", subsampling=subsampling, **how)
            originals.append(buffer.getvalue())
    seen = [0, 0, 0]
    for _ in range(2000):
        data = bytearray(rng.choice(originals))
        for _ in range(rng.randint(0, 8)):
            data[rng.randrange(len(data) if rng.random() < 0.5 else 650)] = rng.randrange(256)
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)):]
        elif rng.random() < 0.3:
            start = rng.randrange(len(data))
            del data[start : start + rng.randrange(300)]
        left, top, side = rng.randrange(90), rng.randrange(70), rng.choice([1, 7, 64])
        box = [left, top, rng.randint(left, 91), rng.randint(top, 71)]
        out = np.zeros((1, side, side, 3), np.uint8)
        status, _ = decoder.fill(out, [bytes(data)], np.array([box], np.int32), np.zeros(1, bool), None)
        seen[status[0]] += 1
    print(*seen)
"""


def test_damaged_bytes_never_crash_the_process(decoder: Native) -> None:
    script = textwrap.dedent(FUZZ)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    counts = [int(word) for word in done.stdout.split()]
    assert sum(counts) == 2000
    assert min(counts) > 50
