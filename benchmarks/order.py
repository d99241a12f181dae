"""What a manifest of ImageNet's size costs: opening it, an epoch's order, a resume in the middle, and memory.

The manifest is made up; all its shards are one small tar of made-up JPEGs under many names, so that the first batch
after a resume is a real one. No rival: the bar is two seconds for each.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import xxhash
from blake3 import blake3
from PIL import Image

from benchmarks import harness
from benchmarks.rivals import clock
from conf.schema import Augment

ROOT = Path(__file__).parents[1]
BATCH = 4096  # the paper's
SETS = {  # name -> (samples, shards)
    "ImageNet, 1,024 shards": (1_281_167, 1_024),
    "ImageNet, 10,000 shards": (1_281_167, 10_000),
    "ten times ImageNet, 10,000 shards": (12_811_670, 10_000),
}


def main() -> None:
    """Runs the benchmark."""
    options = harness.arguments(__doc__ or "", n=5)
    report = harness.Report(options.n)
    for name, (samples, shards) in SETS.items():
        with tempfile.TemporaryDirectory(prefix="effnet-bench-") as folder:
            _make_up(Path(folder), samples, shards)
            found = defaultdict(list)
            for turn in range(options.n):
                argv = [sys.executable, "-m", "benchmarks.order", "--child", folder, str(turn)]
                done = subprocess.run(argv, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
                for (measure, unit), value in zip(MEASURES, json.loads(done.stdout.splitlines()[-1]), strict=True):
                    found[measure, unit].append(value)
        for (measure, unit), values in found.items():
            report.add(f"{name}: {measure}", values, unit)
    harness.show(report, options.json)


MEASURES = (
    ("open", "s"),
    ("epoch's order", "s"),
    ("resume, to the first batch", "s"),
    ("memory of the loader", "MB resident"),
)


def child(folder: str, turn: str) -> None:
    """One process: opens, orders, resumes at a step that differs by ``turn``; prints the values of ``MEASURES``."""
    from models.data.loading import order
    from models.data.loading.loader import Loader
    from models.data.shards import manifest

    uri = f"file://{folder}/manifest.json"
    before, began = clock.rss_mb(), time.perf_counter()
    _, found = manifest.load(uri)
    loader = Loader(found, uri, "train", 32, Augment(), Path(folder) / "cache", clock.WORKERS)
    opened = time.perf_counter() - began
    began = time.perf_counter()
    order.epoch_order([shard.samples for shard in found.shards], 0, 1)
    ordered = time.perf_counter() - began
    step = (1 + 2 * int(turn)) * (len(found.table) // BATCH) // 12
    began = time.perf_counter()
    next(loader.train_batches(0, 1, step, BATCH, 64, 0, 64))
    print(json.dumps([opened, ordered, time.perf_counter() - began, clock.rss_mb() - before]), flush=True)
    clock.finish()


def _make_up(folder: Path, samples: int, shards: int) -> None:
    """A manifest and its shards in ``folder``."""
    from models.data.shards import manifest

    rng = np.random.default_rng(0)
    images = []
    for _ in range(64):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(buffer, "JPEG")
        images.append(buffer.getvalue())
    tar = b"".join(images)  # nothing reads the headers that a real one has between them
    digest = blake3(tar).hexdigest()
    one = np.zeros(len(images), manifest.TABLE)
    one["size"] = [len(image) for image in images]
    one["offset"] = np.concatenate([[0], np.cumsum(one["size"])[:-1]])
    one["width"] = one["height"] = 64
    one["xxh3"] = [xxhash.xxh3_64_intdigest(image) for image in images]
    counts = np.full(shards, samples // shards)
    counts[: samples % shards] += 1
    names = [f"train-{number:05d}.tar" for number in range(shards)]
    (folder / names[0]).write_bytes(tar)
    for name in names[1:]:
        (folder / name).hardlink_to(folder / names[0])
    table = np.concatenate([np.resize(one, count) for count in counts])
    entries = tuple(
        manifest.Shard(name, "train", int(count), len(tar), digest) for name, count in zip(names, counts, strict=True)
    )
    manifest.save(manifest.Manifest("made-up", ("one",), "none", "original", entries, table), f"file://{folder}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
    else:
        main()
