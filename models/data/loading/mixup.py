"""Batch augmentation on the device: random erasing, mixup and cutmix, with labels mixed accordingly.

All choices (boxes, mixing weights, partners) come from the caller's generator on the CPU, so they are the same on every
kind of device. Images are mixed only within a call: with one call per batch slice and a generator seeded by
(seed, step, shard), the result does not depend on the number of ranks.

Soft targets are probabilities ``[B, classes]``; ``nn.CrossEntropyLoss`` accepts and smooths them like labels.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from conf import schema

Box = tuple[int, int, int, int]  # top, bottom, left, right

ERASE_AREA = (0.02, 1 / 3)  # fraction of the image
ERASE_ASPECT = (0.3, 1 / 0.3)  # height / width
ERASE_TRIES = 10


def mix_batch(
    images: Tensor, targets: Tensor, classes: int, augment: schema.Augment, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Applies the batch augmentations that ``augment`` enables; returns the arguments unchanged if it enables none.

    Args:
        images: Normalized float images ``[B, C, H, W]``; not modified.
        targets: Class indices ``[B]``.
        classes: Number of classes.
        augment: Options ``erase_prob``, ``mixup_alpha``, ``cutmix_alpha``; with both alphas, one is drawn per batch
            with equal probability.
        generator: Generator on the CPU.

    Returns:
        Images and targets: ``[B]`` indices if nothing was mixed, else probabilities ``[B, classes]`` float32.
    """
    if augment.erase_prob > 0:
        images = random_erasing(images, augment.erase_prob, generator)
    if augment.mixup_alpha == 0 and augment.cutmix_alpha == 0:
        return images, targets
    soft = nn.functional.one_hot(targets, classes).float()
    both = augment.mixup_alpha > 0 and augment.cutmix_alpha > 0
    cut = torch.rand((), generator=generator).item() < 0.5 if both else augment.cutmix_alpha > 0
    if cut:
        return cutmix(images, soft, augment.cutmix_alpha, generator)
    return mixup(images, soft, augment.mixup_alpha, generator)


def mixup(images: Tensor, targets: Tensor, alpha: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mixes each image with another of the batch, weights lam and 1 - lam; one lam ~ Beta(alpha, alpha) per batch.

    Args:
        images: Float images ``[B, C, H, W]``.
        targets: Class probabilities ``[B, classes]``.
        alpha: Parameter of the Beta distribution, > 0.
        generator: Generator on the CPU.

    Source: Zhang et al. 2018 (arXiv:1710.09412), section 2 and its code, which draws one weight per batch.
    """
    rng = _numpy_generator(generator)
    lam = float(rng.beta(alpha, alpha))
    partner = torch.from_numpy(rng.permutation(len(images))).to(images.device)
    return torch.lerp(images[partner], images, lam), torch.lerp(targets[partner], targets, lam)


def cutmix(images: Tensor, targets: Tensor, alpha: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pastes one box, the same for the whole batch, from another image; labels are mixed by its actual area.

    Arguments and shapes as in ``mixup``.

    Source: Yun et al. 2019 (arXiv:1905.04899), section 3.1 and appendix A; clovaai/CutMix-PyTorch, train.py:
        the weight is corrected after the box is clipped at the border.
    """
    rng = _numpy_generator(generator)
    height, width = images.shape[-2:]
    top, bottom, left, right = _mix_box(height, width, float(rng.beta(alpha, alpha)), rng)
    lam = 1 - (bottom - top) * (right - left) / (height * width)
    partner = torch.from_numpy(rng.permutation(len(images))).to(images.device)
    result = images.clone()
    result[..., top:bottom, left:right] = images[partner, ..., top:bottom, left:right]
    return result, torch.lerp(targets[partner], targets, lam)


def random_erasing(images: Tensor, prob: float, generator: torch.Generator) -> Tensor:
    """Replaces a box in each image with probability ``prob`` by normal noise, drawn per pixel and channel.

    Args:
        images: Normalized float images ``[B, C, H, W]``, so that N(0, 1) has their mean and deviation; not modified.
        prob: Probability in [0, 1].
        generator: Generator on the CPU. The noise itself is drawn on the device, seeded from it.

    Source: Zhong et al. 2017 (arXiv:1708.04896), algorithm 1; area, log-uniform aspect, ten tries and per-pixel
        noise: huggingface/pytorch-image-models, timm/data/random_erasing.py, mode "pixel".
    """
    rng = _numpy_generator(generator)
    noise = torch.Generator(images.device).manual_seed(int(rng.integers(2**62)))
    result = images.clone()
    for index in np.flatnonzero(rng.random(len(images)) < prob):
        box = _erase_box(images.shape[-2], images.shape[-1], rng)
        if box is None:
            continue
        top, bottom, left, right = box
        shape = (images.shape[1], bottom - top, right - left)
        result[index, :, top:bottom, left:right] = torch.randn(
            shape, generator=noise, device=images.device, dtype=images.dtype
        )
    return result


def _numpy_generator(generator: torch.Generator) -> np.random.Generator:
    """Seeds a NumPy generator from the caller's: torch cannot draw Beta numbers from a given generator."""
    return np.random.default_rng(int(torch.randint(2**62, (), generator=generator).item()))


def _mix_box(height: int, width: int, lam: float, rng: np.random.Generator) -> Box:
    """Draws a box of the image's aspect and area 1 - lam, with any center, clipped at the border."""
    half_h, half_w = (int(side * math.sqrt(1 - lam)) // 2 for side in (height, width))
    y, x = int(rng.integers(height)), int(rng.integers(width))
    return max(0, y - half_h), min(height, y + half_h), max(0, x - half_w), min(width, x + half_w)


def _erase_box(height: int, width: int, rng: np.random.Generator) -> Box | None:
    """Draws a box inside the image; None if ten tries fail."""
    for _ in range(ERASE_TRIES):
        area = rng.uniform(*ERASE_AREA) * height * width
        aspect = math.exp(rng.uniform(math.log(ERASE_ASPECT[0]), math.log(ERASE_ASPECT[1])))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if h < height and w < width:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            return top, top + h, left, left + w
    return None
