"""Batch augmentation on the device: shapes, weights that match areas, and choices that depend only on the generator."""

import math

import pytest
import torch
from matrix import with_slow_rest
from torch import Tensor

from conf.schema import Augment
from models.data.loading.mixup import cutmix, mix_batch, mixup, random_erasing


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def constant_images(count: int, side: int = 32) -> Tensor:
    """All pixels of image i are i, so a mixed pixel shows its origin."""
    return torch.arange(count, dtype=torch.float32)[:, None, None, None].expand(count, 3, side, side).contiguous()


def one_hot(count: int) -> Tensor:
    return torch.eye(count)


def test_without_augmentation_the_arguments_are_returned() -> None:
    images, targets = constant_images(4), torch.arange(4)
    got = mix_batch(images, targets, 4, Augment(), seeded())
    assert got[0] is images
    assert got[1] is targets


def test_erasing_alone_leaves_the_targets_as_indices() -> None:
    targets = torch.arange(4)
    assert mix_batch(constant_images(4), targets, 4, Augment(erase_prob=1.0), seeded())[1] is targets


@pytest.mark.parametrize("alphas", [(0.2, 0.0), (0.0, 1.0), (0.2, 1.0)])
def test_a_mixed_batch_has_the_same_shape_and_target_probabilities(alphas: tuple[float, float]) -> None:
    augment = Augment(mixup_alpha=alphas[0], cutmix_alpha=alphas[1], erase_prob=0.5)
    images, targets = mix_batch(constant_images(6), torch.arange(6), 10, augment, seeded())
    assert images.shape == (6, 3, 32, 32)
    assert targets.shape == (6, 10)
    assert torch.allclose(targets.sum(1), torch.ones(6))


def test_the_arguments_are_not_changed() -> None:
    images, targets = constant_images(6), torch.arange(6)
    for augment in (Augment(erase_prob=1.0), Augment(mixup_alpha=1.0), Augment(cutmix_alpha=1.0)):
        mix_batch(images, targets, 6, augment, seeded())
    assert torch.equal(images, constant_images(6))
    assert torch.equal(targets, torch.arange(6))


@pytest.mark.parametrize("seed", range(5))
def test_mixup_weights_images_and_targets_equally(seed: int) -> None:
    images, targets = mixup(constant_images(8), one_hot(8), 1.0, seeded(seed))
    value_by_target = targets @ torch.arange(8, dtype=torch.float32)
    assert torch.allclose(images, value_by_target[:, None, None, None].expand_as(images), atol=1e-5)


@pytest.mark.parametrize("alpha", with_slow_rest([0.2, 1.0]))
def test_mixup_weights_have_the_mean_and_variance_of_beta(alpha: float) -> None:
    draws = 2000
    shares = []
    generator = seeded()
    for _ in range(draws):
        _, targets = mixup(torch.zeros(5, 1, 1, 1), one_hot(5), alpha, generator)
        off = [i for i in range(5) if targets[i, i] < 0.999999]  # an image may be mixed with itself
        if off:
            shares.append(float(targets[off[0], off[0]]))
    values = torch.tensor(shares)
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(values.mean() - 0.5) < 4 * math.sqrt(variance / len(shares))
    assert abs(values.var() - variance) < 0.02


@pytest.mark.parametrize("seed", range(8))
def test_cutmix_targets_are_the_areas_of_the_pixels(seed: int) -> None:
    images, targets = cutmix(constant_images(8, side=48), one_hot(8), 1.0, seeded(seed))
    for image, target in zip(images, targets, strict=True):
        areas = torch.bincount(image[0].flatten().long(), minlength=8) / image[0].numel()
        assert torch.allclose(areas, target, atol=1e-6)


def test_cutmix_uses_one_box_for_all_channels() -> None:
    images, _ = cutmix(constant_images(8), one_hot(8), 1.0, seeded(3))
    assert torch.equal(images[:, 0], images[:, 1])
    assert torch.equal(images[:, 0], images[:, 2])


def test_with_both_alphas_half_of_the_batches_use_cutmix() -> None:
    augment, generator = Augment(mixup_alpha=1.0, cutmix_alpha=1.0), seeded()
    cut = 0
    for _ in range(400):
        images, _ = mix_batch(constant_images(5, side=16), torch.arange(5), 5, augment, generator)
        cut += bool(torch.equal(images, images.round()))  # only mixup produces values between those of two images
    assert 160 < cut < 240  # 4 standard deviations


def test_erasing_changes_the_configured_fraction_of_images() -> None:
    images = torch.full((2000, 1, 16, 16), 9.0)
    changed = (random_erasing(images, 0.3, seeded()) != 9.0).flatten(1).any(1).float().mean()
    assert abs(changed - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 2000)


def test_erased_boxes_have_the_area_and_aspect_bounds_of_the_source() -> None:
    erased = random_erasing(torch.full((500, 1, 64, 64), 9.0), 1.0, seeded()) != 9.0
    heights, widths = erased.any(3).sum(2).flatten().float(), erased.any(2).sum(2).flatten().float()
    areas = heights * widths / 64**2
    assert torch.equal(erased.flatten(1).sum(1).float(), heights * widths)  # one full box per image
    assert areas.min() > 0.02 * 0.9  # rounding to whole pixels
    assert areas.max() < 1 / 3 * 1.05
    assert (heights / widths).min() > 0.25
    assert (heights / widths).max() < 4.0
    assert abs(areas.mean() - (0.02 + 1 / 3) / 2) < 0.02


def test_erased_pixels_are_standard_normal_in_each_channel() -> None:
    images = random_erasing(torch.full((200, 3, 64, 64), 99.0), 1.0, seeded())
    noise = images[images != 99.0]
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01
    assert not torch.equal(images[:, 0], images[:, 1])


@pytest.mark.parametrize("augment", [Augment(erase_prob=0.5), Augment(mixup_alpha=0.2), Augment(cutmix_alpha=1.0)])
def test_the_same_seed_gives_the_same_batch_and_another_seed_another(augment: Augment) -> None:
    images, targets = torch.randn(8, 3, 32, 32, generator=seeded(9)), torch.arange(8)
    first, again, other = (mix_batch(images, targets, 8, augment, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_cross_entropy_smooths_soft_targets_as_it_does_indices() -> None:
    loss = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    logits, targets = torch.randn(8, 8, generator=seeded()), torch.arange(8)
    assert torch.allclose(loss(logits, targets), loss(logits, one_hot(8)))
