"""Augmentation operations in Pillow: the reference for ``native/ops.c``, and the fallback without a compiler.

Geometric operations use the nearest pixel and fill with mid gray, as the official code does.

Source: tensorflow/tpu, models/official/efficientnet/autoaugment.py, which states that most of its operations
    are Pillow's; fill 128 is its ``replace_value``.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageEnhance, ImageOps

from models.data.loading.policies import Op

GRAY = (128, 128, 128)


def apply_pillow(image: Image.Image, code: int, arg: Sequence[float]) -> Image.Image:
    """Applies one operation to an RGB image; returns a new image of the same size.

    Args:
        image: Image in mode RGB.
        code: Value of an ``Op``.
        arg: Magnitude, and for a cutout the center x and y.

    Raises:
        ValueError: the code is not an ``Op``.
    """
    value = float(arg[0])
    match Op(code):
        case Op.NOTHING:
            return image.copy()
        case Op.AUTOCONTRAST:
            return ImageOps.autocontrast(image)
        case Op.EQUALIZE:
            return ImageOps.equalize(image)
        case Op.INVERT:
            return ImageOps.invert(image)
        case Op.POSTERIZE:
            return ImageOps.posterize(image, int(value))
        case Op.SOLARIZE:
            return ImageOps.solarize(image, int(value))
        case Op.SOLARIZE_ADD:
            return image.point([min(255, v + int(value)) if v < 128 else v for v in range(256)] * 3)
        case Op.COLOR:
            return ImageEnhance.Color(image).enhance(value)
        case Op.CONTRAST:
            return ImageEnhance.Contrast(image).enhance(value)
        case Op.BRIGHTNESS:
            return ImageEnhance.Brightness(image).enhance(value)
        case Op.SHARPNESS:
            return ImageEnhance.Sharpness(image).enhance(value)
        case Op.CUTOUT:
            return _cutout(image, int(value), int(arg[1]), int(arg[2]))
        case Op.ROTATE:
            return image.rotate(value, Image.Resampling.NEAREST, fillcolor=GRAY)
        case Op.SHEAR_X:
            return _affine(image, (1.0, value, 0.0, 0.0, 1.0, 0.0))
        case Op.SHEAR_Y:
            return _affine(image, (1.0, 0.0, 0.0, value, 1.0, 0.0))
        case Op.TRANSLATE_X:
            return _affine(image, (1.0, 0.0, value, 0.0, 1.0, 0.0))
        case Op.TRANSLATE_Y:
            return _affine(image, (1.0, 0.0, 0.0, 0.0, 1.0, value))


def _affine(image: Image.Image, matrix: tuple[float, float, float, float, float, float]) -> Image.Image:
    """Applies a transform; ``matrix`` maps output pixels to input pixels."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=GRAY)


def _cutout(image: Image.Image, half: int, x: int, y: int) -> Image.Image:
    result = image.copy()
    left, top = max(0, x - half), max(0, y - half)
    right, bottom = min(image.width, x + half), min(image.height, y + half)
    if left < right and top < bottom:
        result.paste(GRAY, (left, top, right, bottom))
    return result
