"""A small data set in a store, written by hand: its shards, its manifest, and what each sample is."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xxhash
from blake3 import blake3
from PIL import Image

from infra import store
from models.data.shards import manifest as manifests
from models.data.shards.manifest import TABLE, Manifest, Shard


@dataclass(frozen=True)
class MadeSet:
    """What was written, and where."""

    manifest: Manifest
    uri: str
    images: list[bytes]  # by row of the manifest's table


def image_bytes(number: int, side: int = 24) -> bytes:
    """A JPEG of smooth noise that no other number gives; sizes differ."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    coarse.resize((side + number % 7, side + number % 5), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def tar_of(images: Sequence[bytes], padding: int = 0) -> tuple[bytes, list[int]]:
    """A tar of these images, and the offset of each; with ``padding`` incompressible bytes after each."""
    buffer, offsets = io.BytesIO(), []
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for i, data in enumerate(images):
            for name, content in ((f"{i:05d}.jpg", data), (f"{i:05d}.pad", np.random.default_rng(i).bytes(padding))):
                if content:
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
                    if name.endswith(".jpg"):
                        offsets.append(buffer.tell() - -(-len(content) // 512) * 512)
    return buffer.getvalue(), offsets


def write_set(root_uri: str, shards: dict[str, Sequence[int]], padding: int = 0) -> MadeSet:
    """Writes shards of made-up images.

    Args:
        root_uri: folder in the store.
        shards: split -> samples of each of its shards.
        padding: bytes in the tar after each image, to make large shards quickly.
    """
    entries, rows, images = [], [], []
    for split, sizes in shards.items():
        for number, samples in enumerate(sizes):
            own = [image_bytes(len(images) + i) for i in range(samples)]
            tar, offsets = tar_of(own, padding)
            name = f"{split}-{number:05d}-of-{len(sizes):05d}.tar"
            store.write(store.join(root_uri, name), tar)
            entries.append(Shard(name, split, samples, len(tar), blake3(tar).hexdigest()))
            part = np.zeros(samples, TABLE)
            part["offset"], part["size"] = offsets, [len(data) for data in own]
            part["label"] = [(len(images) + i) % 10 for i in range(samples)]
            part["xxh3"] = [xxhash.xxh3_64_intdigest(data) for data in own]
            part["width"] = [24 + (len(images) + i) % 7 for i in range(samples)]
            part["height"] = [24 + (len(images) + i) % 5 for i in range(samples)]
            images += own
            rows.append(part)
    classes = tuple(f"class {i}" for i in range(10))
    manifest = Manifest("made", classes, "made up", "original", tuple(entries), np.concatenate(rows))
    manifests.save(manifest, root_uri)
    return MadeSet(manifest, store.join(root_uri, "manifest.json"), images)
