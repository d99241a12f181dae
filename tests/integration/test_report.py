"""The report on real services: what the page says is what lies in the store."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import made_parts
import pytest
from page_reader import Page

from conf import compose, schema
from infra import store
from infra.errors import ConfigError
from infra.services.stack import Addresses
from infra.tracking import client as mlflow_client
from models.results import ShardResult, Summary, VariantRow, result_from
from tasks.report import results as report_results
from tasks.report.publish import refresh

pytestmark = pytest.mark.services


@pytest.fixture
def config(services: Addresses, services_dir: Path, request: pytest.FixtureRequest) -> schema.Config:
    name = request.node.name.replace("_", "-")[:40].strip("-")
    return compose.compose([f"run_dir={services_dir / name}", f"storage=s3://effnet/{name}", f"experiment={name}"])


def _refreshed(config: schema.Config) -> Path:
    return Path(asyncio.run(refresh.fn(config)))


def test_without_anything_to_report_one_line_says_what_to_run(config: schema.Config) -> None:
    with pytest.raises(
        ConfigError, match=r"neither .*summary.json nor a part .* run `effnet reproduce profile=laptop`"
    ):
        _refreshed(config)
    assert not Path(config.run_dir).exists(), "nothing half-written"


def test_the_page_of_one_part_alone_holds_the_store_s_numbers_and_lies_everywhere(config: schema.Config) -> None:
    shards = ShardResult("mnist5k", "s3://x/manifest.json", "ab12" * 16, 10, 3500, 500, 1000, 10, reused=True)
    left = report_results.publish_part(
        config, "latency", made_parts.result("latency"), report_results.digests([shards])
    )
    path = _refreshed(config)
    page = Page(path.read_text())
    stored = store.read_json(report_results.uri(config, "latency"))
    for row, name in zip(stored["rows"], ("B1", "resnet152", "B4", "senet154"), strict=True):
        assert page.row(name, "data-latency")[0][3] == row["batch1_ms"]
    provenance = page.row("Latency", "data-part")[1]
    assert left["config_sha256"] == report_results.digest(report_results.request_of(config))
    assert left["config_sha256"][:16] in provenance
    assert "mnist5k ab12ab12ab12ab12" in provenance
    assert not left["commit"] or left["commit"] in provenance

    assert path.samefile(Path(config.run_dir) / "latest" / "report.html")
    assert not (path.parent / "summary.json").exists()
    assert store.read(store.join(config.storage, "reports", "laptop", "report.html")) == path.read_bytes()
    client = mlflow_client.library().MlflowClient(tracking_uri=os.environ["MLFLOW_TRACKING_URI"])
    [run] = client.search_runs([client.get_experiment_by_name(config.experiment).experiment_id])
    assert [file.path for file in client.list_artifacts(run.info.run_id, "report")] == ["report/report.html"]


def test_a_second_part_joins_the_reproduction_and_the_first_part(config: schema.Config) -> None:
    row = made_parts.variant(0) | {"top1": 96.0, "n_val": 1000, "params": 126_822, "multiply_adds": 359_792}
    summary = Summary(
        wall_s=1.0,
        jobs=1,
        profile="laptop",
        variants=(result_from(VariantRow, row, "row"),),
        command="effnet reproduce",
    )
    address = store.join(config.storage, "reports", "laptop", "summary.json")
    store.write(address, json.dumps(dataclasses.asdict(summary)).encode())
    for name in ("latency", "transfer"):
        report_results.publish_part(config, name, made_parts.result(name))
        page = Page(_refreshed(config).read_text())
        assert page.row("B0")[0][0] == 126_822
        assert page.row("B1", "data-latency")[0][3] == 61.2
    assert page.row("CIFAR-10", "data-transfer")[0][0] == 91.0
    assert "effnet scaling profile=laptop makes it" in page.text()


def test_the_page_names_the_services_of_now_and_not_those_of_a_port_that_has_moved(
    config: schema.Config, services: Addresses
) -> None:
    old = {name: f"http://127.0.0.1:{port}" for port, name in enumerate(("prefect", "mlflow", "s3"), 1)}
    address = store.join(config.storage, "reports", "laptop", "summary.json")
    store.write(address, json.dumps(dataclasses.asdict(Summary(profile="laptop", services=old))).encode())
    page = _refreshed(config).read_text()
    assert f'href="{services.mlflow}"' in page
    assert f'href="{services.prefect.removesuffix("/api")}"' in page  # not that of the API, which shows nothing
    assert not any(f'{url}"' in page for url in old.values())


def _effnet(services_dir: Path, config: schema.Config) -> subprocess.CompletedProcess[str]:
    words = [f"run_dir={services_dir}", f"storage={config.storage}", f"experiment={config.experiment}"]
    return subprocess.run(
        [sys.executable, "-m", "flows", "report", *words], capture_output=True, text=True, timeout=200
    )


@pytest.mark.slow
def test_the_command_makes_a_page_of_parts_alone_and_names_what_to_run_without_any(
    config: schema.Config, services_dir: Path
) -> None:
    nothing = _effnet(services_dir, config)
    assert nothing.returncode == 2
    [error] = [line for line in nothing.stderr.splitlines() if line.startswith("error: ")]
    assert error.startswith("error: nothing to report: neither s3://effnet/")
    assert "Traceback" not in nothing.stderr
    report_results.publish_part(config, "architecture", made_parts.result("architecture"))
    done = _effnet(services_dir, config)
    assert done.returncode == 0, done.stderr
    [path] = re.findall(r"^report +(\S+)$", done.stdout, re.MULTILINE)
    assert len(Page(Path(path).read_text()).read_rows("data-trial")) == 35
