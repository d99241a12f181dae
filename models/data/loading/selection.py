"""Selects samples by id, and decodes single images with the evaluation transform."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

from conf.data_set import EvalTransform
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

    def squares(self, side: int, transform: EvalTransform) -> Pixels:
        """Decodes the images for a network of that resolution, ``[N, side, side, 3]``."""
        widths, heights = (self.rows[key].astype(np.int64) for key in ("width", "height"))
        return transform_images(self.blobs, widths, heights, side, transform)


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


def transform_images(
    blobs: Sequence[bytes], widths: NDArray[np.int64], heights: NDArray[np.int64], side: int, transform: EvalTransform
) -> Pixels:
    """Decodes encoded images of known sizes as the evaluation does, ``[N, side, side, 3]``."""
    out = np.empty((len(blobs), side, side, 3), np.uint8)
    boxes = crops.eval_boxes(widths, heights, side, transform)
    decode.fill(out, blobs, boxes, np.zeros(len(blobs), np.bool_), interpolation=transform.interpolation)
    return out


def decode_squares(photographs: Mapping[str, bytes], side: int, transform: EvalTransform) -> Pixels:
    """Decodes images by name as the evaluation does, ``[N, side, side, 3]``.

    Raises:
        DataError: a photograph cannot be used; the message names it.
    """
    headers = [_check(name, data) for name, data in photographs.items()]
    widths, heights = (np.array([getattr(header, key) for header in headers]) for key in ("width", "height"))
    return transform_images(list(photographs.values()), widths, heights, side, transform)


def _check(name: str, data: bytes) -> ImageInfo:
    try:
        return check_image(data, name, decode=True)
    except DataError as error:
        raise DataError(f"photograph {name}: {error}") from error
