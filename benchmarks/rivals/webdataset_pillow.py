"""webdataset as its documentation shows it: ``decode("pil")``, transforms, DataLoader workers.

``python -m benchmarks.rivals.webdataset_pillow FOLDER float|uint8``. ``float`` is the documentation's pattern:
normalised float32 NCHW. ``uint8`` is kinder than anything in its documentation: NHWC bytes, a quarter of the
copying. The transforms are torchvision's RandomResizedCrop (bicubic, antialiased), RandomHorizontalFlip, ToTensor
and Normalize on Pillow images, operation by operation: torchvision itself cannot be imported beside a CPU-only torch.
The documentation's second shuffle, of decoded images in the main process, is left out, in the rival's favour.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import webdataset
from PIL import Image
from torch import Tensor

from benchmarks.rivals import clock

MEAN = torch.tensor(clock.MEAN_RGB).view(3, 1, 1) / 255
STD = torch.tensor(clock.STDDEV_RGB).view(3, 1, 1) / 255


def crop_and_flip(image: Image.Image) -> Image.Image:
    """Random resized crop and flip, as torchvision does them on a Pillow image."""
    left, top, width, height = _box(image.width, image.height)
    image = image.crop((left, top, left + width, top + height))
    image = image.resize((clock.SIDE, clock.SIDE), Image.Resampling.BICUBIC)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else image


def to_float(image: Image.Image) -> Tensor:
    """``[3, S, S]`` float32, normalised: what ToTensor and Normalize do."""
    pixels = torch.from_numpy(np.array(crop_and_flip(image))).permute(2, 0, 1).contiguous()
    return pixels.float().div(255).sub_(MEAN).div_(STD)


def to_uint8(image: Image.Image) -> Tensor:
    """``[S, S, 3]`` uint8."""
    return torch.from_numpy(np.array(crop_and_flip(image)))


def _box(width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, width, height. Source: torchvision RandomResizedCrop.get_params, drawn with ``random``: faster."""
    for _ in range(10):
        area = width * height * random.uniform(0.08, 1.0)
        aspect = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return random.randint(0, width - w), random.randint(0, height - h), w, h
    edge = min(width, height)
    return (width - edge) // 2, (height - edge) // 2, edge, edge


def batches(folder: Path, transform: Callable[[Image.Image], Tensor]) -> Iterator[int]:
    """Sizes of the batches that arrive, without end."""
    urls = sorted(str(path) for path in folder.glob("train-*.tar"))
    dataset = (
        webdataset.WebDataset(urls, resampled=True, shardshuffle=False)
        .shuffle(1000)
        .decode("pil")
        .to_tuple("jpg", "cls")
    )
    dataset = dataset.map_tuple(transform, int).batched(clock.BATCH)
    for images, labels in webdataset.WebLoader(dataset, batch_size=None, num_workers=clock.WORKERS):
        assert len(images) == len(labels)
        yield len(images)


if __name__ == "__main__":
    torch.set_num_threads(1)  # as DataLoader sets it in its workers
    clock.measure(batches(Path(sys.argv[1]), {"float": to_float, "uint8": to_uint8}[sys.argv[2]]))
    clock.finish()
