"""Crop boxes: random for training, central for evaluation; computed for arrays of images, without pixels.

Source: tensorflow/tpu models/official/efficientnet/preprocessing.py (``distorted_bounding_box_crop`` with 10
attempts and ``min_object_covered`` 0.1, ``_decode_and_center_crop`` with CROP_PADDING 32), and TensorFlow's kernel
behind it, core/kernels/image/sample_distorted_bounding_box_op.cc (``GenerateRandomCrop``).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from conf.data_set import SQUASH, EvalTransform
from conf.schema import Augment

TRIES = 10
MIN_COVERED = 0.1  # of the whole image, which is the only object: tighter than the minimum area of 0.08
DRAWS = 4 * TRIES + 1  # aspect, height, top, left per try; one for the flip
Boxes = NDArray[np.int32]  # [N, 4]: left, top, right, bottom in pixels


def train_boxes(
    widths: NDArray[np.int64], heights: NDArray[np.int64], u: NDArray[np.float64], augment: Augment, side: int
) -> tuple[Boxes, NDArray[np.bool_]]:
    """Draws boxes and flips; a sample without a valid box after ten tries gets its central box.

    Args:
        widths: Image widths ``[N]`` in pixels.
        heights: Image heights ``[N]`` in pixels.
        u: Random numbers ``[N, DRAWS]`` in [0, 1).
        augment: Bounds of area and aspect ratio, and the flip probability.
        side: Side of the resized image in pixels, which determines the central box.
    """
    tries = u[:, : 4 * TRIES].reshape(-1, TRIES, 4)
    candidates, valid = _candidates(widths[:, None], heights[:, None], tries, augment)
    first = valid.argmax(axis=1)
    rows = np.arange(len(widths))
    boxes = candidates[rows, first]
    # The official code also uses the central crop if the box is the whole image.
    whole = ((boxes[:, 2] - boxes[:, 0]) == widths) & ((boxes[:, 3] - boxes[:, 1]) == heights)
    central = ~valid[rows, first] | whole
    boxes[central] = eval_boxes(widths, heights, side, augment.evaluation)[central]
    return boxes, u[:, 4 * TRIES] < augment.flip_prob


def _candidates(
    widths: NDArray[np.int64], heights: NDArray[np.int64], u: NDArray[np.float64], augment: Augment
) -> tuple[Boxes, NDArray[np.bool_]]:
    """Boxes ``[N, TRIES, 4]`` of all tries and their validity: uniform in aspect, then in height."""
    area = (widths * heights).astype(np.float64)
    low, high = augment.crop_area_min * area, area
    aspect = 1 / augment.crop_aspect_max + u[..., 0] * (augment.crop_aspect_max - 1 / augment.crop_aspect_max)
    least = np.rint(np.sqrt(low / aspect)).astype(np.int64)
    most = np.rint(np.sqrt(high / aspect)).astype(np.int64)
    too_wide = np.rint(most * aspect) > widths
    narrowed = ((widths + 0.5 - 1e-7) / aspect).astype(np.int64)
    narrowed -= np.rint(narrowed * aspect) > widths
    most = np.minimum(np.where(too_wide, narrowed, most), heights)
    least = np.minimum(least, most)
    h = least + (u[..., 1] * (most - least + 1)).astype(np.int64)
    w = np.rint(h * aspect).astype(np.int64)
    # Rounding may exceed the bounds by a row: the kernel then tries one row more, and one less.
    h = h + (w * h < low)
    w = np.rint(h * aspect).astype(np.int64)
    h = h - (w * h > high)
    w = np.rint(h * aspect).astype(np.int64)
    valid = (w * h >= np.maximum(low, MIN_COVERED * area)) & (w * h <= high)
    valid &= (w > 0) & (w <= widths) & (h > 0) & (h <= heights)
    # Excludes the last position, as the kernel does.
    top = (u[..., 2] * np.maximum(heights - h, 0)).astype(np.int64)
    left = (u[..., 3] * np.maximum(widths - w, 0)).astype(np.int64)
    return np.stack([left, top, left + w, top + h], axis=-1).astype(np.int32), valid


def eval_boxes(widths: NDArray[np.int64], heights: NDArray[np.int64], side: int, transform: EvalTransform) -> Boxes:
    """Returns the central boxes that the transform resizes to ``side`` pixels, of at least one pixel."""
    kept = side / (side + transform.crop_pad)
    short = np.minimum(widths, heights)
    sizes = (widths, heights) if transform.crop_mode == SQUASH else (short, short)
    w, h = (np.maximum((kept * size).astype(np.int64), 1) for size in sizes)
    left, top = (widths - w + 1) // 2, (heights - h + 1) // 2
    return np.stack([left, top, left + w, top + h], axis=-1).astype(np.int32)
