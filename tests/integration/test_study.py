"""The study's order and its failures, with short experiments in place of the long ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT
from page_reader import Page

from flows import study
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
