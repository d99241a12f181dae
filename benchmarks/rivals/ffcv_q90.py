"""FFCV on its own page file, with the images encoded anew: JPEG quality 90, at most 512 pixels a side.

``python -m benchmarks.rivals.ffcv_q90 write FOLDER BETON`` (once), then ``... read BETON``. It reads fewer bytes
than we do (about 60 %), of images that were encoded twice, and resizes without antialiasing (OpenCV's area
filter). Delivers uint8 NCHW views of NHWC memory.
Source of the settings: ffcv-imagenet, write_imagenet.py and train_imagenet.py, with every image as JPEG.
"""

from __future__ import annotations

import io
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ffcv.fields import IntField, RGBImageField
from ffcv.fields.basics import IntDecoder
from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import RandomHorizontalFlip, Squeeze, ToTensor, ToTorchImage
from ffcv.writer import DatasetWriter
from PIL import Image

from benchmarks.rivals import clock


class Images:
    """All (pixels, label) of the tars in ``folder``, as the writer wants them: by number."""

    def __init__(self, folder: Path) -> None:
        self.where: list[tuple[Path, int, int]] = []  # tar, offset and size of the JPEG
        self.labels: list[int] = []
        for path in sorted(folder.glob("train-*.tar")):
            with tarfile.open(path) as tar:
                for member in tar:
                    if member.name.endswith(".jpg"):
                        self.where.append((path, member.offset_data, member.size))
                    else:
                        self.labels.append(int(tar.extractfile(member).read()))  # type: ignore[union-attr]

    def __len__(self) -> int:
        return len(self.where)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        path, offset, size = self.where[index]
        with path.open("rb") as file:
            file.seek(offset)
            return Image.open(io.BytesIO(file.read(size))).convert("RGB"), self.labels[index]


def write(folder: Path, beton: Path) -> None:
    """Writes the page file."""
    image = RGBImageField(write_mode="jpg", max_resolution=512, jpeg_quality=90)
    writer = DatasetWriter(str(beton), {"image": image, "label": IntField()}, num_workers=clock.WORKERS)
    writer.from_indexed_dataset(Images(folder), chunksize=50)


def batches(beton: Path) -> Iterator[int]:
    """Sizes of the batches that arrive, without end."""
    decoder = RandomResizedCropRGBImageDecoder((clock.SIDE, clock.SIDE))
    pipelines = {
        "image": [decoder, RandomHorizontalFlip(), ToTensor(), ToTorchImage()],
        "label": [IntDecoder(), ToTensor(), Squeeze()],
    }
    loader = Loader(
        str(beton),
        batch_size=clock.BATCH,
        num_workers=clock.WORKERS,
        order=OrderOption.RANDOM,
        os_cache=True,  # its fastest way: the file is mapped, and lies in the page cache
        drop_last=True,
        pipelines=pipelines,
    )
    while True:
        for images, labels in loader:
            assert len(images) == len(labels)
            yield len(images)


if __name__ == "__main__":
    np.random.seed(0)  # its loader draws from the global generator
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        clock.measure(batches(Path(sys.argv[2])))
        clock.finish()
