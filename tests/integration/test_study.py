"""The study's order and its failures, with short experiments in place of the long ones; and a small whole one."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from checkout import ROOT
from made_archives import write_tree
from page_reader import Page
from PIL import Image

from flows import study
from infra import store
from infra.services.stack import Addresses

pytestmark = pytest.mark.services

# A process of its own: Prefect reads where its server is when it is imported.
SMALL = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
import made_parts
from conf import schema
from flows import study
from infra.errors import JobError
from tasks.report import results as parts

async def broken(config: schema.Config) -> None:
    raise JobError("resnet50: ended at step 3")

async def good(config: schema.Config) -> None:
    parts.publish_part(config, "architecture", made_parts.result("architecture"))

async def also_broken(config: schema.Config) -> None:
    raise JobError("no network could be timed")

study.PARTS |= {"scaling": broken, "architecture": good, "latency": also_broken}
try:
    asyncio.run(study.study(sys.argv[2:]))
except JobError as error:
    print("raised:", error)
"""


@pytest.mark.slow
def test_a_part_that_fails_stops_no_other_and_fails_the_study_last(services: Addresses, services_dir: Path) -> None:
    run_dir = services_dir / "study"
    words = [f"run_dir={run_dir}", "storage=s3://effnet/study", "experiment=study"]
    tests = str(ROOT / "tests" / "support")
    done = subprocess.run([sys.executable, "-c", SMALL, tests, *words], capture_output=True, text=True, timeout=200)
    assert "raised: resnet50: ended at step 3" in done.stdout, done.stderr
    assert "latency failed: no network could be timed" in done.stderr, "it ran too"
    page = Page((run_dir / "latest" / "report.html").read_text())
    assert len(page.read_rows("data-trial")) == 35
    assert "effnet scaling profile=laptop makes it" in page.text()


def test_nothing_may_run_beside_the_latency_s_clock_and_the_report_comes_last() -> None:
    assert list(study.PARTS) == ["scaling", "linear", "transfer", "architecture", "latency", "report"]


STORAGE = "s3://effnet/small-study"
# Every part of the profile, on a folder in place of its data, at the least size that trains.
SMALLEST = [
    "profile=study",
    "data=folder",
    "data.folds=2",
    "data.val_share=0.5",
    "recipe.epochs=1",
    "recipe.global_batch=16",
    "transfer.recipe.epochs=1",
    "transfer.recipe.global_batch=16",
    "transfer.resolution=32",
    "transfer.random_seeds=2",
    "transfer.more_networks=[efficientnet_lite1]",
    "scaling.points=[{network:efficientnet_b0},{network:efficientnet_b2}]",
    "scaling.seeds=2",
    "linear.networks=[efficientnet_lite0]",
    "linear.seeds=2",
    "linear.resolution=32",
    "architecture.trials=1",
    "architecture.recipe.epochs=1",
    "architecture.recipe.global_batch=16",
    "latency.pairs=[{ours:efficientnet_b0}]",
    "latency.n=1",
    "latency.throughput_n=1",
    "latency.throughput_batch=1",
    "launch.nproc_per_node=1",
    f"storage={STORAGE}",
    "experiment=small-study",
]


def picture(number: int) -> bytes:
    """A noisy picture, another one for each number; odd ones are red, even ones are blue."""
    pixels = np.random.default_rng(number).integers(0, 80, (64, 64, 3), dtype=np.uint8)
    pixels[..., 0 if number % 2 else 2] += 150
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def start_study(run_dir: Path, folder: Path, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "flows", "study", *SMALLEST, f"data.path={folder}", f"run_dir={run_dir}"]
    with log.open("wb") as out:
        return subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)


def results() -> dict[str, bytes]:
    """What finished jobs left, by URI."""
    return {uri: store.read(uri) for uri in store.list_uris(f"{STORAGE}/jobs") if uri.endswith("/result.json")}


@pytest.mark.slow
@pytest.mark.torchrun
def test_a_study_of_a_user_s_folder_that_was_killed_resumes_and_ends_with_every_part(
    services: Addresses, services_dir: Path, tmp_path: Path
) -> None:
    files = {f"{('even', 'odd')[i % 2]}/{i}.jpg": picture(i) for i in range(120)}
    folder, log = write_tree(tmp_path / "photos", files), tmp_path / "log"
    running = start_study(services_dir, folder, log)
    deadline = time.monotonic() + 200
    while not (before := results()):
        assert running.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    again = start_study(services_dir, folder, log)
    assert again.wait(600) == 0, log.read_text()
    printed = log.read_text()
    headings = [f"{name}: part {number} of 6" for number, name in enumerate(study.PARTS, 1)]
    assert [line.split(" ", 1)[1] for line in printed.splitlines() if ": part " in line] == headings
    result = printed[printed.index("\nscaling:\n") :]
    assert result.count("  verdict    ") == 4, result  # on sizes, frozen features, and two fine-tuned networks
    after = results()
    # 2 networks of the scaling study with 2 seeds; 2 public ones fine-tuned and from random weights, the first of them
    # with 2 seeds; a trial of the blocks.
    assert len(after) == 2 * 2 + 2 * (2 + 1) + 1
    assert {uri: after[uri] for uri in before} == before
    parts = {uri.rpartition("/")[2] for uri in store.list_uris(f"{STORAGE}/reports/study") if uri.endswith(".json")}
    assert {"scaling.json", "linear.json", "transfer.json", "architecture.json", "latency.json"} <= parts
    scaled, frozen = (store.read_json(f"{STORAGE}/reports/study/{part}.json") for part in ("scaling", "linear"))
    assert [point["n_val"] for point in scaled["points"]] == [120, 120], "every photograph is tested once"
    assert len(scaled["data_sha256"]) == 2, "each seed has its fold"
    assert (frozen["n"], [row["n"] for row in frozen["rows"]]) == (120, [120, 120])
    assert [(one["lead"]["n"], one["lead"]["folds"]) for one in frozen["comparisons"]] == [(120, 2)]
    tuned = store.read_json(f"{STORAGE}/reports/study/transfer.json")["rows"]
    leads = {row["network"]: row["random_start"]["lead"] for row in tuned}
    assert (leads["efficientnet_lite0"]["n"], leads["efficientnet_lite0"]["folds"]) == (120, 2)
    assert (leads["efficientnet_lite1"]["seeds"], leads["efficientnet_lite1"]["folds"]) == (1, 1)
    assert {row["network"] for row in tuned} == {"efficientnet_lite0", "efficientnet_lite1"}
    assert {row["data"] for row in tuned} == {"folder"}
    assert "fine-tuned on folder" in Page((services_dir / "latest" / "report.html").read_text()).text()
