"""``webdataset.ShardWriter`` writing ImageNet's tar of tars as shards on local disk, in the archive's order.

``python -m benchmarks.rivals.shardwriter ARCHIVE FOLDER SAMPLES_PER_SHARD``. It neither shuffles nor checks nor
indexes, in its favour.
"""

from __future__ import annotations

import json
import sys
import tarfile
import time
from pathlib import Path

import webdataset


def write(archive: Path, folder: Path, samples_per_shard: int) -> int:
    """Writes all shards; returns the number of images."""
    images = 0
    pattern = str(folder / "train-%05d.tar")
    with tarfile.open(archive) as outer, webdataset.ShardWriter(pattern, samples_per_shard, verbose=0) as writer:
        for label, member in enumerate(outer):
            with tarfile.open(fileobj=outer.extractfile(member)) as inner:
                for each in inner:
                    data = inner.extractfile(each).read()  # type: ignore[union-attr]
                    writer.write({"__key__": Path(each.name).stem, "jpg": data, "cls": label})
                    images += 1
    return images


if __name__ == "__main__":
    cpu, began = time.process_time(), time.perf_counter()
    images = write(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(json.dumps({"images_per_s": images / wall, "cpu_us": 1e6 * cpu / images}))
