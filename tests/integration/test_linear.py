"""`effnet linear` as a user starts it, on a folder of two classes; the second time its answers are reused."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_archives import write_tree
from PIL import Image

from infra import store
from infra.services.stack import Addresses

pytestmark = [pytest.mark.services, pytest.mark.slow]

SMALL = [
    "linear.networks=[efficientnet_lite0]",
    "linear.seeds=1",
    "linear.resolution=32",
    "data=folder",
    "data.name=colors",
    "storage=s3://effnet/linear",
]


def color(number: int, *, red: bool) -> bytes:
    """A red or blue image with noise, another one for each number."""
    pixels = np.random.default_rng(number).integers(0, 80, (40, 40, 3), dtype=np.uint8)
    pixels[..., 0 if red else 2] += 150
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def linear(run_dir: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows", "linear", *SMALL, *words, f"run_dir={run_dir}", "--quiet"]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_answers_are_compared_and_reused(services: Addresses, services_dir: Path, tmp_path: Path) -> None:
    files = {
        f"{name}/{i}.jpg": color(2 * i + (name == "red"), red=name == "red")
        for name in ("red", "blue")
        for i in range(60)
    }
    data = f"data.path={write_tree(tmp_path, files)}"
    first = linear(services_dir, data)
    assert first.returncode == 0, first.stderr
    part: dict[str, Any] = store.read_json("s3://effnet/linear/reports/laptop/linear.json")
    public, random = part["rows"]
    assert (public["weights"], random["weights"]) == ("ImageNet", "random")
    assert public["top1"] > 95  # red and blue
    assert part["n"] > 0
    (verdict,) = part["verdicts"]
    assert f"verdict    {verdict}" in first.stdout
    again = linear(services_dir, data, "--json")
    assert again.returncode == 0, again.stderr
    result = json.loads(again.stdout)
    assert (result["reused"], result["rows"]) == (2, part["rows"])
