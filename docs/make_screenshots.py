"""Takes the pictures in docs/screenshots: ``python docs/make_screenshots.py [RUN_DIR]`` after ``make reproduce``.

The services of RUN_DIR (default ``runs``) must run. Needs a Chromium: the one named by ``CHROMIUM`` or found on the
path, or else Playwright's own.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from conf.schema import Services
from infra.services import login, stack

FOLDER = Path(__file__).resolve().parent / "screenshots"
WIDTH, HEIGHT = 1280, 800
COLORS = 128  # of a palette, which makes a picture a third as large
PATIENCE_MS = 60_000
SETTLE_MS = 3_000  # the pages of Prefect and MLflow draw what they have loaded


def main(run_dir: Path) -> None:
    """Opens the pages of one reproduction and writes their pictures."""
    FOLDER.mkdir(exist_ok=True)
    addresses = stack.prepare(run_dir, Services())
    prefect = addresses.prefect.removesuffix("/api")
    summary = json.loads((run_dir / "latest" / "summary.json").read_text())
    model = summary["variants"][0]["registered_name"]
    with sync_playwright() as playwright:
        system = os.environ.get("CHROMIUM") or shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=system, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_default_timeout(PATIENCE_MS)
        page.goto((run_dir / "latest" / "report.html").resolve().as_uri())
        save(page, "report.png")
        page.goto(login.forwarding_page(run_dir / "services", prefect, "prefect").as_uri())
        page.get_by_text("Event Feed").first.wait_for()
        page.goto(f"{prefect}/runs")
        page.get_by_text("reproduce ").last.click()  # the first run, which trained
        save(page, "prefect.png")
        page.goto(login.forwarding_page(run_dir / "services", addresses.mlflow, "mlflow").as_uri())
        page.get_by_text(summary["config"]["experiment"]).first.wait_for()
        page.goto(f"{addresses.mlflow}/#/models")
        page.get_by_text(model).first.wait_for()
        save(page, "mlflow-models.png")
        page.goto(summary["variants"][0]["mlflow_url"])
        page.get_by_text("minival/top1").first.wait_for()
        save(page, "mlflow-run.png")
        browser.close()


def save(page: Any, name: str) -> None:
    """Writes a picture of what the window shows."""
    page.wait_for_timeout(SETTLE_MS)
    for close in reversed(page.get_by_role("button", name="Close").all()):  # MLflow's assistant and announcements
        close.click()
        page.wait_for_timeout(SETTLE_MS // 3)
    picture = Image.open(io.BytesIO(page.screenshot()))
    picture.convert("RGB").quantize(COLORS).save(FOLDER / name, optimize=True)
    print(f"wrote docs/screenshots/{name}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs").resolve())
