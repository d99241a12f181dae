"""Encoded bytes -> uint8 image of the wanted side: crop and antialiased bicubic resize in one step.

Source of the crops: official preprocessing.py (``distorted_bounding_box_crop`` with 10 attempts,
``_decode_and_center_crop`` with CROP_PADDING 32).
"""

from __future__ import annotations

import io
import math
import random

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from conf.schema import Augment
from infra.errors import DataError

CROP_TRIES = 10
MAX_PIXELS = 64 * 1024 * 1024  # a header that claims more is a bomb, not a photograph
Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels


def open_image(data: bytes) -> Image.Image:
    """Decodes JPEG or PNG, nothing else, to RGB.

    Raises:
        DataError: another format, truncated, or larger than 64 megapixels.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
        if image.width * image.height > MAX_PIXELS:
            raise DataError(f"image claims {image.width} x {image.height} pixels, more than {MAX_PIXELS}")
        if image.mode == "I;16":  # Pillow would clip 16-bit grey to white
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"image of {len(data)} bytes does not decode: {error}") from error


def train_image(data: bytes, side: int, augment: Augment, rng: random.Random) -> NDArray[np.uint8]:
    """Random resized crop and flip: ``[side, side, 3]`` uint8."""
    image = open_image(data)
    box = random_crop(image.width, image.height, side, augment, rng)
    resized = image.resize((side, side), Image.Resampling.BICUBIC, box=box)
    pixels = np.asarray(resized)
    return pixels[:, ::-1] if rng.random() < augment.flip_prob else pixels


def eval_image(data: bytes, side: int, augment: Augment) -> NDArray[np.uint8]:
    """Central crop: ``[side, side, 3]`` uint8."""
    image = open_image(data)
    box = central_crop(image.width, image.height, side, augment.eval_crop_pad)
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC, box=box))


def random_crop(width: int, height: int, side: int, augment: Augment, rng: random.Random) -> Box:
    """A box of random area and aspect; after 10 misses the largest central square."""
    log_aspect = math.log(augment.crop_aspect_max)
    for _ in range(CROP_TRIES):
        area = width * height * rng.uniform(augment.crop_area_min, 1.0)
        aspect = math.exp(rng.uniform(-log_aspect, log_aspect))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = rng.randint(0, width - w), rng.randint(0, height - h)
            return left, top, left + w, top + h
    return central_crop(width, height, side, augment.eval_crop_pad)


def central_crop(width: int, height: int, side: int, pad: int) -> Box:
    """The central square of side / (side + pad) of the short side."""
    edge = min(width, height) * side / (side + pad)
    left, top = (width - edge) / 2, (height - edge) / 2
    return left, top, left + edge, top + edge
