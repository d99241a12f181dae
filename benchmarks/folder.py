"""How long the plan of a folder's shards takes: with no image known yet, with all known, with 100 new ones.

50,000 JPEGs of about 16 KB in 50 classes on a local disk, in the system's cache; the object store is a folder. The
rival is the first plan, which reads every image: before their digests were kept, every command did. As many images as
ImageNet has: ``--images 1281167 --side 32`` (5 GB of disk).
"""

from __future__ import annotations

import io
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import harness
from conf import compose, schema
from models.data.shards import contents, layout
from models.data.sources.files import walk

PER_CLASS, NEW, KINDS = 1_000, 100, 200


def main() -> None:
    """Runs the benchmark."""
    parser = harness.parser(__doc__ or "", n=3)
    parser.add_argument("--images", type=int, default=50_000, help="number of images")
    parser.add_argument("--side", type=int, default=224, help="side of an image in pixels")
    options = parser.parse_args()
    classes = options.images // PER_CLASS
    report = harness.Report(options.n)
    names = ("first", "unchanged", f"{NEW} new")
    times: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory(prefix="effnet-bench-") as folder:
        images, storage = Path(folder, "images"), f"file://{folder}/store"
        bodies = list(_make_bodies(options.side))
        _write(images, bodies, classes, range(options.images))
        data = compose.compose(["data=folder", f"data.path={images}", "data.name=bench"]).data
        for number in range(options.n):
            time.sleep(walk.RECENT_S + 1)  # what was written just now is read again
            contents.forget(f"{storage}/data/{data.name}")
            times["first"].append(_plan(data, storage))
            times["unchanged"].append(_plan(data, storage))
            first = options.images + number * NEW
            _write(images, bodies, classes, range(first, first + NEW))
            times[f"{NEW} new"].append(_plan(data, storage))
    for name in names:
        report.add(f"plan of {options.images:,} images, {name}", times[name], "s")
    for name in names[1:]:
        report.ratios[f"first/{name}"] = statistics.median(times["first"]) / statistics.median(times[name])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    size = statistics.fmean(map(len, bodies)) / 1000
    report.notes.append(f"{os.cpu_count()} cores; {size:.1f} KB an image; at most {peak:.2f} GB of memory")
    harness.show(report, options.json)


def _plan(data: schema.Data, storage: str) -> float:
    began = time.perf_counter()
    layout.plan(data, storage)
    return time.perf_counter() - began


def _make_bodies(side: int) -> Iterator[bytes]:
    """Yields JPEGs of noise in blocks, which compress about as photographs do."""
    block = 14 if side >= 224 else 8
    rng = np.random.default_rng(0)
    for _ in range(KINDS):
        noise = rng.integers(0, 255, (side // block, side // block, 3), np.uint8)
        blocks = np.kron(noise, np.ones((block, block, 1), np.uint8))
        Image.fromarray(blocks).save(buffer := io.BytesIO(), "JPEG", quality=85)
        yield buffer.getvalue()


def _write(folder: Path, bodies: list[bytes], classes: int, numbers: Iterable[int]) -> None:
    """Writes images, each with its number as a comment, so that no two have the same bytes."""
    for number in numbers:
        path = folder / f"class{number % classes:04}" / f"{number:07}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        body = bodies[number % KINDS]
        path.write_bytes(body[:2] + b"\xff\xfe\x00\x0a" + b"%08d" % number + body[2:])


if __name__ == "__main__":
    main()
