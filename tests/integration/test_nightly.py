"""`effnet nightly` as a scheduler starts it, on a folder that grows: lineage, name, nothing to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from page_reader import Page
from PIL import Image
from sklearn.datasets import load_digits

from conf import compose, schema
from infra import store
from infra.services.stack import Addresses
from infra.tracking import registry, runs
from models.networks import export
from models.networks.build import build_model
from tasks.promote import champion_if_first
from tasks.register import WEIGHTS, new_version

pytestmark = [pytest.mark.services, pytest.mark.torchrun]
STORAGE = "s3://effnet/nightly"


def add_images(folder: Path, first: int, last: int) -> None:
    digits = load_digits()
    for number in range(first, last):
        path = folder / f"digit-{digits.target[number]}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[number] * 15).astype("uint8")).resize((32, 32)).save(path)


def night(services_dir: Path, folder: Path, model: str, *words: str) -> subprocess.CompletedProcess[str]:
    settings = [
        f"nightly.model={model}",
        "data@transfer.data=folder",
        f"transfer.data.path={folder}",
        "transfer.data.name=grown",
        "transfer.data.augment.eval_crop_pad=0",
        "transfer.recipe.epochs=1",
        "nightly.chance_margin=-100",
        f"storage={STORAGE}",
        "experiment=nightly",
        f"run_dir={services_dir}",
    ]
    command = [sys.executable, "-m", "flows", "nightly", *settings, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def base(services: Addresses, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A registered champion with random weights, of the laptop's size and of other classes."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    model = compose.compose([]).model
    export.save_weights(build_model(model, 5).state_dict(), folder / WEIGHTS)
    run = runs.start_run("nightly", "base", "base", params={}, tags={})
    version = new_version(run, "night-base", folder, model, 24, list("abcde"), 0, {"dataset": "letters"})
    champion_if_first(version, STORAGE)
    return "night-base"


def jobs() -> set[str]:
    return {uri.split("/")[-2] for uri in store.list_uris(f"{STORAGE}/jobs") if uri.endswith("/result.json")}


def test_nights_continue_their_champion_under_one_name_and_train_only_on_new_data(
    base: str, services_dir: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    add_images(folder, 0, 300)
    first = night(services_dir, folder, base)
    assert first.returncode == 0, first.stderr
    assert "registered night-base-grown/1, aliases: challenger, champion\n" in first.stdout
    (trained,) = jobs()

    for model in (base, "night-base-grown"):  # the line itself may be named, and does not grow by another suffix
        again = night(services_dir, folder, model)
        assert again.returncode == 0, again.stderr
        assert "registered night-base-grown/1 (found, nothing to do)" in again.stdout
        assert "champion   skipped: no new data, version 1 was trained on the same " in again.stdout
    assert jobs() == {trained}

    add_images(folder, 300, 360)
    grown = night(services_dir, folder, base)
    assert grown.returncode == 0, grown.stderr
    assert "registered night-base-grown/2, aliases: challenger" in grown.stdout
    assert "of the same" in grown.stdout
    (second,) = {key for key in jobs() - {trained} if key.startswith("finetune-")}
    request = compose.from_yaml(schema.Job, store.read(f"{STORAGE}/jobs/{second}/config.yaml"))
    assert request.init_weights_sha256 == registry.resolve_version("night-base-grown/1").tags["weights_sha256"]
    assert request.keep_classifier

    profile = compose.compose([]).profile
    part = store.read_json(f"{STORAGE}/reports/{profile}/nights.json")
    assert [(row["version"], row["parent"]) for row in part["versions"]] == [
        (2, "night-base-grown/1"),
        (1, "night-base/1"),
    ]
    assert part["versions"][0]["compared_with"] == 1
    assert [(move["old"], move["new"]) for move in part["moves"]][-1] == (None, 1)
    assert part["verdict"] in grown.stdout
    page = Page((services_dir / "latest" / "report.html").read_text())
    assert page.row("2", "data-night")[0][0] == 2, "the page of the night shows it"

    trained = jobs()
    removed = sorted((folder / "digit-3").iterdir())[1:]
    for path in removed:
        path.rename(tmp_path / path.name)
    shifted = night(services_dir, folder, base)
    for path in removed:
        (tmp_path / path.name).rename(path)
    assert shifted.returncode == 3, shifted.stderr
    said = shifted.stderr.splitlines()[-1]
    assert said.startswith("error: the data grown are refused, nothing is trained: ")
    assert "'digit-3' went from " in said
    assert "(nightly.max_psi)" in said
    assert jobs() == trained

    (folder / "letter-a").mkdir()
    Image.new("RGB", (32, 32)).save(folder / "letter-a" / "a.png")
    refused = night(services_dir, folder, base)
    assert refused.returncode == 2, refused.stderr
    assert "was trained on other classes than those of grown" in refused.stderr.splitlines()[-1]
    assert [version.version for version in registry.versions("night-base-grown")] == [1, 2]
