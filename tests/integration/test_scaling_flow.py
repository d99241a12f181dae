"""The scaling study on real services with the real trainer: done, gone on with, with a point that diverges."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infra import store
from infra.services.stack import Addresses
from infra.tracking.client import library

pytestmark = [pytest.mark.services, pytest.mark.torchrun, pytest.mark.slow]
pytest.importorskip("pytorchcv", reason="the related work's networks: pip install --no-deps pytorchcv==0.0.74")

STORAGE = "s3://effnet/scaling-study"
BASELINE = "{network:mobilenet_wd4}"
WIDE = "{network:mobilenet_wd4,dimension:width,width:2.0}"
DEEP = "{network:efficientnet_b0,dimension:depth,depth:4.0}"
NAN = "batch@*:1=nan!"  # every image from the first step on: the job ends with DivergedError


def study(run_dir: Path, *points: str, fault: str = "") -> subprocess.CompletedProcess[str]:
    words = ["data=digits", "data.limit=400", "recipe.epochs=3", f"storage={STORAGE}", "experiment=scaling-study"]
    argv = [
        sys.executable,
        "-m",
        "flows",
        "scaling",
        *words,
        f"run_dir={run_dir}",
        f"scaling.points=[{','.join(points)}]",
    ]
    return subprocess.run(argv, capture_output=True, text=True, timeout=240, env={**os.environ, "FAULT": fault})


def part() -> dict[str, Any]:
    found: dict[str, Any] = store.read_json(f"{STORAGE}/reports/laptop/scaling.json")
    return found


def test_an_unknown_network_is_one_line_and_nothing_is_begun(services: Addresses, services_dir: Path) -> None:
    done = study(services_dir, BASELINE, "{network:resnet51}")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: no network named 'resnet51'; did you mean 'resnet50'?")
    assert "Traceback" not in done.stderr
    assert store.list_uris(STORAGE) == []


def test_a_study_leaves_its_part_and_the_next_one_trains_only_what_is_new(
    services: Addresses, services_dir: Path
) -> None:
    first = study(services_dir, BASELINE, WIDE)
    assert first.returncode == 0, first.stderr
    found = part()
    assert (found["data"], found["found"], found["missing"]) == ("digits", 0, [])
    assert [(p["dimension"], p["width"], p["resolution_px"], p["n_val"]) for p in found["points"]] == [
        ("baseline", 1.0, 24, 120),
        ("width", 2.0, 24, 120),
    ]
    for point in found["points"]:
        result = store.read_json(f"{STORAGE}/jobs/{job_of(point)}/result.json")
        assert (point["top1"], point["params"], point["multiply_adds"]) == (
            result["top1"],
            result["params"],
            result["multiply_adds"],
        )
    assert f"{found['points'][1]['params']:,}" in first.stdout

    again = study(services_dir, BASELINE, WIDE, DEEP, fault=NAN)
    assert again.returncode == 0, again.stderr
    found = part()
    assert found["found"] == 2
    assert [point["top1"] is None for point in found["points"]] == [False, False, True]
    assert found["points"][2]["params"] > 0
    assert len(found["missing"]) == 1
    assert found["missing"][0].startswith("efficientnet_b0 depth d4: the averaged weights' loss") or (
        "lower recipe.lr_per_256" in found["missing"][0]
    )
    assert "missing    efficientnet_b0 depth d4" in again.stdout


def job_of(point: dict[str, Any]) -> str:
    client = library().MlflowClient()
    run = client.get_run(point["mlflow_url"].rpartition("/")[2])
    parent = client.get_run(run.data.tags["mlflow.parentRunId"])
    assert (run.data.tags["role"], parent.data.tags["role"]) == ("scaling", "scaling")
    return str(run.data.tags["job_uri"].rpartition("/")[2])
