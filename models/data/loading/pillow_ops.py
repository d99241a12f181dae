"""What each operation means, through Pillow itself: the reference of ``native/ops.c``, and the way without a compiler.

Geometry takes the nearest pixel and fills with mid grey, as the official code does.

Source: tensorflow/tpu, models/official/efficientnet/autoaugment.py, which states for most of its operations that
    they are Pillow's; fill 128 is its ``replace_value``.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageEnhance, ImageOps

from models.data.loading.policies import Op

GREY = (128, 128, 128)


def apply_pillow(image: Image.Image, code: int, arg: Sequence[float]) -> Image.Image:
    """One operation on an RGB image; a new image of the same size.

    Args:
        image: mode RGB.
        code: of ``Op``.
        arg: value, and for a cutout the centre x and y.

    Raises:
        ValueError: for a code that is none of ``Op``.
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
            return image.rotate(value, Image.Resampling.NEAREST, fillcolor=GREY)
        case Op.SHEAR_X:
            return _affine(image, (1.0, value, 0.0, 0.0, 1.0, 0.0))
        case Op.SHEAR_Y:
            return _affine(image, (1.0, 0.0, 0.0, value, 1.0, 0.0))
        case Op.TRANSLATE_X:
            return _affine(image, (1.0, 0.0, value, 0.0, 1.0, 0.0))
        case Op.TRANSLATE_Y:
            return _affine(image, (1.0, 0.0, 0.0, 0.0, 1.0, value))


def _affine(image: Image.Image, matrix: tuple[float, float, float, float, float, float]) -> Image.Image:
    """``matrix`` leads from a pixel of the result to the pixel it is taken from."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=GREY)


def _cutout(image: Image.Image, half: int, x: int, y: int) -> Image.Image:
    result = image.copy()
    left, top = max(0, x - half), max(0, y - half)
    right, bottom = min(image.width, x + half), min(image.height, y + half)
    if left < right and top < bottom:
        result.paste(GREY, (left, top, right, bottom))
    return result
