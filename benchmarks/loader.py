"""Our loader beside its rivals: real JPEGs to batches of 50 at 224 pixels, two threads or worker processes each.

Every side is a process of its own, and they take turns, so that other work on the machine meets all alike. Each
warms up for about a second; then four seconds count. All read the same tars out of the page cache, but FFCV, which
has a format of its own. Rivals come with ``make rivals``; one that is not there is reported as absent.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from benchmarks import harness, real_images
from benchmarks.rivals import clock
from conf.schema import Services
from infra import store
from infra.services import stack

ROOT = Path(__file__).parents[1]
THEIRS = str(ROOT / ".venv-rivals" / "bin" / "python")
COPIES = 8  # of each image: 4,000 make an epoch that takes seconds
SAMPLES_PER_SHARD = 100  # small tars, so that an epoch streams through many, as a large set does
SIDE_TIMEOUT_S = 300
CALM, TRIES = 0.08, 3  # share of the machine that other work may take in a window that counts
Found = dict[str, dict[str, list[float]]]  # side -> measure -> values


@dataclass(frozen=True)
class Side:
    """One program of the comparison: its Python, module and arguments, and what it hands over."""

    name: str
    argv: tuple[str, ...]
    delivers: str

    @property
    def is_rival(self) -> bool:
        """Whether it may be absent."""
        return self.argv[0] == THEIRS


class AbsentError(Exception):
    """A rival does not run here; the message says why."""


def main() -> None:
    """Runs the benchmark."""
    options = harness.arguments(__doc__ or "", n=3)
    with tempfile.TemporaryDirectory(prefix="effnet-bench-") as folder:
        source = Path(folder) / "source"
        images = real_images.official_folder(source, COPIES)
        manifest_uri = _shards(source, f"file://{folder}/local")
        report = harness.Report(options.n)
        report.notes.append(f"{images} images: {images // COPIES} real ones of about 110 kB, {COPIES} times each")
        _compare_loaders(report, Path(folder), manifest_uri)
        _compare_places(report, Path(folder), manifest_uri)
    harness.show(report, options.json)


def _shards(source: Path, storage: str) -> str:
    argv = [sys.executable, "-m", "benchmarks.ours", "shard", str(source), storage, str(SAMPLES_PER_SHARD)]
    done = subprocess.run(argv, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return str(json.loads(done.stdout.strip().splitlines()[-1])["manifest_uri"])


def _compare_loaders(report: harness.Report, folder: Path, manifest_uri: str) -> None:
    tars = Path(manifest_uri.removeprefix("file://")).parent
    beton = folder / "q90.beton"
    sides = _sides(manifest_uri, str(folder / "cache"), tars, beton)
    absent = _prepare_rivals(tars, beton)
    found: Found = defaultdict(lambda: defaultdict(list))
    for _ in range(report.n):
        for side in sides:
            if side.name not in absent:
                try:
                    _measure(side, found[side.name])
                except AbsentError as error:
                    absent[side.name] = str(error)
    speed = {}
    for side in sides:
        if side.name in absent:
            report.notes.append(f"ABSENT: {side.name}: {absent[side.name]}")
            continue
        speed[side.name] = report.add(side.name, found[side.name]["images_per_s"], "images/s")
        report.add("    its CPU", found[side.name]["cpu_ms"], "ms an image")
        report.add("    its memory, all processes", found[side.name]["rss_mb"], "MB resident")
        report.add(
            "    other work meanwhile", [100 * share for share in found[side.name]["others"]], "% of the machine"
        )
        report.notes.append(f"{side.name}: {side.delivers}")
    _ratios(report, speed)


def _sides(manifest_uri: str, cache: str, tars: Path, beton: Path) -> list[Side]:
    ours = (sys.executable, "-m", "benchmarks.ours")
    rivals = (THEIRS, "-m")
    webdataset = (*rivals, "benchmarks.rivals.webdataset_pillow", str(tars))
    return [
        Side("ours", (*ours, "train", manifest_uri, cache, "none", "uint8"), "uint8 NHWC, antialiased bicubic"),
        Side(
            "ours, float",
            (*ours, "train", manifest_uri, cache, "none", "float"),
            "normalised float32 NCHW, converted a batch at a time by the trainer's own code",
        ),
        Side("ours, AutoAugment v0", (*ours, "train", manifest_uri, cache, "v0", "uint8"), "uint8 NHWC"),
        Side(
            "entropy limit",
            (*ours, "entropy", manifest_uri),
            "nothing: the Huffman decode of the same bytes in memory, two threads",
        ),
        Side(
            "webdataset_pillow",
            (*webdataset, "float"),
            "normalised float32 NCHW, antialiased bicubic: its documentation's pattern",
        ),
        Side("webdataset_pillow, uint8", (*webdataset, "uint8"), "uint8 NHWC: kinder than its documentation"),
        Side("dali_cubic", (*rivals, "benchmarks.rivals.dali_cubic", str(tars)), "uint8 NHWC, antialiased cubic"),
        Side(
            "ffcv",
            (*rivals, "benchmarks.rivals.ffcv_q90", "read", str(beton)),
            "uint8 NCHW, resized without antialiasing; images encoded anew (JPEG q90, <= 512 px): fewer bytes",
        ),
    ]


def _ratios(report: harness.Report, speed: dict[str, float]) -> None:
    for key, side, rival in (
        ("ours/webdataset_pillow", "ours, float", "webdataset_pillow"),
        ("ours/webdataset_pillow_uint8", "ours", "webdataset_pillow, uint8"),
        ("ours/dali_cubic", "ours", "dali_cubic"),
        ("ours/ffcv", "ours", "ffcv"),
        ("autoaugment/plain", "ours, AutoAugment v0", "ours"),
        ("ours/entropy_limit", "ours", "entropy limit"),
    ):
        if rival in speed:
            report.ratios[key] = speed[side] / speed[rival]


def _prepare_rivals(tars: Path, beton: Path) -> dict[str, str]:
    """Writes what only one rival reads; rival -> why it cannot be measured."""
    absent: dict[str, str] = {}
    (tars / "dali").mkdir()
    for tar in tars.glob("train-*.tar"):
        index = tars / "dali" / f"{tar.stem}.idx"
        _try(absent, "dali_cubic", [str(Path(THEIRS).parent / "wds2idx"), str(tar), str(index)])
    _try(absent, "ffcv", [THEIRS, "-m", "benchmarks.rivals.ffcv_q90", "write", str(tars), str(beton)])
    return absent


def _try(absent: dict[str, str], rival: str, argv: list[str]) -> None:
    try:
        _run(argv)
    except AbsentError as error:
        absent[rival] = str(error)


def _run(argv: list[str]) -> str:
    """What a program printed; ``AbsentError`` with its last words where it failed."""
    if not Path(argv[0]).exists():
        raise AbsentError(f"{argv[0]} is not there; make rivals")
    try:
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=SIDE_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise AbsentError(f"no answer in {SIDE_TIMEOUT_S} s") from error
    if done.returncode:
        words = done.stderr.strip().splitlines() or ["no message"]
        raise AbsentError(f"exit code {done.returncode}: {words[-1]}")
    return done.stdout


def _measure(side: Side, found: dict[str, list[float]]) -> None:
    """Runs one side until other work left it the machine, at most three times. What fails of ours is our fault."""
    tries: list[dict[str, float]] = []
    while len(tries) < TRIES and (not tries or tries[-1].get("others", 0) > CALM):
        _wait_for_calm()
        try:
            tries.append(json.loads(_run(list(side.argv)).strip().splitlines()[-1]))
        except AbsentError as error:
            if not side.is_rival:
                raise SystemExit(f"{side.name}: {error}") from error
            raise
    for measure, value in min(tries, key=lambda each: each.get("others", 0)).items():
        found[measure].append(value)


def _wait_for_calm() -> None:
    """Until other work takes less than ``CALM`` of the machine, or for half a minute."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        busy = clock.busy_s()
        time.sleep(0.5)
        if clock.busy_s() - busy < 0.5 * CALM * (os.cpu_count() or 1):
            return


def _compare_places(report: harness.Report, folder: Path, manifest_uri: str) -> None:
    """A whole epoch from the embedded object store into an empty cache, against one from warm local disk."""
    stack.up(folder, Services(), jobs_at_once=1, say=lambda _: None, only=("s3",))
    try:
        remote = _copied_to_store(manifest_uri)
        found: Found = defaultdict(lambda: defaultdict(list))
        for turn in range(-1, report.n):  # the first turn warms up and does not count
            for name, uri, cache in (("disk", manifest_uri, "warm"), ("store", remote, f"cold-{turn}")):
                argv = (sys.executable, "-m", "benchmarks.ours", "epoch", uri, str(folder / cache))
                _measure(Side(name, argv, ""), found[name] if turn >= 0 else defaultdict(list))
            shutil.rmtree(folder / f"cold-{turn}")  # or each turn would be given memory that was never used before
    finally:
        stack.down(folder)
    disk = report.add("ours, one epoch from warm local disk", found["disk"]["images_per_s"], "images/s")
    cold = report.add("ours, one epoch from the store, cache empty", found["store"]["images_per_s"], "images/s")
    report.ratios["store/local"] = cold / disk


def _copied_to_store(manifest_uri: str) -> str:
    root = manifest_uri.rpartition("/")[0]
    store.ensure_root("s3://effnet")
    for uri in store.list_uris(root):
        store.upload(Path(uri.removeprefix("file://")), uri.replace(root, "s3://effnet/bench"))
    return "s3://effnet/bench/manifest.json"


if __name__ == "__main__":
    main()
