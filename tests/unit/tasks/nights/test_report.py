"""The pages of nights: one per line of champions, which no night of another line replaces."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf import compose
from conf.schema import Config
from infra import store
from infra.tracking import runs
from models.results.nights import NightsResult
from tasks.nights import report
from tasks.report.publish import render_again


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Settings with a store; MLflow takes everything, and the registry knows nothing of a line but its name."""
    monkeypatch.setattr(runs, "start_run", lambda *_, **__: "run")
    for name in ("log_file", "finish_run"):
        monkeypatch.setattr(runs, name, lambda *_: None)

    def describe(storage: str, line: str) -> NightsResult:
        return NightsResult(line=line, verdict=f"what came of {line}")

    monkeypatch.setattr(report, "describe_line", describe)
    store.ensure_root(f"file://{tmp_path}/store")
    return compose.compose([f"storage=file://{tmp_path}/store", f"run_dir={tmp_path}/runs"])


@pytest.mark.slow
def test_the_nights_of_two_lines_have_a_page_each_and_the_last_one_is_the_page_of_the_night(
    config: Config, tmp_path: Path
) -> None:
    pages = [Path(report.publish_page(config, line, None)[0]) for line in ("b0-pets", "b0-products", "b0-pets")]
    assert [page.name for page in pages] == ["night-b0-pets.html", "night-b0-products.html", "night-b0-pets.html"]
    latest = tmp_path / "runs" / "latest"
    assert (latest / "night.html").read_text() == (latest / "night-b0-pets.html").read_text()
    for line, other in (("b0-pets", "b0-products"), ("b0-products", "b0-pets")):
        page = (latest / f"night-{line}.html").read_text()
        assert f"<h2>What came of {line}.</h2>" in page
        assert f'<a href="night-{other}.html">{other}</a>' in page
    assert '<a href="night-b0-products.html">' in (latest / "report.html").read_text()
    names = [uri.rpartition("/reports/")[2] for uri in store.list_uris(f"{config.storage}/reports")]
    assert {f"{config.profile}/nights/b0-pets.json", f"{config.profile}/nights/b0-products.json"} <= set(names)


@pytest.mark.slow
def test_the_line_of_a_part_that_an_earlier_version_has_written_keeps_its_page(config: Config, tmp_path: Path) -> None:
    old = {"line": "b0-old", "verdict": "what came of it before"}
    store.write_json(f"{config.storage}/reports/{config.profile}/nights.json", old)
    render_again(config)
    page = tmp_path / "runs" / "latest" / "night-b0-old.html"
    assert "What came of it before." in page.read_text()
    store.write_json(f"{config.storage}/reports/{config.profile}/nights.json", old | {"line": "../../b0"})
    render_again(config)
    assert not list(tmp_path.rglob("*b0.html")), "no name of a line leads out of the folder"
