"""The embedded Prefect and MLflow in a real browser: `effnet open` logs in, a foreign page gets nothing.

Runs where Playwright and a Chromium are installed; the project depends on neither.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import made_parts
import made_results
import numpy as np
import owner_calls
import pytest
from serving import serving

from conf import schema
from conf.data_set import EvalTransform
from infra.services import deployments, login, stack
from infra.services.prefect_api import from_environment
from infra.tracking import cards, client, registry, runs
from models.data.shards.manifest import TABLE, Manifest, Shard
from models.results import Summary, VariantRow, result_from
from tasks.metrics import DESCRIPTION
from tasks.registry import card
from tasks.registry.family import describe_family
from tasks.reproduction import describe_on_page

PATIENCE_MS = 60_000  # the pages take 5 s on a quiet machine

pytestmark = pytest.mark.services


@contextmanager
def opened(browser: Any, services_dir: Path, base: str, name: str, ui: str = "") -> Iterator[tuple[Any, list[str]]]:
    """The page that `effnet open` opens, and what the server refused; of Prefect's page ``ui`` is the version."""
    context = browser.new_context()
    if ui:
        context.add_cookies([{"name": "prefect_ui_version", "value": ui, "url": base}])
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    refused: list[str] = []
    page.on("response", lambda answer: refused.append(answer.url) if answer.status in (401, 403) else None)
    page.goto(login.forwarding_page(services_dir / "services", base, name).as_uri())
    yield page, refused
    context.close()


@pytest.mark.parametrize("ui", ["v1", "v2"])
def test_opening_prefect_logs_in_to_both_versions_of_its_pages(
    browser: Any, services: stack.Addresses, services_dir: Path, ui: str
) -> None:
    owner_calls.prefect("POST", "/flows/", {"name": "a-flow-of-the-owner"})
    base = services.prefect.removesuffix("/api")
    with opened(browser, services_dir, base, "prefect", ui) as (page, refused):
        page.get_by_text("Event Feed").first.wait_for()  # of the menu, which only those who are in see
        page.goto(f"{base}/flows" if ui == "v1" else f"{base}/v2/flows")
        page.get_by_text("a-flow-of-the-owner").first.wait_for()
        assert page.get_by_text("Switch to V").first.inner_text() == f"Switch to V{'2' if ui == 'v1' else '1'} UI"
        assert refused == []


def test_the_form_of_a_deployment_s_run_has_fields_with_choices(
    browser: Any, services: stack.Addresses, services_dir: Path
) -> None:
    deployments.deploy(from_environment(os.environ), services_dir / "services", dict(os.environ))
    train = owner_calls.prefect("GET", "/deployments/name/train/train")[1]
    base = services.prefect.removesuffix("/api")
    with opened(browser, services_dir, base, "prefect", "v1") as (page, _):
        page.get_by_text("Event Feed").first.wait_for()
        page.goto(f"{base}/deployments/deployment/{train['id']}/run")
        page.get_by_text("Network (model; default").first.wait_for()
        shown = page.locator("body").inner_text()
        places = [shown.index(f"{name} (Optional)") for name in ("Profile", "Model", "Data", "Epochs", "Overrides")]
        assert places == sorted(places), shown


def test_opening_mlflow_logs_in_and_leaves_no_password_in_the_address(
    browser: Any, services: stack.Addresses, services_dir: Path
) -> None:
    owner_calls.mlflow("POST", "/api/2.0/mlflow/experiments/create", {"name": "a-flow-of-the-owner"})
    with opened(browser, services_dir, services.mlflow, "mlflow") as (page, refused):
        page.get_by_text("a-flow-of-the-owner").first.wait_for()
        assert page.evaluate("location.href").startswith(f"{services.mlflow}/")
        assert [url for url in refused if login._MLFLOW_ENTRY not in url] == []  # the browser asks without it first
        page.goto(f"{services.mlflow}/#/models")
        page.get_by_text("Model registry").first.wait_for()
        shown = page.locator("body").inner_text()
        assert "Judges" not in shown, "pages of model training are shown, not those of GenAI"
        assert page.get_by_role("dialog").count() == 0, "an announcement covers the list of models"
        panel = page.evaluate("localStorage.getItem('mlflow.assistant.panelOpen_v1')")
        assert panel != "true", "the assistant covers a quarter of the page"


SHARDS = (Shard("val-0.tar", "val", 20, 10, "b" * 64),)
DATA = Manifest("my_pets", ("cat", "dog"), "s" * 64, "original", SHARDS, np.zeros(20, TABLE))
RESULT = made_results.trained(model="efficientnet_b0", top1=75.0, n_val=20, class_correct=(10, 5), class_total=(10, 10))
TRAINED = card.Trained("seen-b0/1", RESULT, schema.Job(kind="train"), DATA, "s3://b/manifest.json", "d" * 64, "", {})
SOURCE = {"network": "efficientnet_b0", "origin": "timm_tf", "class_names": "unknown", "padding": "same"}
SOURCE |= {
    "weights": "ema",
    "source": "s3://b/w",
    "source_sha256": "e" * 64,
    "params": "5",
    "multiply_adds": "6",
    "resolution": "224",
}


@pytest.fixture(scope="module")
def family(services: stack.Addresses) -> dict[str, str]:
    """Two networks of a reproduction with a version each, a second version of the first, and the run of all."""
    ids = {"parent": runs.start_run("looked-at", "B0..B1", "looked-at", params={}, tags={"role": "reproduce"})}
    with client.connection() as mlflow:
        for name, top1 in (("seen-b0", 96.2), ("seen-b1", 93.5), ("seen-b0", 94.3)):
            number = len(ids)
            run = runs.start_run(
                "looked-at",
                f"train {name}",
                f"train-{name}-{number}",
                parent=ids["parent"],
                params={"recipe": {"global_batch": 64 // number}},
                tags={"role": "train"},
            )
            runs.finish_run(run, "FINISHED", {"val/top1": top1})
            if registry.champion(name) is None:
                mlflow.create_registered_model(name)
            variant = name.replace("seen-", "efficientnet_")
            tags = {"top1": f"{top1:.2f}", "ci95": "1.19", "dataset": "mnist5k", "variant": variant, "val_n": "1000"}
            tags |= {"params": "126822", "multiply_adds": "359792", "resolution": "24"}
            made = mlflow.create_model_version(name, "s3://effnet/none", run_id=run, tags=tags)
            if made.version == "1":
                registry.promote(name, 1, "champion")
            describe_family(name)
            ids[f"{name}/{made.version}"] = run
    return ids


def test_the_list_of_models_shows_accuracy_and_data_and_is_searched_by_tags(
    browser: Any, services: stack.Addresses, services_dir: Path, family: dict[str, str]
) -> None:
    with opened(browser, services_dir, services.mlflow, "mlflow") as (page, _):
        page.goto(f"{services.mlflow}/#/models?searchInput=seen-b")  # models of other tests fill pages
        row = page.get_by_role("row").filter(has_text="seen-b0")
        row.get_by_test_id("models-table-tag-entry").first.wait_for()
        tags = row.get_by_test_id("models-table-tag-entry").all_inner_texts()
        assert tags[:2] == ["top1: 96.20", "dataset: mnist5k"], "the column has room for two"
        page.get_by_test_id("model-search-input").fill("tags.variant = 'efficientnet_b1'")
        page.keyboard.press("Enter")
        page.get_by_role("row").filter(has_text="seen-b0").wait_for(state="detached")
        page.get_by_role("link", name="seen-b1").click()
        page.get_by_text("Champion, the version to use: version 1, top-1 93.50 ± 1.19 %").wait_for()


def test_the_list_of_versions_shows_the_beginning_of_cards_without_marks(
    browser: Any, mlflow_uri: str, services_dir: Path
) -> None:
    name = "seen-cards"
    texts = [card.trained_card(TRAINED), card.imported_card(f"{name}/2", 1000, EvalTransform(), SOURCE, "MIT")]
    with client.connection() as mlflow:
        mlflow.create_registered_model(name)
        for text in texts:
            made = mlflow.create_model_version(name, "s3://effnet/none")
            mlflow.update_model_version(name, made.version, cards.shorten(cards._without_title(text)))
    with opened(browser, services_dir, mlflow_uri, "mlflow") as (page, _):
        page.goto(f"{mlflow_uri}/#/models/{name}")
        shown = []
        for version in (1, 2):
            row = page.get_by_role("row").filter(has=page.get_by_role("link", name=f"Version {version}"))
            row.wait_for()
            shown.append(row.inner_text())
        page.get_by_role("link", name="Version 1").click()
        page.get_by_text("20 val images of my_pets (").first.wait_for()
    assert "\n75.00 % top-1 on 20 " in shown[0], shown
    assert "\nefficientnet_b0 with " in shown[1], shown


def test_two_versions_of_a_model_are_compared_by_settings_and_metrics(
    browser: Any, services: stack.Addresses, services_dir: Path, family: dict[str, str]
) -> None:
    with opened(browser, services_dir, services.mlflow, "mlflow") as (page, _):
        page.goto(f"{services.mlflow}/#/models/seen-b0")
        for version in ("Version 1", "Version 2"):
            row = page.get_by_role("row").filter(has=page.get_by_role("link", name=version))
            row.get_by_role("checkbox").check(force=True)
        page.get_by_test_id("compareButton").click()
        page.get_by_text("Comparing 2 Versions").wait_for()
        for setting, first, second in (("recipe.global_batch", "64", "21"), ("val/top1", "96.2", "94.3")):
            row = page.get_by_role("row").filter(has_text=setting).first
            row.wait_for()
            assert row.inner_text().split()[-2:] == [first, second]


def test_the_page_of_a_reproduction_leads_to_its_networks_side_by_side(
    browser: Any, services: stack.Addresses, services_dir: Path, family: dict[str, str]
) -> None:
    rows = [
        result_from(VariantRow, made_parts.variant(i) | {"mlflow_run": family[f"seen-b{i}/1"]}, "row") for i in (0, 1)
    ]
    text = describe_on_page(Summary(variants=tuple(rows)), runs.comparison_link)
    runs.finish_run(family["parent"], "FINISHED", {}, {DESCRIPTION: text})
    with opened(browser, services_dir, services.mlflow, "mlflow") as (page, _):
        page.goto(runs.run_url(family["parent"]))
        with page.expect_popup() as tab:
            page.get_by_role("link", name="networks side by side").click()
        tab.value.get_by_text("Comparing 2 Runs from 1 Experiment").wait_for()
        names = tab.value.get_by_role("row").filter(has_text="Run Name")
        assert names.inner_text().split()[2:] == ["train", "seen-b0", "train", "seen-b1"]


class Evil(BaseHTTPRequestHandler):
    """An empty page; the test runs its script in it."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>evil</title>")

    def log_message(self, format: str, *args: Any) -> None:
        pass


ATTACK = """
async ([prefect, mlflow]) => {
  const got = [];
  const tries = [
    [prefect + "/flows/", {method: "POST", body: '{"name": "by-a-page"}'}],
    [prefect + "/flows/", {method: "POST", body: '{"name": "by-a-page"}', mode: "no-cors"}],
    [prefect + "/flows/", {method: "POST", body: new Blob(['{"name": "by-a-page"}']), mode: "no-cors"}],
    [prefect + "/admin/version", {}],
    [mlflow + "/api/2.0/mlflow/experiments/create", {method: "POST", body: '{"name": "by-a-page"}'}],
    [mlflow + "/api/2.0/mlflow/experiments/create", {method: "POST", body: '{"name": "by-a-page"}', mode: "no-cors"}],
    [mlflow + "/ajax-api/2.0/mlflow/experiments/get?experiment_id=0", {}],
  ];
  for (const [url, options] of tries)
    for (const credentials of ["omit", "include"]) {
      try {
        const answer = await fetch(url, {...options, credentials});
        got.push([answer.type, answer.status, await answer.text()]);
      } catch (error) { got.push(["error", 0, String(error)]); }
    }
  return got;
}
"""


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1"])
def test_a_foreign_page_neither_reads_nor_writes_in_the_browser_of_one_who_is_logged_in(
    browser: Any, services: stack.Addresses, services_dir: Path, host: str
) -> None:
    base = services.prefect.removesuffix("/api")
    with (
        serving(ThreadingHTTPServer(("127.0.0.1", 0), Evil)) as server,
        opened(browser, services_dir, base, "prefect") as (page, _),
    ):
        page.get_by_text("Event Feed").first.wait_for()  # of the menu, which only those who are in see
        page.goto(login.forwarding_page(services_dir / "services", services.mlflow, "mlflow").as_uri())
        page.wait_for_url(f"{services.mlflow}/**")
        page.get_by_text("Recent Experiments").or_(page.get_by_role("heading", name="Experiments")).first.wait_for()
        page.goto(f"http://{host}:{server.server_port}/")
        got = page.evaluate(ATTACK, [services.prefect, services.mlflow])
    assert len(got) == 14
    read = [answer for answer in got if answer[0] not in ("error", "opaque") and answer[1] not in (401, 403)]
    assert read == []
    flows = owner_calls.prefect("POST", "/flows/filter", {"flows": {"name": {"any_": ["by-a-page"]}}})
    assert flows == (200, [])
    by_name = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=by-a-page"
    assert owner_calls.mlflow("GET", by_name)[0] == 404
