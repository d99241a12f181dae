"""What this machine has for a training: memory of its GPUs, and the time in which a core makes a training image."""

from __future__ import annotations

import io
import logging
import time

import numpy as np
import torch
from PIL import Image

from conf import schema
from models.data.loading import auto_augment, crops, decode
from models.data.loading.randomness import uniforms
from models.networks.memory import USABLE, exceeds_gpu, plan
from models.networks.packaged import photograph
from models.training import distributed
from models.training.distributed import Ranks

log = logging.getLogger("effnet")
WIDTH, HEIGHT = 500, 375  # the most frequent size of ImageNet's images
QUALITY = 98  # the JPEGs have 104 kB on average; ImageNet's have 115 kB (147.9 GB of 1,281,167 images)


def gpu_bytes() -> list[int]:
    """Returns the memory of every GPU that torch can use, in bytes."""
    return [torch.cuda.get_device_properties(device).total_memory for device in range(torch.cuda.device_count())]


def must_recompute(job: schema.Job, classes: int, ranks: Ranks) -> bool:
    """Decides before the first step whether activations are recomputed; the results are the same, steps are slower.

    The same answer on all ranks: where batch norm is synchronized, the recomputation exchanges messages too.
    """
    if job.recipe.recompute or ranks.device.type != "cuda":
        return job.recipe.recompute
    bf16 = job.recipe.precision in ("bf16", "auto")
    planned = plan(job.model, job.recipe, classes, ranks.replicas, ranks.stages, bf16=bf16).total
    device_bytes = torch.cuda.get_device_properties(ranks.device).total_memory
    recompute = distributed.any_rank(exceeds_gpu(planned, device_bytes, ranks.stages))
    if recompute and ranks.is_first:
        log.warning(
            "activations are recomputed (recipe.recompute=true): a step needs %.1f GB, and %.0f %% of the smallest "
            "GPU may be planned; the result is the same, a step takes about a third longer",
            planned / 1e9,
            100 * USABLE,
        )
    return recompute


def image_cpu_s(augment: schema.Augment, side: int, n: int = 200) -> float:
    """Measures the CPU time in seconds in which one thread makes a training image, as the loader makes it.

    Args:
        augment: Crops and augmentation.
        side: Side of the training image in pixels.
        n: Number of images, of the two landscape photographs at ImageNet's most frequent size.
    """
    blobs = [_imagenet_sized(name) for name in ("china", "flower")] * (n // 2)
    draws = uniforms(0, 0, np.arange(len(blobs)), crops.DRAWS + auto_augment.draws(augment))
    widths, heights = np.full(len(blobs), WIDTH), np.full(len(blobs), HEIGHT)
    boxes, flips = crops.train_boxes(widths, heights, draws[:, : crops.DRAWS], augment, side)
    ops = auto_augment.sample_ops(augment, draws[:, crops.DRAWS :], side)
    pixels = np.empty((len(blobs), side, side, 3), np.uint8)
    decode.fill(pixels[:2], blobs[:2], boxes[:2], flips[:2])  # the first call loads the library
    began = time.thread_time()
    decode.fill(pixels, blobs, boxes, flips, ops)
    return (time.thread_time() - began) / len(blobs)


def _imagenet_sized(name: str) -> bytes:
    picture = Image.open(io.BytesIO(photograph(name))).convert("RGB").resize((WIDTH, HEIGHT))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()
