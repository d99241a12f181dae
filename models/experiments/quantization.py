"""Writes a network as an ONNX file that computes in 8-bit integers, and measures what that costs in accuracy.

Static quantization by onnxruntime: weights have a scale per output channel, activations one per tensor, from their
range on images of train. The accuracies are those of both networks on images of val, which no range comes from.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from infra.errors import ArtifactError
from models.data.loading import selection
from models.data.shards.manifest import Manifest
from models.networks import formats
from models.networks.description import read_transform
from models.networks.formats import Images
from models.statistics import Difference, paired_difference

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

CALIBRATED, MEASURED = 256, 2000  # images at most
_BATCH = 32


@dataclass(frozen=True)
class Comparison:
    """Accuracies of a file and of the float32 network that it was made of.

    Attributes:
        top1: Of the file, in percent.
        float_top1: Of the network, in percent.
        difference: The file's lead over the network on the same images, in points.
        calibrated: Images of train that gave the ranges.
    """

    top1: float
    float_top1: float
    difference: Difference
    calibrated: int


def write_int8(
    module: nn.Module, config: Mapping[str, Any], manifest: Manifest, manifest_uri: str, path: Path, max_loss: float
) -> Comparison:
    """Writes an ONNX file in int8 with a dynamic batch size; its metadata hold both accuracies too.

    Args:
        module: Output of ``export.serving_module``.
        config: Contents of ``config.json``.
        manifest: The data set that the network was trained on.
        manifest_uri: URI of the manifest.
        path: Target file.
        max_loss: Points of top-1 that may be lost.

    Raises:
        ArtifactError: More is lost; the file is not written.
        ConfigError: The extra ``export`` is not installed.
        DataError: An image is damaged.
        TransientError: The store does not answer.
    """
    formats.check_onnx()
    import onnx

    with tempfile.TemporaryDirectory(prefix="effnet-int8-") as scratch:
        whole, quantized = Path(scratch) / "float32.onnx", Path(scratch) / "int8.onnx"
        formats.write_onnx(module, formats.capture(module, config), config, whole)
        ranges = (images for images, _ in _batches(manifest, manifest_uri, "train", CALIBRATED, config))
        _quantize(whole, quantized, ranges)
        compared = _compare(whole, quantized, _batches(manifest, manifest_uri, "val", MEASURED, config))
        comparison = Comparison(*compared, min(CALIBRATED, manifest.samples("train")))
        if -comparison.difference.value > max_loss:
            raise ArtifactError(
                f"int8 loses {-comparison.difference.value:.2f} points of {comparison.float_top1:.2f} % top-1 on "
                f"{comparison.difference.n} images of val, allowed are {max_loss:g}; {path.name} is not written"
            )
        accuracy = {
            "data": manifest.name,
            "split": "val",
            "images": comparison.difference.n,
            "top1": round(comparison.top1, 2),
            "float32_top1": round(comparison.float_top1, 2),
        }
        calibration = {"split": "train", "images": comparison.calibrated}
        model = onnx.load(quantized)
        formats.add_metadata(model, formats.describe_io(config) | {"accuracy": accuracy, "calibration": calibration})
        path.write_bytes(model.SerializeToString())
    return comparison


def _batches(
    manifest: Manifest, manifest_uri: str, split: str, count: int, config: Mapping[str, Any]
) -> Iterator[tuple[Images, NDArray[np.int64]]]:
    """Yields up to ``count`` images of a split, evenly spaced, as the network takes them, with their labels."""
    total, given = manifest.samples(split), config["input"]
    mean, std = (np.array(given[key], np.float32) for key in ("mean", "std"))
    ids = np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist()
    for start in range(0, len(ids), _BATCH):
        chosen = selection.read(manifest, manifest_uri, split, ids[start : start + _BATCH])
        pixels = chosen.squares(given["resolution"], read_transform(config))
        images = ((pixels.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2)
        yield np.ascontiguousarray(images), np.array(chosen.labels)


def _quantize(source: Path, target: Path, images: Iterator[Images]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Images] | None:
            batch = next(images, None)
            return None if batch is None else {"images": batch}

    prepared = source.with_name("prepared.onnx")
    with _quiet():
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(target),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=True,  # 7 bits of weight: CPUs without VNNI add two products in 16 bits, which 8 overflow
        )


def _compare(
    whole: Path, quantized: Path, batches: Iterator[tuple[Images, NDArray[np.int64]]]
) -> tuple[float, float, Difference]:
    """Top-1 of the quantized file and of the whole one in percent, and their difference."""
    sessions = [formats.open_onnx(file) for file in (quantized, whole)]
    correct = np.concatenate(
        [np.stack([_predict(one, images) == labels for one in sessions]) for images, labels in batches], axis=1
    )
    ours, theirs = correct
    difference = paired_difference(int((ours & ~theirs).sum()), int((theirs & ~ours).sum()), correct.shape[1])
    return 100 * float(ours.mean()), 100 * float(theirs.mean()), difference


def _predict(session: InferenceSession, images: Images) -> NDArray[np.int64]:
    labels: NDArray[np.int64] = session.run(["logits"], {"images": images})[0].argmax(axis=1)
    return labels


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the hints of the quantizer, which it gives through the root logger."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)
