"""How long the plan of a folder's shards takes: with no image known yet, with all known, with 100 new ones.

50,000 JPEGs of about 16 KB in 50 classes on a local disk, in the system's cache; the object store is a folder. The
rival is the first plan, which reads every image: before their digests were kept, every command did.
"""

from __future__ import annotations

import io
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import harness
from conf import compose, schema
from models.data.shards import contents, layout
from models.data.sources.files import walk

IMAGES, CLASSES, NEW, KINDS = 50_000, 50, 100, 200


def main() -> None:
    """Runs the benchmark."""
    options = harness.arguments(__doc__ or "", n=3)
    report = harness.Report(options.n)
    names = ("first", "unchanged", f"{NEW} new")
    times: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory(prefix="effnet-bench-") as folder:
        images, storage = Path(folder, "images"), f"file://{folder}/store"
        bodies = list(_make_bodies())
        _write(images, bodies, 0, IMAGES)
        data = compose.compose(["data=folder", f"data.path={images}", "data.name=bench"]).data
        for number in range(options.n):
            time.sleep(walk.RECENT_S + 1)  # what was written just now is read again
            contents.forget(f"{storage}/data/{data.name}")
            times["first"].append(_plan(data, storage))
            times["unchanged"].append(_plan(data, storage))
            first = IMAGES + number * NEW
            _write(images, bodies, first, first + NEW)
            times[f"{NEW} new"].append(_plan(data, storage))
    for name in names:
        report.add(f"plan of {IMAGES:,} images, {name}", times[name], "s")
    for name in names[1:]:
        report.ratios[f"first/{name}"] = statistics.median(times["first"]) / statistics.median(times[name])
    report.notes.append(f"{os.cpu_count()} cores; {statistics.fmean(map(len, bodies)) / 1000:.1f} KB an image")
    harness.show(report, options.json)


def _plan(data: schema.Data, storage: str) -> float:
    began = time.perf_counter()
    layout.plan(data, storage)
    return time.perf_counter() - began


def _make_bodies() -> Iterator[bytes]:
    """Yields JPEGs of noise in blocks, which compress about as photographs do."""
    rng = np.random.default_rng(0)
    for _ in range(KINDS):
        blocks = np.kron(rng.integers(0, 255, (16, 16, 3), np.uint8), np.ones((14, 14, 1), np.uint8))
        Image.fromarray(blocks).save(buffer := io.BytesIO(), "JPEG", quality=85)
        yield buffer.getvalue()


def _write(folder: Path, bodies: list[bytes], first: int, last: int) -> None:
    """Writes images, each with its number as a comment, so that no two have the same bytes."""
    for number in range(first, last):
        path = folder / f"class{number % CLASSES:02}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        body = bodies[number % KINDS]
        path.write_bytes(body[:2] + b"\xff\xfe\x00\x0a" + b"%08d" % number + body[2:])


if __name__ == "__main__":
    main()
