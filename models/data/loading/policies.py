"""Augmentation policies of three papers as tables of operations, probabilities and levels.

Operations are implemented in ``pillow_ops.py`` (reference) and ``native/ops.c`` (fast); ``auto_augment.py`` samples
from the tables. Levels run from 0 to 10; RandAugment's to 30.

Disagreements between the sources, and the choices made here:

- *Posterize.* The EfficientNet code keeps ``int(level / 10 * 4)`` bits: a higher level destroys less. At level 2
  that gives 0 bits, but TensorFlow limits the shift of a byte to 7, so one bit is kept (Pillow 13 refuses 0 bits, and
  timm documents a black image for its port). Above 8 bits (level 22.5) the shift is negative, wraps as a byte and is
  limited to 7 as well: one bit. Here it is the same. The published policy means 4 to 8 bits
  (Cubuk et al. 2018, Table 6), interpreted as timm's ``PosterizeOriginal``; torchvision reverses the same range.
- *Translate, Cutout.* The EfficientNet code translates by up to 250 pixels (RandAugment: 100) regardless of the size of
  the training image: level 9 moves a 224-pixel image entirely out of view. The paper's networks, at 224 pixels and up,
  were trained so, and it is kept. For images under 224 pixels, which the official code never had, lengths are scaled
  in proportion to the side. (timm's port translates by up to 0.45 of the side, torchvision by 150/331 of it.)
- *Contrast.* The EfficientNet code uses the number of pixels / 256 as the mean gray; here, as in Pillow, the mean.
- *Solarize.* The EfficientNet code compares bytes with ``int(level / 10 * 256)``, which wraps as a byte: the threshold
  is 0 at level 10 (all values are inverted), 179 at 17 and 204 at 28. It is the same here; timm and torchvision change
  nothing at level 10.

Source: tensorflow/tpu, models/official/efficientnet/autoaugment.py (``policy_v0``, ``level_to_arg``,
``distort_image_with_randaugment``); Cubuk et al. 2018 (arXiv:1805.09501), Tables 6 and 9; Cubuk et al. 2019
(arXiv:1909.13719); huggingface/pytorch-image-models, timm/data/auto_augment.py (``auto_augment_policy_original``);
tensorflow/core/kernels/cwise_ops.h (``right_shift_op``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Op(IntEnum):
    """Augmentation operation; values as in ``native/ops.c``, order as in the official RandAugment list."""

    NOTHING = 0
    AUTOCONTRAST = 1
    EQUALIZE = 2
    INVERT = 3
    ROTATE = 4  # degrees counterclockwise
    POSTERIZE = 5  # bits kept
    SOLARIZE = 6  # threshold; values at or above it are inverted
    COLOR = 7  # factor: 0 gray, 1 unchanged
    CONTRAST = 8  # factor
    BRIGHTNESS = 9  # factor
    SHARPNESS = 10  # factor
    SHEAR_X = 11  # horizontal pixels per vertical pixel
    SHEAR_Y = 12
    TRANSLATE_X = 13  # pixels
    TRANSLATE_Y = 14
    CUTOUT = 15  # half the side of a gray square; its center x, y
    SOLARIZE_ADD = 16  # added to values below 128, up to 255


Step = tuple[Op, float, int]  # operation, probability, level
Policy = tuple[tuple[Step, Step], ...]  # one pair is drawn and applied in this order

SIGNED = frozenset({Op.ROTATE, Op.SHEAR_X, Op.SHEAR_Y, Op.TRANSLATE_X, Op.TRANSLATE_Y})  # negated with probability 0.5
MAX_LEVEL = 10.0
FULL_SIDE = 224  # pixels; the smallest training image of the official code

V0: Policy = (
    ((Op.EQUALIZE, 0.8, 1), (Op.SHEAR_Y, 0.8, 4)),
    ((Op.COLOR, 0.4, 9), (Op.EQUALIZE, 0.6, 3)),
    ((Op.COLOR, 0.4, 1), (Op.ROTATE, 0.6, 8)),
    ((Op.SOLARIZE, 0.8, 3), (Op.EQUALIZE, 0.4, 7)),
    ((Op.SOLARIZE, 0.4, 2), (Op.SOLARIZE, 0.6, 2)),
    ((Op.COLOR, 0.2, 0), (Op.EQUALIZE, 0.8, 8)),
    ((Op.EQUALIZE, 0.4, 8), (Op.SOLARIZE_ADD, 0.8, 3)),
    ((Op.SHEAR_X, 0.2, 9), (Op.ROTATE, 0.6, 8)),
    ((Op.COLOR, 0.6, 1), (Op.EQUALIZE, 1.0, 2)),
    ((Op.INVERT, 0.4, 9), (Op.ROTATE, 0.6, 0)),
    ((Op.EQUALIZE, 1.0, 9), (Op.SHEAR_Y, 0.6, 3)),
    ((Op.COLOR, 0.4, 7), (Op.EQUALIZE, 0.6, 0)),
    ((Op.POSTERIZE, 0.4, 6), (Op.AUTOCONTRAST, 0.4, 7)),
    ((Op.SOLARIZE, 0.6, 8), (Op.COLOR, 0.6, 9)),
    ((Op.SOLARIZE, 0.2, 4), (Op.ROTATE, 0.8, 9)),
    ((Op.ROTATE, 1.0, 7), (Op.TRANSLATE_Y, 0.8, 9)),
    ((Op.SHEAR_X, 0.0, 0), (Op.SOLARIZE, 0.8, 4)),
    ((Op.SHEAR_Y, 0.8, 0), (Op.COLOR, 0.6, 4)),
    ((Op.COLOR, 1.0, 0), (Op.ROTATE, 0.6, 2)),
    ((Op.EQUALIZE, 0.8, 4), (Op.EQUALIZE, 0.0, 8)),
    ((Op.EQUALIZE, 1.0, 4), (Op.AUTOCONTRAST, 0.6, 2)),
    ((Op.SHEAR_Y, 0.4, 7), (Op.SOLARIZE_ADD, 0.6, 7)),
    ((Op.POSTERIZE, 0.8, 2), (Op.SOLARIZE, 0.6, 10)),
    ((Op.SOLARIZE, 0.6, 8), (Op.EQUALIZE, 0.6, 1)),
    ((Op.COLOR, 0.8, 6), (Op.ROTATE, 0.4, 5)),
)

IMAGENET: Policy = (
    ((Op.POSTERIZE, 0.4, 8), (Op.ROTATE, 0.6, 9)),
    ((Op.SOLARIZE, 0.6, 5), (Op.AUTOCONTRAST, 0.6, 5)),
    ((Op.EQUALIZE, 0.8, 8), (Op.EQUALIZE, 0.6, 3)),
    ((Op.POSTERIZE, 0.6, 7), (Op.POSTERIZE, 0.6, 6)),
    ((Op.EQUALIZE, 0.4, 7), (Op.SOLARIZE, 0.2, 4)),
    ((Op.EQUALIZE, 0.4, 4), (Op.ROTATE, 0.8, 8)),
    ((Op.SOLARIZE, 0.6, 3), (Op.EQUALIZE, 0.6, 7)),
    ((Op.POSTERIZE, 0.8, 5), (Op.EQUALIZE, 1.0, 2)),
    ((Op.ROTATE, 0.2, 3), (Op.SOLARIZE, 0.6, 8)),
    ((Op.EQUALIZE, 0.6, 8), (Op.POSTERIZE, 0.4, 6)),
    ((Op.ROTATE, 0.8, 8), (Op.COLOR, 0.4, 0)),
    ((Op.ROTATE, 0.4, 9), (Op.EQUALIZE, 0.6, 2)),
    ((Op.EQUALIZE, 0.0, 7), (Op.EQUALIZE, 0.8, 8)),
    ((Op.INVERT, 0.6, 4), (Op.EQUALIZE, 1.0, 8)),
    ((Op.COLOR, 0.6, 4), (Op.CONTRAST, 1.0, 8)),
    ((Op.ROTATE, 0.8, 8), (Op.COLOR, 1.0, 2)),
    ((Op.COLOR, 0.8, 8), (Op.SOLARIZE, 0.8, 7)),
    ((Op.SHARPNESS, 0.4, 7), (Op.INVERT, 0.6, 8)),
    ((Op.SHEAR_X, 0.6, 5), (Op.EQUALIZE, 1.0, 9)),
    ((Op.COLOR, 0.4, 0), (Op.EQUALIZE, 0.6, 3)),
    ((Op.EQUALIZE, 0.4, 7), (Op.SOLARIZE, 0.2, 4)),
    ((Op.SOLARIZE, 0.6, 5), (Op.AUTOCONTRAST, 0.6, 5)),
    ((Op.INVERT, 0.6, 4), (Op.EQUALIZE, 1.0, 8)),
    ((Op.COLOR, 0.6, 4), (Op.CONTRAST, 1.0, 8)),
    ((Op.EQUALIZE, 0.8, 8), (Op.EQUALIZE, 0.6, 3)),
)

RANDAUGMENT: tuple[Op, ...] = tuple(Op)[1:]  # all sixteen, equally likely


@dataclass(frozen=True)
class Ranges:
    """Meaning of level 10 where the policies differ."""

    translate_px: float  # at a side of 224 or more
    cutout_px: float
    posterize_base: int  # bits kept at level 0


RANGES = {
    "v0": Ranges(translate_px=250.0, cutout_px=100.0, posterize_base=0),
    "imagenet": Ranges(translate_px=250.0, cutout_px=100.0, posterize_base=4),
    "randaugment": Ranges(translate_px=100.0, cutout_px=40.0, posterize_base=0),
}


def magnitude(op: Op, level: float, ranges: Ranges, side: int) -> float:
    """Returns an operation's argument at a level, unsigned; 0 for an operation without argument.

    Args:
        op: Operation.
        level: Level from 0 to 10, of RandAugment to 30.
        ranges: Ranges of the policy.
        side: Side of the training image in pixels.
    """
    fraction = level / MAX_LEVEL
    scale = min(1.0, side / FULL_SIDE)
    match op:
        case Op.ROTATE:
            return fraction * 30.0
        case Op.SHEAR_X | Op.SHEAR_Y:
            return fraction * 0.3
        case Op.TRANSLATE_X | Op.TRANSLATE_Y:
            return fraction * ranges.translate_px * scale
        case Op.CUTOUT:
            return float(int(int(fraction * ranges.cutout_px) * scale))
        case Op.POSTERIZE:
            return float(8 - min(7, (8 - ranges.posterize_base - int(fraction * 4)) % 256))
        case Op.SOLARIZE:
            return float(int(fraction * 256) % 256)
        case Op.SOLARIZE_ADD:
            return float(int(fraction * 110))
        case Op.COLOR | Op.CONTRAST | Op.BRIGHTNESS | Op.SHARPNESS:
            return fraction * 1.8 + 0.1
    return 0.0
