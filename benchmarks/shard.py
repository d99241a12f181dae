"""Writing shards: our CPU beside ``webdataset.ShardWriter``'s, and our upload beside raw PUTs of as many bytes.

8,000 images, 889 MB, out of the page cache, both from the same tar of tars; ours takes the 250 validation images too.
Ours shuffles globally, indexes every image and hashes every shard; ShardWriter copies in the archive's order. Images
are not decoded to verify them: ShardWriter cannot, and it would be all that is measured. Each side runs in a process
of its own and counts from after its imports; they take turns. CPU is compared on one pinned core: two threads that
share a physical core are charged more for the same work. Raw PUTs are one unsigned request an object, as our parts are.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from benchmarks import harness, real_images
from conf.schema import Services
from infra import store
from infra.services import stack

ROOT = Path(__file__).parents[1]
COPIES = 16  # of each image
SAMPLES_PER_SHARD = 1250  # as for the real ImageNet
Found = dict[str, list[float]]


def main() -> None:
    """Runs the benchmark."""
    options = harness.arguments(__doc__ or "", n=5)
    with tempfile.TemporaryDirectory(prefix="effnet-bench-") as folder:
        source = Path(folder) / "source"
        images = real_images.official_folder(source, COPIES)
        report = harness.Report(options.n)
        report.notes.append(f"{images} images; verification by decoding is off on our side")
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {max(cores)})
        _compare_cpu(report, source)
        os.sched_setaffinity(0, cores)
        stack.up(Path(folder), Services(), jobs_at_once=1, say=lambda _: None, only=("s3",))
        try:
            _compare_upload(report, source)
        finally:
            stack.down(Path(folder))
    harness.show(report, options.json)


def _compare_cpu(report: harness.Report, source: Path) -> None:
    ours: Found = defaultdict(list)
    theirs: Found = defaultdict(list)
    target = source.with_name("target")
    for turn in range(-1, report.n):  # the first turn warms up and does not count
        for found, argv in (
            (ours, ("benchmarks.ours", "shard", source, f"file://{target}", SAMPLES_PER_SHARD)),
            (theirs, ("benchmarks.rivals.shardwriter", source / real_images.ARCHIVE.name, target, SAMPLES_PER_SHARD)),
        ):
            target.mkdir()
            _run(argv, found if turn >= 0 else defaultdict(list))
            shutil.rmtree(target)
    cpu = {}
    for name, found in (("ours to local disk", ours), ("webdataset.ShardWriter to local disk", theirs)):
        cpu[name] = report.add(name, found["cpu_us"], "us CPU an image")
        report.add("    by the clock", found["images_per_s"], "images/s")
    ours_us, theirs_us = cpu.values()
    report.ratios["cpu_ours/shardwriter"] = ours_us / theirs_us


def _compare_upload(report: harness.Report, source: Path) -> None:
    ours: Found = defaultdict(list)
    raw: Found = defaultdict(list)
    for turn in range(-1, report.n):
        uri = "s3://effnet/bench"
        _run(("benchmarks.ours", "shard", source, uri, SAMPLES_PER_SHARD), ours if turn >= 0 else defaultdict(list))
        sizes = [store.size(each) for each in store.list_uris(uri) if each.endswith(".tar")]
        store.delete_prefix(uri)
        _run(
            ("benchmarks.ours", "put", uri, len(sizes), sum(sizes) // len(sizes)),
            raw if turn >= 0 else defaultdict(list),
        )
        store.delete_prefix(uri)
    sent = report.add("ours to the store", ours["mib_per_s"], "MiB/s")
    report.add("    its CPU", ours["cpu_us"], "us an image")
    limit = report.add("raw PUTs of objects of the same sizes", raw["mib_per_s"], "MiB/s")
    report.ratios["ours/raw_put"] = sent / limit


def _run(argv: tuple[object, ...], found: Found) -> None:
    words = [sys.executable, "-m", *map(str, argv)]
    done = subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    for measure, value in json.loads(done.stdout.strip().splitlines()[-1]).items():
        if isinstance(value, float):
            found[measure].append(value)


if __name__ == "__main__":
    main()
