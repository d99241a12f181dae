"""Selects samples by id, and decodes single images with the evaluation transform."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

from conf.training import BICUBIC
from infra import store
from infra.errors import ConfigError, DataError
from models.data.loading import crops, decode
from models.data.loading.decode import Pixels
from models.data.shards.image_check import ImageInfo, check_image
from models.data.shards.manifest import Manifest, Samples, shard_uri


@dataclass(frozen=True)
class SampleSelection:
    """Selected samples of a split, encoded as in the shards."""

    ids: list[int]
    labels: list[int]
    blobs: list[bytes]
    rows: NDArray[np.void]  # of the manifest's table

    def squares(self, side: int, crop_pad: int, interpolation: str = BICUBIC) -> Pixels:
        """Decodes the evaluation crop for a network of that resolution, ``[N, side, side, 3]``."""
        widths, heights = (self.rows[key].astype(np.int64) for key in ("width", "height"))
        boxes = crops.eval_boxes(widths, heights, side, crop_pad)
        out = np.empty((len(self.ids), side, side, 3), np.uint8)
        decode.fill(out, self.blobs, boxes, np.zeros(len(self.ids), np.bool_), interpolation=interpolation)
        return out


def distinct_classes(manifest: Manifest, split: str, count: int) -> list[int]:
    """Returns the first sample of the ``count`` classes that appear first in the split, which sharding has shuffled.

    Fewer samples if the split has fewer classes.
    """
    first: dict[int, int] = {}
    for number, label in enumerate(Samples(manifest, [split]).rows["label"].tolist()):
        first.setdefault(label, number)
        if len(first) == count:
            break
    return list(first.values())


def read(manifest: Manifest, manifest_uri: str, split: str, ids: Sequence[int]) -> SampleSelection:
    """Reads samples by range requests and verifies their checksums.

    Raises:
        ConfigError: the split does not contain an id.
        DataError: the bytes do not match the manifest.
    """
    samples = Samples(manifest, [split])
    if outside := [number for number in ids if not 0 <= number < len(samples)]:
        raise ConfigError(f"{manifest.name}: {split} has no image {outside[0]}; ids are 0 to {len(samples) - 1}")
    id_array = np.array(ids, np.int64)
    rows = samples.rows[id_array]
    root = manifest_uri.rpartition("/")[0]
    blobs = []
    for number, shard, row in zip(ids, samples.shard_numbers(id_array).tolist(), rows, strict=True):
        uri = shard_uri(root, samples.shards[shard])
        data = store.read_range(uri, int(row["offset"]), int(row["size"]))
        if xxhash.xxh3_64_intdigest(data) != int(row["xxh3"]):
            raise DataError(f"shard {uri}, sample {number}: its checksum does not match the manifest")
        blobs.append(data)
    return SampleSelection(list(ids), rows["label"].tolist(), blobs, rows)


def decode_squares(photographs: Mapping[str, bytes], side: int, crop_pad: int) -> Pixels:
    """Decodes the evaluation crops of images by name, ``[N, side, side, 3]``.

    Raises:
        DataError: a photograph cannot be used; the message names it.
    """
    headers = [_check(name, data) for name, data in photographs.items()]
    widths, heights = (np.array([getattr(header, key) for header in headers]) for key in ("width", "height"))
    out = np.empty((len(headers), side, side, 3), np.uint8)
    boxes = crops.eval_boxes(widths, heights, side, crop_pad)
    decode.fill(out, list(photographs.values()), boxes, np.zeros(len(headers), np.bool_))
    return out


def _check(name: str, data: bytes) -> ImageInfo:
    try:
        return check_image(data, name, decode=True)
    except DataError as error:
        raise DataError(f"photograph {name}: {error}") from error
