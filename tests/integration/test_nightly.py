"""`effnet nightly` as a scheduler starts it, on a folder that grows: lineage, name, nothing to do."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from night_rig import add_images, alert_sink, night_settings, register_base
from page_reader import Page
from PIL import Image

from conf import compose, schema
from infra import store
from infra.services.stack import Addresses
from infra.tracking import registry

pytestmark = [pytest.mark.services, pytest.mark.torchrun]
STORAGE = "s3://effnet/nightly"


def night(services_dir: Path, folder: Path, model: str, *words: str) -> subprocess.CompletedProcess[str]:
    settings = [*night_settings(model, folder, STORAGE), f"run_dir={services_dir}"]
    command = [sys.executable, "-m", "flows", "nightly", *settings, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def plan(services_dir: Path, folder: Path, model: str) -> list[str]:
    """What ``effnet plan nightly`` prints."""
    settings = [*night_settings(model, folder, STORAGE), f"run_dir={services_dir}"]
    done = subprocess.run(
        [sys.executable, "-m", "flows", "plan", "nightly", *settings], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def alerted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The alerts that nights send to the webhook in the variable NIGHT_HOOK."""
    with alert_sink() as (url, texts):
        monkeypatch.setenv("NIGHT_HOOK", url)
        yield texts


@pytest.fixture(scope="module")
def base(services: Addresses, tmp_path_factory: pytest.TempPathFactory) -> str:
    return register_base("night-base", STORAGE, tmp_path_factory.mktemp("base"))


def jobs() -> set[str]:
    return {uri.split("/")[-2] for uri in store.list_uris(f"{STORAGE}/jobs") if uri.endswith("/result.json")}


@pytest.mark.slow  # in a plain run: the night of tests/e2e
def test_nights_continue_their_champion_under_one_name_and_train_only_on_new_data(
    base: str, services_dir: Path, tmp_path: Path, alerted: list[str]
) -> None:
    folder = tmp_path / "images"
    add_images(folder, 0, 300)
    planned = plan(services_dir, folder, base)
    assert (
        planned[0] == "line       night-base-grown: night-base/1, a new line, its first version is fine-tuned from it"
    )
    assert planned[1].endswith(" of val, the first of the line")
    assert planned[2].startswith("training   efficientnet_b0: 1 epoch, ")
    first = night(services_dir, folder, base)
    assert first.returncode == 0, first.stderr
    assert "registered night-base-grown/1, aliases: challenger, champion\n" in first.stdout
    (trained,) = jobs()

    for model in (base, "night-base-grown"):  # the line itself may be named, and does not grow by another suffix
        again = night(services_dir, folder, model)
        assert again.returncode == 0, again.stderr
        assert "registered night-base-grown/1 (found, nothing to do)" in again.stdout
        assert "champion   skipped: no new data, version 1 was trained on the same " in again.stdout
    assert plan(services_dir, folder, base)[2:] == [
        "training   none: no new data, night-base-grown/1 was trained on the same images"
    ]
    assert jobs() == {trained}
    (record,) = store.list_uris(f"{STORAGE}/nights/night-base-grown")
    assert store.read_json(record)["outcome"] == "promoted"  # the repetitions of this date do not replace it
    assert alerted == []

    add_images(folder, 300, 360)
    planned = plan(services_dir, folder, base)
    assert planned[0] == "line       night-base-grown: night-base-grown/1, its champion is fine-tuned"
    assert re.search(r", \+\d+ since night-base-grown/1$", planned[1]), "without those that the frozen val excludes"
    assert planned[3].startswith("evaluation champion and challenger on the same ")
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

    tags = [version.tags for version in registry.versions("night-base-grown")]
    assert [(one["val"], one["val_n"], one["val_sha256"]) for one in tags] == [
        ("first", tags[0]["val_n"], tags[0]["val_sha256"])
    ] * 2

    trained = jobs()
    cut = [folder / "digit-3" / f"cut-{length}.png" for length in range(100, 140)]  # some are drawn into val
    for number, path in enumerate(cut):
        path.write_bytes((folder / "digit-3" / "3.png").read_bytes()[: 100 + number])
    damaged = night(services_dir, folder, base, "transfer.data.allow_partial=true")
    for path in cut:
        path.unlink()
    assert damaged.returncode == 3, damaged.stderr
    said = damaged.stderr.splitlines()[-1]
    assert said.startswith("error: the data grown are refused, nothing is trained: ")
    assert "do not decode, 10 or 0.1 % are allowed (nightly.max_quarantine); the first is digit-3/cut-1" in said
    assert jobs() == trained

    assert alerted[-1].startswith("effnet nightly night-base on grown (")
    assert f"): refused: {said.removeprefix('error: ')}" in alerted[-1]

    (folder / "letter-a").mkdir()
    Image.new("RGB", (32, 32)).save(folder / "letter-a" / "a.png")
    refused = night(services_dir, folder, base)
    assert refused.returncode == 2, refused.stderr
    assert "class 'letter-a' is not in the data set to append to" in refused.stderr.splitlines()[-1]
    assert [version.version for version in registry.versions("night-base-grown")] == [1, 2]

    (folder / "letter-a" / "a.png").unlink()
    (folder / "letter-a").rmdir()
    renewed = night(services_dir, folder, base, "nightly.val=second")
    assert renewed.returncode == 0, renewed.stderr
    assert "registered night-base-grown-second/1, aliases: challenger, champion" in renewed.stdout
    tags = [*tags, registry.resolve_version("night-base-grown-second/1").tags]
    assert tags[2]["val"] == "second"
    assert int(tags[2]["val_n"]) > int(tags[1]["val_n"])
