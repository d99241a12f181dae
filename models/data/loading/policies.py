"""Which operations are worth doing to a training image, how often and how strongly: facts of three papers as tables.

The operations themselves are in ``pillow_ops.py`` (what they mean) and ``native/ops.c`` (the same, fast);
``augment.py`` draws from the tables. Levels run from 0 to 10.

Where the sources disagree, and what is done here:

- *Posterize.* The EfficientNet code keeps ``int(level / 10 * 4)`` bits: a higher level destroys less. At level 2 that
  is no bit at all, but TensorFlow limits the shift of a byte to 7, so one bit is left (Pillow 13 refuses 0 bits, and
  timm notes a black image for its port). Here one bit is left. The published policy means 4 to 8 bits
  (Cubuk et al. 2018, Table 6), read as timm's ``PosterizeOriginal``; torchvision counts the same range downwards.
- *Translate, Cutout.* The EfficientNet code moves by up to 250 pixels (RandAugment: 100) whatever the size of the
  training image: level 9 empties an image of 224 altogether. That is what the paper's networks, 224 pixels and up,
  saw, and it is kept. Images under 224 pixels, which the official code never had, get the lengths that would look
  the same at 224. (timm's port moves by up to 0.45 of the side, torchvision by 150/331 of it.)
- *Contrast.* The EfficientNet code takes the number of pixels / 256 for the mean grey; here, as in Pillow, the mean.
- *Solarize 10* has threshold 256, which no byte reaches: nothing happens.

Source: tensorflow/tpu, models/official/efficientnet/autoaugment.py (``policy_v0``, ``level_to_arg``,
``distort_image_with_randaugment``); Cubuk et al. 2018 (arXiv:1805.09501), Tables 6 and 9; Cubuk et al. 2019
(arXiv:1909.13719); huggingface/pytorch-image-models, timm/data/auto_augment.py (``auto_augment_policy_original``);
tensorflow/core/kernels/cwise_ops.h (``right_shift_op``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Op(IntEnum):
    """One operation; the numbers are those of ``native/ops.c``, the order that of the official RandAugment list."""

    NOTHING = 0
    AUTOCONTRAST = 1
    EQUALIZE = 2
    INVERT = 3
    ROTATE = 4  # degrees against the clock
    POSTERIZE = 5  # bits kept
    SOLARIZE = 6  # values from this one on are inverted
    COLOR = 7  # factor: 0 grey, 1 unchanged
    CONTRAST = 8  # factor
    BRIGHTNESS = 9  # factor
    SHARPNESS = 10  # factor
    SHEAR_X = 11  # pixels to the side for each pixel down
    SHEAR_Y = 12
    TRANSLATE_X = 13  # pixels
    TRANSLATE_Y = 14
    CUTOUT = 15  # half the side of a grey square; its centre x, y
    SOLARIZE_ADD = 16  # added to values under 128


Step = tuple[Op, float, int]  # operation, probability, level
Policy = tuple[tuple[Step, Step], ...]  # one pair is drawn, and done in this order

SIGNED = frozenset({Op.ROTATE, Op.SHEAR_X, Op.SHEAR_Y, Op.TRANSLATE_X, Op.TRANSLATE_Y})  # minus in half of the cases
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

RANDAUGMENT: tuple[Op, ...] = tuple(Op)[1:]  # all sixteen, each as likely


@dataclass(frozen=True)
class Ranges:
    """What level 10 means where the policies differ."""

    translate_px: float  # at a side of 224 or more
    cutout_px: float
    posterize_base: int  # bits kept at level 0


RANGES = {
    "v0": Ranges(translate_px=250.0, cutout_px=100.0, posterize_base=0),
    "imagenet": Ranges(translate_px=250.0, cutout_px=100.0, posterize_base=4),
    "randaugment": Ranges(translate_px=100.0, cutout_px=40.0, posterize_base=0),
}


def magnitude(op: Op, level: float, ranges: Ranges, side: int) -> float:
    """The argument of an operation at a level, without its sign; 0 for an operation that takes none.

    Args:
        op: the operation.
        level: 0 to 10.
        ranges: what is particular to the policy.
        side: of the training image, pixels.
    """
    share = level / MAX_LEVEL
    shrink = min(1.0, side / FULL_SIDE)
    match op:
        case Op.ROTATE:
            return share * 30.0
        case Op.SHEAR_X | Op.SHEAR_Y:
            return share * 0.3
        case Op.TRANSLATE_X | Op.TRANSLATE_Y:
            return share * ranges.translate_px * shrink
        case Op.CUTOUT:
            return float(int(int(share * ranges.cutout_px) * shrink))
        case Op.POSTERIZE:
            return float(max(1, ranges.posterize_base + int(share * 4)))
        case Op.SOLARIZE:
            return float(int(share * 256))
        case Op.SOLARIZE_ADD:
            return float(int(share * 110))
        case Op.COLOR | Op.CONTRAST | Op.BRIGHTNESS | Op.SHARPNESS:
            return share * 1.8 + 0.1
    return 0.0
