"""The embedded Prefect and MLflow in a real browser: `effnet open` logs in, a foreign page gets nothing.

Runs where Playwright and a Chromium are installed; the project depends on neither.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import owner_calls
import pytest

from infra.services import deployments, login, stack
from infra.services.prefect_api import from_environment

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
        ThreadingHTTPServer(("127.0.0.1", 0), Evil) as server,
        opened(browser, services_dir, base, "prefect") as (page, _),
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page.get_by_text("Event Feed").first.wait_for()  # of the menu, which only those who are in see
        page.goto(login.forwarding_page(services_dir / "services", services.mlflow, "mlflow").as_uri())
        page.wait_for_url(f"{services.mlflow}/**")
        page.get_by_text("Recent Experiments").or_(page.get_by_role("heading", name="Experiments")).first.wait_for()
        page.goto(f"http://{host}:{server.server_port}/")
        got = page.evaluate(ATTACK, [services.prefect, services.mlflow])
        server.shutdown()
    assert len(got) == 14
    read = [answer for answer in got if answer[0] not in ("error", "opaque") and answer[1] not in (401, 403)]
    assert read == []
    flows = owner_calls.prefect("POST", "/flows/filter", {"flows": {"name": {"any_": ["by-a-page"]}}})
    assert flows == (200, [])
    by_name = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=by-a-page"
    assert owner_calls.mlflow("GET", by_name)[0] == 404
