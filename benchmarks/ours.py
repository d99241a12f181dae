"""Our side of ``benchmarks.loader`` and ``benchmarks.shard``, in a process of its own as each rival is.

``python -m benchmarks.ours DOING ARGUMENT...``; the functions below are what it can do.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import scipy.io  # noqa: F401  # opening the devkit would import it on the clock
import torch

from benchmarks import real_images
from benchmarks.rivals import clock
from conf.schema import Augment
from infra import store
from infra.store import client as s3
from infra.store.multipart import PARTS_IN_FLIGHT
from models.data.loading import native
from models.data.loading.loader import CHUNK_IMAGES, Loader
from models.data.shards import manifest, writer
from models.networks.efficientnet.preprocessing import Normalize


def train(manifest_uri: str, cache: str, policy: str, delivered: str) -> None:
    """Training batches without end; ``delivered``: uint8 (NHWC, as the trainer gets them) or float (normalised)."""
    clock.measure(_train_batches(manifest_uri, cache, policy, delivered))
    clock.finish()


def _train_batches(manifest_uri: str, cache: str, policy: str, delivered: str) -> Iterator[int]:
    torch.set_num_threads(1)  # as in every rival
    loader = _loader(manifest_uri, cache, Augment(policy=policy))
    normalise = Normalize(torch.device("cpu"))
    epoch = 0
    while True:
        for batch in loader.train_batches(0, epoch, 0, clock.BATCH, 1, 0, 1):
            images = normalise(batch.images) if delivered == "float" else batch.images
            assert len(images) == len(batch.labels)
            yield len(images)
        epoch += 1


def entropy(manifest_uri: str) -> None:
    """Only the Huffman decode of the training images, out of memory, in two threads; no loader can be faster."""
    _, found = manifest.load(manifest_uri)
    samples = manifest.Samples(found, ["train"])
    tars = [store.read(store.join(manifest_uri.rpartition("/")[0], each.name)) for each in samples.shards]
    where = zip(samples.shard_numbers(np.arange(len(samples))), samples.rows, strict=True)
    blobs = [tars[number][row["offset"] : row["offset"] + row["size"]] for number, row in where]
    clock.measure(_entropy_batches(blobs))
    clock.finish()


def _entropy_batches(blobs: list[bytes]) -> Iterator[int]:
    library = native.load()
    chunks = itertools.cycle([blobs[start : start + CHUNK_IMAGES] for start in range(0, len(blobs), CHUNK_IMAGES)])
    with ThreadPoolExecutor(clock.WORKERS) as pool:
        coming = deque(pool.submit(_entropy_chunk, library, next(chunks)) for _ in range(4 * clock.WORKERS))
        while True:
            yield coming.popleft().result()
            coming.append(pool.submit(_entropy_chunk, library, next(chunks)))


def _entropy_chunk(library: native.Native, blobs: list[bytes]) -> int:
    assert all(library.entropy_decode(blob) for blob in blobs)
    return len(blobs)


def epoch(manifest_uri: str, cache: str) -> None:
    """One whole epoch from the first request on: images/s with whatever the cache holds at the start."""
    torch.set_num_threads(1)
    loader = _loader(manifest_uri, cache, Augment())
    began, images = time.perf_counter(), 0
    for batch in loader.train_batches(0, 0, 0, clock.BATCH, 1, 0, 1):
        images += len(batch.labels)
    print(json.dumps({"images_per_s": images / (time.perf_counter() - began)}), flush=True)
    clock.finish()


def shard(source: str, storage: str, samples_per_shard: str) -> None:
    """Writes the whole set in ``source`` as one process does, with index and manifest."""
    data = real_images.settings(Path(source), int(samples_per_shard))
    store.ensure_root(storage)
    cpu, began = time.process_time(), time.perf_counter()
    layout = writer.plan(data, storage)
    writer.write_group(layout, range(len(layout.names)))
    _, written = writer.write_manifest(layout)
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    images, sent = len(written.table), sum(each.bytes for each in written.shards)
    found = {"images_per_s": images / wall, "mib_per_s": sent / 2**20 / wall, "cpu_us": 1e6 * cpu / images}
    print(json.dumps({**found, "manifest_uri": layout.manifest_uri}))


def put(uri: str, objects: str, size: str) -> None:
    """Raw PUTs of one buffer under many names, with as many in flight as our upload has parts, signed no more than it.

    Each object is one PUT: no parts, no copies, no checksums.
    """
    data = os.urandom(int(size))

    def one(number: int) -> None:
        with s3.connect(f"{uri}/{number}", s3.STREAMING) as (client, place):  # the bare call under our upload
            client.put_object(**place, Body=data)

    began = time.perf_counter()
    with ThreadPoolExecutor(writer.SHARDS_AT_ONCE * PARTS_IN_FLIGHT) as pool:
        list(pool.map(one, range(int(objects))))
    print(json.dumps({"mib_per_s": int(objects) * int(size) / 2**20 / (time.perf_counter() - began)}))


def _loader(manifest_uri: str, cache: str, augment: Augment) -> Loader:
    _, found = manifest.load(manifest_uri)
    return Loader(found, manifest_uri, "train", clock.SIDE, augment, Path(cache), clock.WORKERS)


if __name__ == "__main__":
    doings: dict[str, Callable[..., None]] = {
        "train": train,
        "epoch": epoch,
        "entropy": entropy,
        "shard": shard,
        "put": put,
    }
    doings[sys.argv[1]](*sys.argv[2:])
