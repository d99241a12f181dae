"""The code in a registered package transforms images as the evaluation does, and refuses what it cannot use."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_set import image_bytes
from numpy.typing import NDArray
from PIL import Image

from conf.data_set import CROP_MODES, INTERPOLATIONS, EvalTransform
from infra.tracking.predictor import COLUMN, Predictor, read_image
from models.data.loading import crops, decode
from models.data.shards.images import open_image

SIDE, PAD, MEAN, STD = 32, 4, [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
CONFIG: dict[str, Any] = {
    "class_names": ["dark", "light"],
    "input": {"resolution": SIDE, "crop_pad": PAD, "mean": MEAN, "std": STD},
}


class Brightness:
    """A network whose logits are the mean of the image, and its negative; counts the images of its passes."""

    def __init__(self) -> None:
        self.passes: list[int] = []

    def predict(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        self.passes.append(len(images))
        assert images.dtype == np.float32
        assert images.shape[1:] == (3, SIDE, SIDE)
        mean = images.mean((1, 2, 3))
        return np.stack([-mean, mean], axis=1)


def predict(*images: Any) -> pd.DataFrame:
    answers: pd.DataFrame = Predictor(Brightness(), CONFIG).predict(pd.DataFrame({COLUMN: list(images)}))
    return answers


def encoded(pixels: Any, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("mode", CROP_MODES)
@pytest.mark.parametrize("interpolation", [None, *INTERPOLATIONS])
@pytest.mark.parametrize("size", [(60, 41), (37, 90), (32, 32), (20, 21), (1, 5)])
def test_the_transform_gives_the_pixels_of_the_evaluation(
    size: tuple[int, int], interpolation: str | None, mode: str
) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    square = np.empty((1, SIDE, SIDE, 3), np.uint8)
    boxes = crops.eval_boxes(np.array([size[1]]), np.array([size[0]]), SIDE, EvalTransform(PAD, crop_mode=mode))
    given = {"interpolation": interpolation} if interpolation else {}  # config.json states it if it is not bicubic
    decode.fill(square, [encoded(pixels)], boxes, np.zeros(1, np.bool_), backend="pillow", **given)
    expected = ((square[0] / 255 - MEAN) / STD).transpose(2, 0, 1)
    predictor = Predictor(None, {**CONFIG, "input": CONFIG["input"] | given | {"crop_mode": mode}})
    np.testing.assert_allclose(predictor.transform(pixels), expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "CMYK", "I;16", "1"])
def test_a_file_is_decoded_as_in_the_evaluation(mode: str) -> None:
    picture = Image.open(io.BytesIO(image_bytes(3)))
    if mode == "I;16":
        deep = np.asarray(picture.convert("L")).astype(np.uint16) * 257
        data = encoded(Image.fromarray(deep))
    else:
        data = encoded(picture.convert(mode), "JPEG" if mode == "CMYK" else "PNG")
    assert np.array_equal(read_image(data), np.asarray(open_image(data)))
    assert np.array_equal(read_image(base64.b64encode(data).decode()), read_image(data))


def test_files_base64_pixels_and_normalized_images_are_classified_in_batches() -> None:
    pixels = np.full((40, 50, 3), 250, np.uint8)
    data = encoded(pixels)
    normalized = np.full((3, SIDE, SIDE), -1.0)
    network = Brightness()
    rows = [data, base64.b64encode(data).decode(), pixels, pixels.astype(np.int64).tolist(), normalized] * 9
    table = pd.DataFrame({COLUMN: rows}, index=range(7, 7 + len(rows)))
    answers = Predictor(network, CONFIG).predict(table)
    assert network.passes == [32, 13]
    assert answers["class"].tolist() == ["light", "light", "light", "light", "dark"] * 9
    assert list(answers.index) == list(table.index)
    light = ((250 / 255 - np.array(MEAN)) / STD).mean()
    assert answers["probability"].iloc[0] == pytest.approx(1 / (1 + np.exp(-2 * light)), abs=1e-6)
    assert answers["logits"].iloc[4] == [1.0, -1.0]


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (b"no image", "image 1: neither a JPEG or PNG file nor its base64"),
        ("no base64!", "image 1: neither a JPEG or PNG file nor its base64"),
        (encoded(np.zeros((9, 9, 3), np.uint8))[:45], "image 1: neither a JPEG or PNG file nor its base64"),
        (encoded(np.zeros((9, 9, 3), np.uint8), "BMP"), "image 1: neither a JPEG or PNG file nor its base64"),
        (np.zeros((9, 9), np.uint8), r"image 1 is uint8 \[9, 9\]: send a JPEG or PNG file"),
        (np.zeros((9, 9, 3)), r"image 1 is float64 \[9, 9, 3\]: .* a normalized image \[3, 32, 32\] as floats"),
        (np.full((9, 9, 3), 256), "image 1: pixels are 0 to 255"),
        (np.zeros((0, 9, 3), np.uint8), "image 1: pixels are 0 to 255, in an image of at least one pixel"),
        ([[1, 2], [3]], "image 1: "),
    ],
)
def test_what_is_no_image_is_refused_with_its_row(image: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        predict(np.zeros((9, 9, 3), np.uint8), image)
