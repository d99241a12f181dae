"""Writes a registered model in formats of other programs."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infra.errors import ConfigError
from infra.launch.job import read_request

if TYPE_CHECKING:
    from infra.tracking.registry import Version
    from models.data.shards.manifest import Manifest

FORMATS = ("onnx", "pt2")
MAX_LOSS = 1.0  # points of top-1 that an int8 file may lose


@dataclass(frozen=True)
class ExportedFile:
    """A file that was written and agrees with the network.

    Attributes:
        path: The file.
        model: ``NAME/VERSION``.
        format: ``onnx``, ``onnx int8`` or ``pt2``.
        bytes: Its size.
        max_difference: Largest difference of its logits; None for int8.
        top1: Percent of val that an int8 file classifies correctly; otherwise None.
        float_top1: The same of the network in float32.
        said: What the file is, and how it was compared.
    """

    path: str
    model: str
    format: str
    bytes: int
    max_difference: float | None
    top1: float | None
    float_top1: float | None
    said: str


def check_targets(paths: Mapping[str, str], *, int8: bool = False) -> None:
    """Checks before anything is fetched what can be checked then.

    Args:
        paths: Target file by format, one of ``FORMATS``.
        int8: Whether the ONNX file is quantized.

    Raises:
        ConfigError: No format, a folder that does not exist, a path that is a folder, or a missing package.
    """
    if int8 and "onnx" not in paths:
        raise ConfigError("--int8 needs --onnx FILE.onnx")
    if not paths:
        raise ConfigError("no format: add --onnx FILE.onnx or --pt2 FILE.pt2")
    for name, path in paths.items():
        if Path(path).is_dir():
            raise ConfigError(f"--{name} {path} is a folder; name a file in it")
        if not Path(path).resolve().parent.is_dir():
            raise ConfigError(f"--{name} {path}: there is no folder {Path(path).resolve().parent}; create it")
    if "onnx" in paths:
        from models.networks import formats

        formats.check_onnx()


def export(ref: str, paths: Mapping[str, str], *, int8_loss: float | None = None) -> list[ExportedFile]:
    """Writes the files of a registered model.

    Args:
        ref: ``NAME@ALIAS`` or ``NAME/VERSION``.
        paths: Target file by format, one of ``FORMATS``.
        int8_loss: Points of top-1 that the ONNX file may lose as it is quantized to int8; None for float32.

    Raises:
        ConfigError: As ``check_targets``, the version does not exist, or has no data to be quantized with.
        ArtifactError: The registered files are damaged, or a written file gives other logits or loses too much.
    """
    check_targets(paths, int8=int8_loss is not None)
    from infra.tracking import registry
    from models.networks import export as networks
    from models.networks import formats

    version = registry.resolve_version(ref)
    exact = f"{version.name}/{version.version}"
    data = None if int8_loss is None else _find_data(version)
    with tempfile.TemporaryDirectory(prefix="effnet-export-") as scratch:
        weights, config = registry.fetch_weights(exact, Path(scratch))
        module = networks.serving_module(networks.load_network(weights, config))
    files = []
    for name, path in paths.items():
        target, worst, top1, float_top1 = Path(path), None, None, None
        if name == "onnx" and data is not None and int8_loss is not None:
            from models.experiments import quantization

            written = quantization.write_int8(module, config, *data, target, int8_loss)
            about = f"ONNX opset {formats.OPSET} in int8"
            lead = written.difference
            top1, float_top1 = written.top1, written.float_top1
            compared = (
                f"{written.top1:.2f} % top-1 on {lead.n} images of val, {written.float_top1:.2f} % in float32 "
                f"({lead.value:+.2f} points, with 90 % confidence {lead.lower:+.2f} to {lead.upper:+.2f}); "
                f"ranges from {written.calibrated} images of train"
            )
        else:
            program = formats.capture(module, config)
            worst = (formats.write_onnx if name == "onnx" else formats.write_pt2)(module, program, config, target)
            about = f"ONNX opset {formats.OPSET}" if name == "onnx" else "torch.export"
            compared = f"logits of {formats.COMPARED} images differ by at most {worst:.1g}"
        size = target.stat().st_size
        said = f"{path}: {exact}, {about}, {size / 1e6:.1f} MB; {compared}"
        kind = name if top1 is None else f"{name} int8"
        files.append(ExportedFile(path, exact, kind, size, worst, top1, float_top1, said))
    return files


def _find_data(version: Version) -> tuple[Manifest, str]:
    """The data set that a version was trained on, and the URI of its manifest."""
    from models.data.shards import manifest as manifests

    if "job_uri" not in version.tags:
        raise ConfigError(
            f"{version.name}/{version.version} was not trained by effnet, so there are no images of its data in the "
            "store, which int8 needs; fine-tune it first (effnet transfer), or export it without --int8"
        )
    job = read_request(version.tags["job_uri"])
    return manifests.load_verified(job.manifest_uri, job.manifest_sha256, job.leave_out), job.manifest_uri
