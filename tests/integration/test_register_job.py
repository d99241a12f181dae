"""`effnet register JOB` and the setting `register`: a finished job becomes a version, and nothing is trained again."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from infra import store
from infra.services import login
from infra.services.stack import Addresses
from infra.tracking import client as mlflow_client
from infra.tracking import registry

pytestmark = [pytest.mark.services, pytest.mark.torchrun, pytest.mark.slow]
STORAGE = "s3://effnet/register"
BY_KEY = ["register=by-key", "experiment=register"]  # other tests register networks under their own names
SMALL = ["data=digits", "data.limit=400", "recipe.epochs=1", "transfer.recipe.epochs=1"]


def effnet(services_dir: Path, *words: str) -> subprocess.CompletedProcess[str]:
    # These networks train for seconds: the rule that a first version must beat chance is tested in test_promote.py.
    places = [f"storage={STORAGE}", f"run_dir={services_dir}", "nightly.chance_margin=-100"]
    command = [sys.executable, "-m", "flows", *words, *places]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def result_of(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def trained(services: Addresses, services_dir: Path) -> dict[str, Any]:
    """A finished job that nobody has registered."""
    done = result_of(effnet(services_dir, "train", *SMALL, "experiment=register", "--json"))
    assert done["registered"] is None
    return dict(done)


def describe(name: str, version: int) -> tuple[str, dict[str, str]]:
    """The description of a version in MLflow, and the text files beside its weights."""
    library = mlflow_client.library()
    uri = f"models:/{name}/{version}"
    entry = library.MlflowClient().get_model_version(name, str(version))
    files = {}
    for file in ("card.md", "lineage.json", "curves.svg", "confusion.svg", "mistakes.svg", "predictions.svg"):
        files[file] = library.artifacts.load_text(f"{uri}/{file}")
    return entry.description, files


def objects() -> list[str]:
    return [uri for uri in store.list_uris(f"{STORAGE}/jobs") if "/checkpoints/" not in uri]


def test_a_finished_job_is_registered_by_its_key_and_judged(trained: dict[str, Any], services_dir: Path) -> None:
    before = objects()
    by_key = result_of(effnet(services_dir, "register", trained["job"], *BY_KEY, "--json"))
    assert (by_key["name"], by_key["version"], by_key["aliases"]) == ("by-key", 1, ["challenger", "champion"])
    assert by_key["verdict"].endswith("): promoted, there was no champion")
    assert objects() == before, "the run folder is only read"
    version = registry.resolve_version("by-key@champion")
    assert version.run_id == trained["mlflow_run"]
    assert version.tags["job_uri"] == trained["job_uri"]
    assert version.tags["top1"] == f"{trained['top1']:.2f}"

    description, files = describe("by-key", 1)
    assert all(files.values())
    assert "(confusion.svg)" in files["card.md"]
    assert f"calibration error (ECE, 15 bins) &emsp;| {trained['calibration_error']:.2f}" in description
    cells = re.findall(r'text-anchor="middle"[^>]*>(\d+)<', files["confusion.svg"])
    assert sum(map(int, cells)) == trained["n_val"]
    for picture in ("confusion.svg", "mistakes.svg", "predictions.svg"):
        assert f"artifact_file_path={picture})" in description

    again = effnet(services_dir, "register", trained["mlflow_run"][:12], *BY_KEY)
    assert again.returncode == 0, again.stderr
    assert "registered by-key/1 (found, nothing to do)" in again.stdout


def test_a_registered_job_is_exported_in_int8_by_images_of_its_data(
    trained: dict[str, Any], services_dir: Path, tmp_path: Path
) -> None:
    assert effnet(services_dir, "register", trained["job"], "register=int8", "experiment=register").returncode == 0
    path = tmp_path / "int8.onnx"
    done = effnet(services_dir, "export", "int8/1", "--onnx", str(path), "--int8", "--max-loss", "100")
    assert done.returncode == 0, done.stderr
    pattern = rf"int8/1, ONNX opset 20 in int8, .* % top-1 on {trained['n_val']} images of val, (.*) % in float32"
    described = {prop.key: json.loads(prop.value) for prop in onnx.load(path).metadata_props}
    assert (described["accuracy"]["data"], described["calibration"]["split"]) == ("digits", "train")
    [top1] = re.findall(pattern, done.stdout)
    assert float(top1) == described["accuracy"]["float32_top1"] == pytest.approx(trained["top1"], abs=0.5)
    refused = effnet(services_dir, "export", "int8/1", "--onnx", str(path), "--int8", "--max-loss", "much")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "--max-loss takes points of top-1, a number from 0 to 100, is 'much'" in refused.stderr


def test_a_run_folder_that_mlflow_does_not_know_gets_a_run(trained: dict[str, Any], services_dir: Path) -> None:
    words = [trained["job_uri"], "register=by-folder", "experiment=elsewhere", "--json"]
    registered = result_of(effnet(services_dir, "register", *words))
    assert (registered["name"], registered["version"]) == ("by-folder", 1)
    run = registry.resolve_version("by-folder/1").run_id
    assert run != trained["mlflow_run"]
    shown = result_of(effnet(services_dir, "runs", "experiment=elsewhere", "--json"))
    assert [(row["id"], row["key"], row["status"]) for row in shown] == [(run, trained["job"], "FINISHED")]
    assert shown[0]["metrics"]["val/top1"] == pytest.approx(trained["top1"])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("train-b0-nothing", "no run 'train-b0-nothing' in the experiment 'register'"),
        (f"{STORAGE}/jobs/none", f"{STORAGE}/jobs/none is no run folder of a job: it has no config.yaml"),
        (f"{STORAGE}/jobs/unfinished", "unfinished has not finished"),
    ],
)
def test_what_is_no_finished_job_is_refused_in_one_line(
    word: str, message: str, trained: dict[str, Any], services_dir: Path
) -> None:
    store.write(f"{STORAGE}/jobs/unfinished/config.yaml", store.read(f"{trained['job_uri']}/config.yaml"))
    refused = effnet(services_dir, "register", word, "experiment=register", "--quiet")
    assert refused.returncode == 2, refused.stderr
    assert message in refused.stderr.splitlines()[-1]


def test_the_page_of_a_version_shows_the_pictures(
    browser: Any, trained: dict[str, Any], services: Addresses, services_dir: Path
) -> None:
    registered = result_of(effnet(services_dir, "register", trained["job"], *BY_KEY, "--json"))
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(login.forwarding_page(services_dir / "services", services.mlflow, "mlflow").as_uri())
    page.get_by_text("Experiments").first.wait_for()
    page.goto(f"{services.mlflow}/#/models/{registered['name']}/versions/{registered['version']}")
    for file in ("confusion.svg", "mistakes.svg", "predictions.svg"):
        picture = page.locator(f"img[src*='{file}']")
        picture.wait_for()
        page.wait_for_function("picture => picture.complete", arg=picture.element_handle())
        assert picture.evaluate("picture => picture.naturalWidth") > 100, file
    context.close()


def test_train_and_transfer_register_what_they_train(trained: dict[str, Any], services_dir: Path) -> None:
    words = [*SMALL, "register=typed", "experiment=register", "--json"]
    done = result_of(effnet(services_dir, "train", *words))
    assert (done["job"], done["reused"]) == (trained["job"], True)
    assert (done["registered"]["name"], done["registered"]["version"]) == ("typed", 1)

    sets = ["data@transfer.data=digits", "transfer.data.limit=300", "model_ref=typed@champion"]
    [tuned] = result_of(effnet(services_dir, "transfer", *sets, *words[:-3], *words[-2:], "register=tuned"))
    assert (tuned["registered"]["name"], tuned["registered"]["version"]) == ("tuned", 1)
    assert registry.resolve_version("tuned@champion").run_id == tuned["mlflow_run"]
