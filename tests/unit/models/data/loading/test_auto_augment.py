"""Policies compared with their sources, draws with their probabilities, the C operations bit by bit with Pillow's."""

import ctypes
import io
import math
import re
import tarfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from checkout import REAL_DATA, ROOT
from matrix import with_slow_rest
from numpy.typing import NDArray
from PIL import Image

from conf.schema import Augment
from models.data.loading.auto_augment import Ops, draws, sample_ops
from models.data.loading.decode import backends, fill
from models.data.loading.pillow_ops import apply_pillow
from models.data.loading.policies import IMAGENET, RANDAUGMENT, RANGES, SIGNED, V0, Op, Policy, magnitude
from models.data.loading.randomness import uniforms

VAL_TAR = REAL_DATA / "imagenet" / "ILSVRC2012_img_val.tar"
SIDES = (24, 63, 224, 300)
FACTORS = (0.0, 0.1, 0.28, 0.46, 0.64, 0.73, 1.0, 1.18, 1.54, 1.72, 1.9, 3.16, 5.14, 5.5)
PIXELS = (0.0, 9.0, -9.0, 90.0, -90.0, 225.0, -225.0, 7.5, -7.5, 0.5, -0.5, 31.7, -31.7)
SHEARS = (0.0, 0.09, -0.12, 0.21, -0.27, 0.3, -0.3, 0.51, -0.84, 0.9)
VALUES: dict[Op, tuple[float, ...]] = {
    Op.ROTATE: (0.0, 3.0, -6.0, 15.0, 21.0, -24.0, 27.0, 30.0, -30.0, 45.5, 51.0, -84.0, 90.0, 180.0, 270.0, 1e-9),
    Op.POSTERIZE: tuple(range(1, 9)),
    Op.SOLARIZE: (0, 51, 76, 128, 204, 255, 256),
    Op.SOLARIZE_ADD: (0, 33, 77, 110, 127, 128, 187, 307),
    Op.SHEAR_X: SHEARS,
    Op.SHEAR_Y: SHEARS,
    Op.TRANSLATE_X: PIXELS,
    Op.TRANSLATE_Y: PIXELS,
    Op.CUTOUT: (0, 4, 36, 68, 100, 112),
} | dict.fromkeys((Op.COLOR, Op.CONTRAST, Op.BRIGHTNESS, Op.SHARPNESS), FACTORS)


def some_uniforms(augment: Augment, n: int) -> NDArray[np.float64]:
    return uniforms(seed=7, epoch=0, ids=np.arange(n, dtype=np.int64), draws=draws(augment))


def sampled(augment: Augment, n: int, side: int = 224) -> Ops:
    ops = sample_ops(augment, some_uniforms(augment, n), side)
    assert ops is not None
    return ops


# ---------------------------------------------------------------------------------------------------- tables


@pytest.mark.parametrize("policy", [V0, IMAGENET])
def test_a_policy_is_twenty_five_pairs_with_probabilities_and_levels(policy: Policy) -> None:
    assert [len(pair) for pair in policy] == [2] * 25
    assert all(0 <= prob <= 1 and 0 <= level <= 10 for pair in policy for _, prob, level in pair)


def test_rows_of_v0_are_those_of_the_official_code() -> None:
    assert V0[0] == ((Op.EQUALIZE, 0.8, 1), (Op.SHEAR_Y, 0.8, 4))
    assert V0[6] == ((Op.EQUALIZE, 0.4, 8), (Op.SOLARIZE_ADD, 0.8, 3))
    assert V0[15] == ((Op.ROTATE, 1.0, 7), (Op.TRANSLATE_Y, 0.8, 9))
    assert V0[22] == ((Op.POSTERIZE, 0.8, 2), (Op.SOLARIZE, 0.6, 10))
    assert V0[24] == ((Op.COLOR, 0.8, 6), (Op.ROTATE, 0.4, 5))


def test_rows_of_the_published_policy_are_those_of_its_table_9() -> None:
    assert IMAGENET[0] == ((Op.POSTERIZE, 0.4, 8), (Op.ROTATE, 0.6, 9))
    assert IMAGENET[14] == ((Op.COLOR, 0.6, 4), (Op.CONTRAST, 1.0, 8))
    assert IMAGENET[18] == ((Op.SHEAR_X, 0.6, 5), (Op.EQUALIZE, 1.0, 9))
    assert IMAGENET[24] == ((Op.EQUALIZE, 0.8, 8), (Op.EQUALIZE, 0.6, 3))


def test_randaugment_has_the_sixteen_operations_of_the_official_code() -> None:
    assert len(RANDAUGMENT) == 16
    assert RANDAUGMENT[0] is Op.AUTOCONTRAST
    assert RANDAUGMENT[-1] is Op.SOLARIZE_ADD


@pytest.mark.parametrize(
    ("op", "level", "policy", "side", "expected"),
    [
        (Op.COLOR, 0, "v0", 224, 0.1),
        (Op.SHARPNESS, 10, "randaugment", 224, 1.9),
        (Op.SHEAR_X, 9, "v0", 224, 0.27),
        (Op.ROTATE, 7, "v0", 224, 21.0),
        (Op.SOLARIZE, 3, "v0", 224, 76.0),
        (Op.SOLARIZE, 10, "v0", 224, 0.0),
        (Op.SOLARIZE, 10, "randaugment", 224, 0.0),
        (Op.SOLARIZE, 17, "randaugment", 224, 179.0),
        (Op.SOLARIZE, 28, "randaugment", 224, 204.0),
        (Op.POSTERIZE, 17, "randaugment", 224, 6.0),
        (Op.POSTERIZE, 20, "randaugment", 224, 8.0),
        (Op.POSTERIZE, 28, "randaugment", 224, 1.0),
        (Op.ROTATE, 28, "randaugment", 224, 84.0),
        (Op.SHARPNESS, 28, "randaugment", 224, 5.14),
        (Op.TRANSLATE_X, 28, "randaugment", 224, 280.0),
        (Op.CUTOUT, 28, "randaugment", 224, 112.0),
        (Op.SOLARIZE_ADD, 7, "v0", 224, 77.0),
        (Op.POSTERIZE, 6, "v0", 224, 2.0),
        (Op.POSTERIZE, 2, "v0", 224, 1.0),
        (Op.POSTERIZE, 8, "imagenet", 224, 7.0),
        (Op.POSTERIZE, 5, "imagenet", 224, 6.0),
        (Op.TRANSLATE_Y, 9, "v0", 224, 225.0),
        (Op.TRANSLATE_Y, 9, "v0", 600, 225.0),
        (Op.TRANSLATE_Y, 9, "v0", 56, 56.25),
        (Op.TRANSLATE_X, 9, "randaugment", 224, 90.0),
        (Op.CUTOUT, 9, "randaugment", 224, 36.0),
        (Op.CUTOUT, 9, "randaugment", 28, 4.0),
        (Op.EQUALIZE, 9, "v0", 224, 0.0),
    ],
)
def test_levels_map_to_the_values_of_the_sources(op: Op, level: int, policy: str, side: int, expected: float) -> None:
    assert magnitude(op, level, RANGES[policy], side) == pytest.approx(expected)


def test_the_c_code_uses_the_same_operation_numbers() -> None:
    text = (ROOT / "models" / "data" / "loading" / "native" / "ops.c").read_text()
    block = re.search(r"enum \{[^\n]*Op \*/(.*?)\}", text, re.DOTALL)
    assert block is not None
    assert re.findall(r"\w+", block.group(1)) == [op.name for op in Op]


# ---------------------------------------------------------------------------------------------------- draws


def test_without_a_policy_no_random_numbers_are_needed() -> None:
    assert draws(Augment()) == 0
    assert sample_ops(Augment(), np.zeros((5, 0)), 224) is None


@pytest.mark.parametrize(("policy", "table"), [("v0", V0), ("imagenet", IMAGENET)])
def test_operations_have_the_probabilities_of_the_table(policy: str, table: Policy) -> None:
    n = 200_000
    codes = sampled(Augment(policy=policy), n).codes
    for place in (0, 1):
        for op in RANDAUGMENT:
            expected = sum(pair[place][1] for pair in table if pair[place][0] is op) / len(table)
            share = float((codes[:, place] == op).mean())
            assert abs(share - expected) <= 4.5 * math.sqrt(expected * (1 - expected) / n), (op, place)


def test_the_two_operations_of_a_pair_are_independent() -> None:
    n = 200_000
    codes = sampled(Augment(policy="v0"), n).codes
    both = float(((codes[:, 0] == Op.EQUALIZE) & (codes[:, 1] == Op.SHEAR_Y)).mean())
    expected = (0.8 * 0.8 + 1.0 * 0.6) / 25
    assert abs(both - expected) < 4.5 * math.sqrt(expected * (1 - expected) / n)


def test_every_layer_of_randaugment_draws_the_operations_uniformly() -> None:
    n = 100_000
    codes = sampled(Augment(policy="randaugment", randaugment_layers=3), n).codes
    assert codes.shape == (n, 3)
    shares = np.stack([(codes == op).mean(0) for op in RANDAUGMENT])
    assert np.abs(shares - 1 / 16).max() < 4.5 * math.sqrt(15 / 256 / n)


@pytest.mark.parametrize("policy", ["v0", "imagenet", "randaugment"])
def test_only_geometric_operations_have_a_sign_that_is_negative_half_of_the_time(policy: str) -> None:
    ops = sampled(Augment(policy=policy), 100_000)
    values = ops.args[:, :, 0]
    moving = np.isin(ops.codes, list(SIGNED)) & (values != 0)
    minus = values[moving] < 0
    assert abs(minus.mean() - 0.5) < 4.5 * 0.5 / math.sqrt(len(minus))
    assert (values[~np.isin(ops.codes, [*SIGNED, Op.NOTHING])] >= 0).all()


def test_the_centre_of_a_cutout_is_any_pixel() -> None:
    ops = sampled(Augment(policy="randaugment"), 50_000, side=24)
    centres = ops.args[ops.codes == Op.CUTOUT][:, 1:]
    assert centres.min() == 0
    assert centres.max() == 23
    assert np.array_equal(centres, np.floor(centres))


@pytest.mark.parametrize("policy", ["v0", "imagenet", "randaugment"])
def test_the_operations_of_an_image_do_not_depend_on_the_batch(policy: str) -> None:
    augment = Augment(policy=policy)
    u = some_uniforms(augment, 100)
    whole, part = sample_ops(augment, u, 224), sample_ops(augment, u[40:50], 224)
    assert whole is not None
    assert part is not None
    assert np.array_equal(whole.codes[40:50], part.codes)
    assert np.array_equal(whole.args[40:50], part.args)


@pytest.mark.parametrize("policy", ["v0", "imagenet", "randaugment"])
def test_arrays_have_the_types_that_the_c_code_reads(policy: str) -> None:
    ops = sampled(Augment(policy=policy), 10)
    assert (ops.codes.dtype, ops.codes.shape) == (np.int32, (10, 2))
    assert (ops.args.dtype, ops.args.shape) == (np.float32, (10, 2, 3))
    assert ops.codes.flags.c_contiguous
    assert ops.args.flags.c_contiguous


# ---------------------------------------------------------------------------------------------------- pixels


@cache
def pictures(side: int) -> list[NDArray[np.uint8]]:
    """Returns noise, faint noise, one colour, black and white, and three real images if available."""
    rng = np.random.default_rng(side)
    synthetic = [
        rng.integers(0, 256, (side, side, 3), dtype=np.uint8),
        rng.integers(90, 140, (side, side, 3), dtype=np.uint8),
        np.full((side, side, 3), 77, np.uint8),
        np.repeat(rng.integers(0, 2, (side, side, 1), dtype=np.uint8) * np.uint8(255), 3, axis=2),
    ]
    return synthetic + [np.asarray(image.resize((side, side), Image.Resampling.BICUBIC)) for image in real_images(3)]


@cache
def real_images(count: int) -> list[Image.Image]:
    if not VAL_TAR.exists():
        return []
    with tarfile.open(VAL_TAR) as tar:
        members = (member for member in tar if member.isfile())
        blobs = [tar.extractfile(member) for member, _ in zip(members, range(count), strict=False)]
        return [Image.open(io.BytesIO(blob.read())).convert("RGB") for blob in blobs if blob is not None]


def arguments(op: Op, side: int) -> list[NDArray[np.float32]]:
    centres = ((0, 0), (side - 1, side - 1), (side // 2, 3)) if op is Op.CUTOUT else ((0, 0),)
    return [np.array([value, *centre], np.float32) for value in VALUES.get(op, (0.0,)) for centre in centres]


def native_library() -> ctypes.CDLL:
    spec = find_spec("models.data.loading.native")
    folders = list(spec.submodule_search_locations or []) if spec is not None else []
    built = [file for folder in folders for file in Path(folder).glob("*.so")]
    if not built:
        pytest.skip("the C code is not built here (no compiler at install); nothing to compare with Pillow")
    return ctypes.CDLL(str(built[0]))


def apply_native(library: ctypes.CDLL, image: NDArray[np.uint8], op: Op, arg: NDArray[np.float32]) -> NDArray[np.uint8]:
    pixels, scratch = image.copy(), np.empty_like(image)
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (pixels, scratch, arg)]
    library.effnet_apply_op(pointers[0], pointers[1], ctypes.c_int(len(image)), ctypes.c_int32(op), pointers[2])
    return pixels


@pytest.mark.parametrize("side", with_slow_rest(SIDES))
@pytest.mark.parametrize("op", list(Op))
def test_the_c_operation_gives_the_bytes_of_pillow(op: Op, side: int) -> None:
    library = native_library()
    for number, image in enumerate(pictures(side)):
        for arg in arguments(op, side):
            expected = np.asarray(apply_pillow(Image.fromarray(image), op, arg))
            assert np.array_equal(apply_native(library, image, op, arg), expected), (number, arg)


@pytest.mark.parametrize("op", list(Op))
@pytest.mark.parametrize("side", [1, 2, 3])
def test_the_c_operation_gives_the_bytes_of_pillow_on_the_smallest_images(op: Op, side: int) -> None:
    library = native_library()
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    for arg in arguments(op, side):
        expected = np.asarray(apply_pillow(Image.fromarray(image), op, arg))
        assert np.array_equal(apply_native(library, image, op, arg), expected), arg


# What TensorFlow 2.21 computed from RAMP by the expressions of the official code, in a graph and eagerly: x < 256 and
# x < 435 compare with a byte that wraps, and a shift of 8 - 11 = -3 bits is limited to 7.
RAMP = (0, 100, 127, 128, 179, 180, 200, 204, 205, 255)
TENSORFLOW = [
    (Op.SOLARIZE, 10, (255, 155, 128, 127, 76, 75, 55, 51, 50, 0)),
    (Op.SOLARIZE, 17, (0, 100, 127, 128, 76, 75, 55, 51, 50, 0)),
    (Op.SOLARIZE, 28, (0, 100, 127, 128, 179, 180, 200, 51, 50, 0)),
    (Op.POSTERIZE, 2, (0, 0, 0, 128, 128, 128, 128, 128, 128, 128)),
    (Op.POSTERIZE, 17, (0, 100, 124, 128, 176, 180, 200, 204, 204, 252)),
    (Op.POSTERIZE, 20, RAMP),
    (Op.POSTERIZE, 28, (0, 0, 0, 128, 128, 128, 128, 128, 128, 128)),
    (Op.SOLARIZE_ADD, 10, (110, 210, 237, 128, 179, 180, 200, 204, 205, 255)),
    (Op.SOLARIZE_ADD, 17, (187, 255, 255, 128, 179, 180, 200, 204, 205, 255)),
    (Op.SOLARIZE_ADD, 28, (255, 255, 255, 128, 179, 180, 200, 204, 205, 255)),
]


@pytest.mark.parametrize(("op", "level", "expected"), TENSORFLOW)
def test_bytes_wrap_and_stop_as_in_tensorflow(op: Op, level: int, expected: tuple[int, ...]) -> None:
    image = np.resize(np.array(RAMP, np.uint8), (10, 10))[:, :, None].repeat(3, 2)
    value = magnitude(op, level, RANGES["randaugment"], 224)
    got = np.asarray(apply_pillow(Image.fromarray(image), op, [value]))
    assert tuple(got[0, :, 0].tolist()) == expected
    library = native_library()
    assert np.array_equal(apply_native(library, image, op, np.array([value, 0, 0], np.float32)), got)


@pytest.mark.parametrize("magnitude", [17.0, 28.0, 30.0])
def test_both_backends_augment_identically_at_the_published_magnitudes(magnitude: float) -> None:
    assert_backends_agree(Augment(policy="randaugment", randaugment_magnitude=magnitude, randaugment_layers=3))


def test_solarize_add_lifts_only_dark_values_and_stops_at_white() -> None:
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).convert("RGB")
    got = np.asarray(apply_pillow(ramp, Op.SOLARIZE_ADD, [110]))[:, :, 0].flatten()
    assert np.array_equal(got[:128], np.arange(128) + 110)
    assert np.array_equal(got[128:], np.arange(128, 256))


def test_a_cutout_is_a_grey_square_clipped_at_the_border() -> None:
    got = np.asarray(apply_pillow(Image.new("RGB", (24, 24)), Op.CUTOUT, [4, 2, 12]))[:, :, 0]
    expected = np.zeros((24, 24), np.uint8)
    expected[8:16, 0:6] = 128
    assert np.array_equal(got, expected)


def test_level_nine_of_translate_empties_a_224_image_as_in_the_official_code() -> None:
    image = Image.new("RGB", (224, 224), (255, 0, 0))
    assert (np.asarray(apply_pillow(image, Op.TRANSLATE_Y, [225.0])) == 128).all()


def test_an_unknown_operation_is_refused() -> None:
    with pytest.raises(ValueError, match="99"):
        apply_pillow(Image.new("RGB", (4, 4)), 99, [0.0])


@pytest.mark.parametrize("policy", ["v0", "imagenet", "randaugment"])
def test_both_backends_augment_identically(policy: str) -> None:
    assert_backends_agree(Augment(policy=policy))


def assert_backends_agree(augment: Augment) -> None:
    """A PNG at its original size needs no resize and loses nothing, so every byte must be equal."""
    if backends()["native"] != "ok":
        pytest.skip(f"native backend: {backends()['native']}")
    n, side = 64, 63
    images = np.random.default_rng(0).integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    blobs = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        blobs.append(file.getvalue())
    boxes = np.tile(np.array([0, 0, side, side], np.int32), (n, 1))
    flips, ops = np.arange(n) % 2 == 0, sampled(augment, n, side)
    native, pillow = np.empty_like(images), np.empty_like(images)
    fill(native, blobs, boxes, flips, ops, backend="native")
    fill(pillow, blobs, boxes, flips, ops, backend="pillow")
    assert np.array_equal(native, pillow)
