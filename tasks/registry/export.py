"""Writes a registered model in formats of other programs."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from infra.errors import ConfigError

FORMATS = ("onnx", "pt2")


def check_targets(paths: Mapping[str, str]) -> None:
    """Checks before anything is fetched what can be checked then.

    Args:
        paths: Target file by format, one of ``FORMATS``.

    Raises:
        ConfigError: No format, a folder that does not exist, a path that is a folder, or a missing package.
    """
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


def export(ref: str, paths: Mapping[str, str]) -> list[str]:
    """Writes the files of a registered model; returns a line about each.

    Args:
        ref: ``NAME@ALIAS`` or ``NAME/VERSION``.
        paths: Target file by format, one of ``FORMATS``.

    Raises:
        ConfigError: As ``check_targets``, or the version does not exist.
        ArtifactError: The registered files are damaged, or a written file gives other logits.
    """
    check_targets(paths)
    from infra.tracking import registry
    from models.networks import export as networks
    from models.networks import formats

    writers = {"onnx": formats.write_onnx, "pt2": formats.write_pt2}
    version = registry.resolve_version(ref)
    exact = f"{version.name}/{version.version}"
    with tempfile.TemporaryDirectory(prefix="effnet-export-") as scratch:
        weights, config = registry.fetch_weights(exact, Path(scratch))
        module = networks.serving_module(networks.load_network(weights, config))
    lines = []
    for name, path in paths.items():
        worst = writers[name](module, config, Path(path))
        about = f"ONNX opset {formats.OPSET}" if name == "onnx" else "torch.export"
        size = Path(path).stat().st_size / 1e6
        compared = f"logits of {formats.COMPARED} images differ by at most {worst:.1g}"
        lines.append(f"{path}: {exact}, {about}, {size:.1f} MB; {compared}")
    return lines
