"""Writes a network for other programs: ONNX and ``torch.export``; the written file is run and compared.

Both take normalized images ``[N, 3, R, R]``, any N, and return logits ``[N, classes]``.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from infra.errors import ArtifactError, ConfigError
from models.networks import export

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime import InferenceSession
    from torch.export import ExportedProgram

OPSET = 20  # of ONNX; onnxruntime >= 1.17 and TensorRT >= 10 read it
TOLERANCE = 1e-4  # of logits, absolute
COMPARED = 64  # images, in two batches of different size
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
Images = NDArray[np.float32]


def check_onnx() -> None:
    """Raises if a package that ONNX files need is missing.

    Raises:
        ConfigError: The extra ``export`` is not installed.
    """
    missing = [name for name in _ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"ONNX needs {', '.join(missing)}: pip install 'effnet[export]'")


def capture(module: nn.Module, config: Mapping[str, Any]) -> ExportedProgram:
    """Captures the output of ``export.serving_module`` as a program for any batch size; ``config``: ``config.json``."""
    images = torch.from_numpy(export.example(int(config["input"]["resolution"])))
    with _quiet():
        return torch.export.export(module, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))


def write_onnx(module: nn.Module, program: ExportedProgram, config: Mapping[str, Any], path: Path) -> float:
    """Writes an ONNX file with a dynamic batch size; its metadata hold ``config``'s input and classes.

    Args:
        module: Output of ``export.serving_module``.
        program: The same as ``capture`` returns it, which takes as long as the rest and serves several formats.
        config: Contents of ``config.json``.
        path: Target file.

    Returns:
        The largest difference of the logits of ``COMPARED`` images.

    Raises:
        ArtifactError: The logits differ by more than ``TOLERANCE``; the file is deleted.
        ConfigError: The extra ``export`` is not installed.
    """
    check_onnx()
    with _quiet():
        written = torch.onnx.export(
            program, dynamo=True, opset_version=OPSET, input_names=["images"], output_names=["logits"], verbose=False
        )
    if written is None:
        raise ArtifactError("torch.onnx.export returned no program")
    model = written.model_proto  # a new object at every access
    add_metadata(model, describe_io(config))
    path.write_bytes(model.SerializeToString())
    session = open_onnx(path)
    return _compare(module, config, path, lambda images: session.run(["logits"], {"images": images})[0])


def describe_io(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a program needs to know to use an ONNX file: ``config``'s input and classes."""
    return {"input": config["input"], "class_names": config["class_names"]}


def add_metadata(model: ModelProto, facts: Mapping[str, Any]) -> None:
    """Sets the metadata of an ONNX model, each as JSON."""
    import onnx

    onnx.helper.set_model_props(model, {key: json.dumps(value, ensure_ascii=False) for key, value in facts.items()})


def open_onnx(path: Path) -> InferenceSession:
    """Returns a session of onnxruntime on the CPU."""
    import onnxruntime

    return onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])


def write_pt2(module: nn.Module, program: ExportedProgram, config: Mapping[str, Any], path: Path) -> float:
    """Writes a file of ``torch.export`` with a dynamic batch size; arguments and errors are those of ``write_onnx``."""
    with _quiet():
        torch.export.save(program, path)
        loaded = torch.export.load(path).module()
    return _compare(module, config, path, lambda batch: loaded(torch.from_numpy(batch)).detach().numpy())


def _compare(
    module: nn.Module, config: Mapping[str, Any], path: Path, run: Callable[[Images], NDArray[np.float32]]
) -> float:
    side = int(config["input"]["resolution"])
    images = np.random.default_rng(1).standard_normal((COMPARED, 3, side, side), dtype=np.float32)
    worst = 0.0
    for batch in (images[:1], images[1:]):
        worst = max(worst, float(np.abs(run(batch) - export.logits(module, batch)).max()))
    if not worst <= TOLERANCE:
        path.unlink()
        raise ArtifactError(f"the logits of {path.name} differ by {worst:.2g}, allowed are {TOLERANCE:g}; not written")
    return worst


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of the exporters about their own internals."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(level)
