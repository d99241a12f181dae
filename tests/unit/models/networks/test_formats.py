"""Files of other programs, run and compared with the network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torch.export import ExportedProgram

from conf import schema
from infra.errors import ArtifactError, ConfigError
from models.networks import export, formats
from models.networks.build import build_model

SIDE = 32
CONFIG: dict[str, Any] = {"input": {"resolution": SIDE, "mean": [0.5], "std": [0.2]}, "class_names": [*"abé"]}


@pytest.fixture(scope="module")
def module() -> nn.Module:
    torch.manual_seed(3)
    network = build_model(schema.Model(width=0.25, depth=0.25), 3)
    with torch.no_grad():
        network(torch.randn(16, 3, SIDE, SIDE))  # BN statistics away from 0 and 1
        network.classifier.weight.mul_(100)  # type: ignore[union-attr, operator]
    return export.serving_module(network.eval())


@pytest.fixture(scope="module")
def program(module: nn.Module) -> ExportedProgram:
    return formats.capture(module, CONFIG)


@pytest.mark.slow
def test_an_onnx_file_gives_the_logits_for_any_number_of_images_and_describes_its_input(
    module: nn.Module, program: ExportedProgram, tmp_path: Path
) -> None:
    path = tmp_path / "net.onnx"
    worst = formats.write_onnx(module, program, CONFIG, path)
    assert 0 <= worst <= formats.TOLERANCE
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(7).standard_normal((5, 3, SIDE, SIDE), dtype=np.float32)
    logits = session.run(["logits"], {"images": images})[0]
    expected = export.logits(module, images)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    described = {prop.key: json.loads(prop.value) for prop in onnx.load(path).metadata_props}
    assert described == {"input": CONFIG["input"], "class_names": CONFIG["class_names"]}


@pytest.mark.slow
def test_a_torch_export_file_gives_the_logits_for_any_number_of_images(
    module: nn.Module, program: ExportedProgram, tmp_path: Path
) -> None:
    formats.write_pt2(module, program, CONFIG, tmp_path / "net.pt2")
    images = np.random.default_rng(7).standard_normal((5, 3, SIDE, SIDE), dtype=np.float32)
    loaded = torch.export.load(tmp_path / "net.pt2").module()
    np.testing.assert_allclose(
        loaded(torch.from_numpy(images)).detach().numpy(), export.logits(module, images), atol=1e-4
    )


@pytest.mark.slow
def test_a_file_whose_logits_differ_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 3)).eval().requires_grad_(False)
    monkeypatch.setattr(export, "logits", lambda *_: np.full(3, 1e3, np.float32))
    with pytest.raises(ArtifactError, match=r"net\.pt2 differ by .*, allowed are 0\.0001; not written"):
        formats.write_pt2(small, formats.capture(small, CONFIG), CONFIG, tmp_path / "net.pt2")
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_the_message_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find = formats.importlib.util.find_spec
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    with pytest.raises(ConfigError, match=r"ONNX needs onnxscript: pip install 'effnet\[export\]'"):
        formats.check_onnx()
