"""Decoding and random resized crops at 224 pixels on one core: ours, its fallbacks, Pillow, OpenCV, and the limit.

Every side gets the same real images, boxes and flips, in turn by blocks of 20, so that a busy machine slows all of them
alike; times are CPU time of the one pinned core. The limit is the Huffman decode of the whole images, which is in every
decoder of whole images; ours may pass it, because it stops after the last row of the box.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks import harness, real_images
from conf.schema import Augment
from models.data.loading import crops, decode, native

SIDE, BLOCK, IMAGES = 224, 20, 300
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Work:
    """Images with what is to be made of them."""

    blobs: list[bytes]
    boxes: NDArray[np.int32]
    flips: NDArray[np.bool_]

    def block(self, start: int) -> Work:
        """``BLOCK`` of them."""
        part = slice(start, start + BLOCK)
        return Work(self.blobs[part], self.boxes[part], self.flips[part])


Side = Callable[[Work, Pixels], None]


def main() -> None:
    """Runs the benchmark."""
    options = harness.arguments(__doc__ or "", n=7)
    real_images.archive()
    if (state := decode.backends()["native"]) != "ok":
        print(f"the C decoder does not work here: {state}", file=sys.stderr)
        raise SystemExit(2)
    if hasattr(os, "sched_setaffinity"):  # Linux
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    harness.show(_measure(_work(), options.n), options.json)


def _work() -> Work:
    with tarfile.open(real_images.archive()) as outer:
        blobs = [blob for member in outer.getmembers()[:IMAGES] for blob in _images(outer.extractfile(member))]
    sizes = np.array([Image.open(io.BytesIO(blob)).size for blob in blobs], np.int64)
    u = np.random.default_rng(0).random((len(blobs), crops.DRAWS))
    return Work(blobs, *crops.train_boxes(sizes[:, 0], sizes[:, 1], u, Augment(), SIDE))


def _images(stream: Any) -> list[bytes]:
    with tarfile.open(fileobj=stream) as inner:
        return [inner.extractfile(member).read() for member in inner]  # type: ignore[union-attr]


def _measure(work: Work, n: int) -> harness.Report:
    report = harness.Report(n)
    sides = _sides(report)
    times = _times(work, sides, n)
    medians = {name: report.add(f"{name}: an image", (1e3 * times[name]).tolist(), "ms") for name in sides}
    for name in sides:
        report.rows.append(harness.Row(f"{name}: images/s", 1e3 / medians[name], "1/s"))
        if name not in ("Pillow", "entropy limit"):
            _add_psnr(report, work, name, sides)
    report.ratios["ours/pillow"] = medians["Pillow"] / medians["ours"]
    for name in sides:
        if name not in ("Pillow", "ours", "entropy limit"):
            report.ratios[f"{name}/pillow"] = medians["Pillow"] / medians[name]
    report.ratios["ours/entropy_limit"] = medians["entropy limit"] / medians["ours"]
    report.notes.append(f"{len(work.blobs)} real ImageNet images, {SIDE} px; ratios are of images/s, ours on top")
    return report


def _sides(report: harness.Report) -> dict[str, Side]:
    sides: dict[str, Side] = {"Pillow": _pillow, "ours": _ours("native")}
    for name in ("simplejpeg", "pillow"):
        if (state := decode.backends()[name]) == "ok":
            sides[f"ours by {name}"] = _ours(name)
        else:
            report.notes.append(f"fallback {name} is absent: {state}")
    try:
        sides["OpenCV, without antialiasing"] = _opencv(importlib.import_module("cv2"))
    except ImportError as error:
        report.notes.append(f"rival OpenCV is absent: {error}")
    return sides | {"entropy limit": _entropy}


def _times(work: Work, sides: dict[str, Side], n: int) -> dict[str, NDArray[np.float64]]:
    """CPU seconds an image, ``[n]`` for each side."""
    out = np.empty((BLOCK, SIDE, SIDE, 3), np.uint8)
    totals = {name: np.zeros(n) for name in sides}
    for repeat in range(-1, n):  # the first is for warming up
        for start in range(0, len(work.blobs), BLOCK):
            block = work.block(start)
            for name, side in sides.items():
                began = time.process_time()
                side(block, out[: len(block.blobs)])
                if repeat >= 0:
                    totals[name][repeat] += time.process_time() - began
    return {name: total / len(work.blobs) for name, total in totals.items()}


def _ours(backend: str) -> Side:
    return lambda work, out: decode.fill(out, work.blobs, work.boxes, work.flips, None, backend)


def _pillow(work: Work, out: Pixels) -> None:
    """As everybody writes it."""
    for i, (blob, box) in enumerate(zip(work.blobs, work.boxes.tolist(), strict=True)):
        image = Image.open(io.BytesIO(blob)).convert("RGB").crop(box).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        pixels = np.asarray(image)
        out[i] = pixels[:, ::-1] if work.flips[i] else pixels


def _opencv(cv2: Any) -> Side:
    cv2.setNumThreads(1)

    def side(work: Work, out: Pixels) -> None:
        for i, (blob, (left, top, right, bottom)) in enumerate(zip(work.blobs, work.boxes.tolist(), strict=True)):
            image = cv2.imdecode(np.frombuffer(blob, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
            part = cv2.resize(image[top:bottom, left:right], (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
            pixels = cv2.cvtColor(part, cv2.COLOR_BGR2RGB)
            out[i] = pixels[:, ::-1] if work.flips[i] else pixels

    return side


def _entropy(work: Work, _out: Pixels) -> None:
    decoder = native.load()
    for blob in work.blobs:
        assert decoder.entropy_decode(blob)


def _add_psnr(report: harness.Report, work: Work, name: str, sides: dict[str, Side]) -> None:
    """Mean and worst PSNR over the images, in dB against Pillow's antialiased bicubic; equal images count as 99."""
    found: list[float] = []
    ours, theirs = np.empty((2, BLOCK, SIDE, SIDE, 3), np.uint8)
    for start in range(0, len(work.blobs), BLOCK):
        block = work.block(start)
        count = len(block.blobs)
        sides[name](block, ours[:count])
        sides["Pillow"](block, theirs[:count])
        squared = np.mean((ours[:count].astype(np.float32) - theirs[:count]) ** 2, axis=(1, 2, 3))
        found += np.minimum(10 * np.log10(255**2 / np.maximum(squared, 1e-9)), 99.0).tolist()
    report.rows.append(harness.Row(f"{name}: psnr_db mean", float(np.mean(found)), "dB"))
    report.rows.append(harness.Row(f"{name}: psnr_db min", min(found), "dB"))


if __name__ == "__main__":
    main()
