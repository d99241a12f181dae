"""Batches of new images that a night refuses: no later night trains on them until they are corrected or accepted."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from night_rig import add_images, night_settings, register_base
from page_reader import Page
from PIL import Image

from conf import compose, schema
from conf.overrides import replace
from infra import store
from infra.services.stack import Addresses
from infra.tracking import champions, registry
from models.data.shards import manifest as manifests

pytestmark = [pytest.mark.services, pytest.mark.torchrun]
STORAGE, LINE = "s3://effnet/refused", "refused-base-grown"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture
def base(services: Addresses, tmp_path: Path) -> str:
    return register_base("refused-base", STORAGE, tmp_path / "base")


def night(services_dir: Path, folder: Path, model: str, *words: str) -> subprocess.CompletedProcess[str]:
    settings = [
        *night_settings(model, folder, STORAGE),
        "nightly.rule=not_worse",
        "nightly.margin=100",
        "nightly.class_margin=100",
        "nightly.calibration_margin=100",
        f"run_dir={services_dir}",
    ]
    command = [sys.executable, "-m", "flows", "nightly", *replace(settings, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def champion(line: str = LINE) -> int:
    return registry.resolve_version(f"{line}@champion").version


def trainings() -> set[str]:
    uris = store.list_uris(f"{STORAGE}/jobs")
    return {key for uri in uris if uri.endswith("/result.json") and (key := uri.split("/")[-2]).startswith("finetune-")}


def images_of_champion(line: str = LINE) -> set[int]:
    """Checksums of the images that the champion was trained on."""
    uri = registry.resolve_version(f"{line}@champion").tags["job_uri"]
    job = compose.from_yaml(schema.Job, store.read(f"{uri}/config.yaml"))
    manifest = manifests.load_verified(job.manifest_uri, job.manifest_sha256)
    return set(manifests.Samples(manifest, ["train"]).rows["xxh3"].tolist())


COLORS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200), "white": (200, 200, 200)}


def path_of(folder: Path, number: int, *, wrong: bool = False) -> Path:
    """File of an image in the folder of its color, or of the next one."""
    return folder / [*COLORS][(number + wrong) % len(COLORS)] / f"{number}.png"


def add_colors(folder: Path, first: int, last: int) -> None:
    """Adds noisy images of one color, of which a network soon knows the class."""
    for number in range(first, last):
        path = path_of(folder, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).normal(0, 20, (32, 32, 3))
        color = [*COLORS.values()][number % len(COLORS)]
        Image.fromarray((np.array(color) + noise).clip(0, 255).astype(np.uint8)).save(path)


def poison(folder: Path, first: int, last: int) -> None:
    """Moves 30 % of these images to the folder of the next class."""
    for number in range(first, last):
        if number % 10 < 3:
            path_of(folder, number).rename(path_of(folder, number, wrong=True))


def correct(folder: Path, first: int, last: int) -> None:
    for number in range(first, last):
        if number % 10 < 3:
            path_of(folder, number, wrong=True).rename(path_of(folder, number))


@pytest.mark.slow
def test_a_poisoned_batch_is_refused_withheld_from_the_next_nights_and_taken_once_it_is_corrected(
    base: str, services_dir: Path, folder: Path, alerted: list[str]
) -> None:
    add_colors(folder, 0, 400)
    first = night(services_dir, folder, base, "transfer.recipe.epochs=20")
    assert first.returncode == 0, first.stderr
    top1 = float(registry.resolve_version(f"{LINE}/1").tags["top1"])
    assert top1 > 80, "a champion whose answers tell wrong labels"
    before = (trainings(), images_of_champion())

    add_colors(folder, 400, 600)
    poison(folder, 400, 600)
    refused = night(services_dir, folder, base)
    assert refused.returncode == 3, refused.stderr
    said = refused.stderr.splitlines()[-1]
    version = re.search(r"nothing is trained: version (0002-[0-9a-f]{8}) was refused", said)
    assert version is not None, said
    assert re.search(r"the champion agrees with the labels of \d+\.\d % of \d+ new images, and of \d+\.\d % of", said)
    assert (trainings(), champion()) == (before[0], 1)
    (alert,) = alerted
    assert f"): refused: {said.removeprefix('error: ')}" in alert
    page = Page((services_dir / "latest" / "night.html").read_text()).text()
    assert said.removeprefix("error: the data ") in page
    again = night(services_dir, folder, base)
    assert again.returncode == 0, again.stderr
    assert "skipped: no new data, version 1 was trained on the same " in again.stdout
    assert f"version {version[1]} was refused and its images are withheld" in again.stdout
    (record,) = store.list_uris(f"{STORAGE}/nights/{LINE}")
    assert store.read_json(record)["outcome"] == "refused", "what the repetition of a date does not replace"

    add_colors(folder, 600, 700)
    good = night(services_dir, folder, base)
    assert good.returncode == 0, good.stderr
    assert f"version {version[1]} was refused and its 200 images are withheld" in good.stderr
    assert champion() == 2
    added = images_of_champion() - before[1]
    assert 0 < len(added) <= 100
    assert re.search(r"page       .*/night-refused-base-grown\.html\n", good.stdout)

    correct(folder, 400, 600)
    corrected = night(services_dir, folder, base)
    assert corrected.returncode == 0, corrected.stderr
    assert champion() == 3
    assert 100 < len(images_of_champion() - before[1] - added) <= 200
    assert len(alerted) == 1


@pytest.mark.slow
def test_images_of_a_version_that_the_gate_refused_are_withheld_until_they_are_accepted_by_name(
    base: str, services_dir: Path, folder: Path, alerted: list[str]
) -> None:
    settings = ["transfer.data.name=named", "nightly.max_label_drop=100"]
    add_images(folder, 0, 240)
    assert night(services_dir, folder, base, *settings).returncode == 0
    add_images(folder, 240, 300)
    refused = night(services_dir, folder, base, *settings, "nightly.chance_margin=100")
    assert refused.returncode == 0, refused.stderr
    version = re.search(r"; version (0002-[0-9a-f]{8}) was refused and its images are withheld", refused.stdout)
    assert version is not None, refused.stdout
    assert "refused: refused-base-named/2: " in alerted[-1]
    skipped = night(services_dir, folder, base, *settings)
    assert "skipped: no new data, version 1 was trained on the same " in skipped.stdout

    wrong = night(services_dir, folder, base, *settings, "transfer.data.accept=[named/0007-00000000]")
    assert wrong.returncode == 2
    assert f"refused are named/{version[1]}" in wrong.stderr.splitlines()[-1]
    named = night(services_dir, folder, base, *settings, f"transfer.data.accept=[named/{version[1]}]")
    assert named.returncode == 0, named.stderr
    add_images(folder, 300, 360)
    grown = night(services_dir, folder, base, *settings)
    assert grown.returncode == 0, grown.stderr
    tags = [one.tags for one in registry.versions("refused-base-named")]
    assert len(tags) == 3
    job = compose.from_yaml(schema.Job, store.read(f"{tags[2]['job_uri']}/config.yaml"))
    shards = manifests.load_verified(job.manifest_uri, job.manifest_sha256).shards
    assert any(version[1].partition("-")[2] in shard.name for shard in shards), "what was accepted is in the next one"


@pytest.mark.slow
def test_a_night_takes_back_a_champion_that_learned_wrong_labels_and_continues_from_the_one_before(
    base: str, services_dir: Path, folder: Path, alerted: list[str]
) -> None:
    line, settings = "refused-base-watched", ["transfer.data.name=watched"]  # a line without versions of other tests
    add_colors(folder, 0, 400)
    longer = [*settings, "transfer.recipe.epochs=20"]
    first = night(services_dir, folder, base, *longer)
    assert first.returncode == 0, first.stderr
    before = images_of_champion(line)
    add_colors(folder, 400, 1200)
    for number in range(400, 1200):
        path_of(folder, number).rename(path_of(folder, number, wrong=True))
    fooled = night(services_dir, folder, base, *longer, "nightly.max_label_drop=100")
    assert fooled.returncode == 0, fooled.stderr
    assert champion(line) == 2
    learned = images_of_champion(line) - before
    assert alerted == []

    add_colors(folder, 1200, 1400)
    healed = night(services_dir, folder, base, *settings, "nightly.margin=0.3", "nightly.class_margin=5")
    assert healed.returncode == 0, healed.stderr
    assert "rolled back to version 1: version 2 is worse than version 1: " in healed.stdout
    moves = champions.read_history(STORAGE, line)
    assert [(move.old, move.new, move.who == champions.WATCH) for move in moves[2:3]] == [(2, 1, True)]
    assert "rolled back to version 1: version 2 is worse than version 1: " in alerted[0]
    request = registry.resolve_version(f"{line}/3").tags["job_uri"]
    job = compose.from_yaml(schema.Job, store.read(f"{request}/config.yaml"))
    assert job.init_weights_sha256 == registry.resolve_version(f"{line}/1").tags["weights_sha256"]
    images = set(manifests.Samples(manifests.load(job.manifest_uri)[1], ["train"]).rows["xxh3"].tolist())
    assert images.isdisjoint(learned)
    assert 100 < len(images - before) <= 200
    page = Page((services_dir / "latest" / "night.html").read_text()).text()
    assert "rolled back to version 1" in page

    again = night(services_dir, folder, base, *settings, "nightly.margin=0.3", "nightly.class_margin=5")
    assert again.returncode == 0, again.stderr
    assert len(champions.read_history(STORAGE, line)) == len(moves)
    assert len(alerted) == 1
