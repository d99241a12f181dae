"""Model cards."""

import dataclasses
import json
import re

import made_results
import numpy as np
import pytest

from conf import schema
from conf.data_set import EvalTransform
from infra.tracking.registry import Version
from models.data.shards.manifest import TABLE, ImageNote, Manifest, Shard
from models.experiments.mistakes import Confusion
from tasks.registry.answers import CONFUSION_SVG, SAMPLES_SVG, CardAnswers
from tasks.registry.card import Trained, family_card, imported_card, lineage_json, plain, trained_card

SHARDS = (Shard("train-0.tar", "train", 80, 10, "a" * 64), Shard("val-0.tar", "val", 20, 10, "b" * 64))
DATA = Manifest("pets|2", ("cat", "<b>dog</b>", "empty"), "s" * 64, "original", SHARDS, np.zeros(100, TABLE))
RESULT = made_results.trained(
    top1=75.0, n_val=20, class_correct=(10, 5, 0), class_total=(10, 10, 0), weights_sha256="c" * 64, minutes=90.0
)
JOB = schema.Job(kind="train", data_name="pets")
BARE = Trained("pets-b0/3", RESULT, JOB, DATA, "s3://b/manifest.json", "d" * 64, "", {})
FULL = Trained(
    "pets-b0/3",
    dataclasses.replace(RESULT, world_size=2, calibration_error=4.25),
    dataclasses.replace(JOB, leave_out=["train-1.tar"], init_weights_uri="s3://w", init_weights_sha256="e" * 64),
    dataclasses.replace(DATA, quarantine=(ImageNote("x.jpg", "train", "truncated"),)),
    "s3://b/manifest.json",
    "d" * 64,
    "f" * 40,
    {"cpu": "a CPU", "cores": "2"},
    CardAnswers((Confusion(1, 0, 5, 10), Confusion(0, 1, 1, 12)), {CONFUSION_SVG: "<svg/>", SAMPLES_SVG: "<svg/>"}),
)
SOURCE = dict.fromkeys(("source", "source_sha256", "origin", "padding"), "x") | {"network": "efficientnet_b0"}
SOURCE |= {"params": "5", "multiply_adds": "6", "resolution": "224", "class_names": "of ImageNet", "weights": "ema"}
VERSIONS = [
    Version("pets-b0", 1, "r", (), {"variant": "efficientnet_b0", "params": "7", "resolution": "24"}),
    Version(
        "pets-b0",
        2,
        "r",
        (),
        {
            "variant": "efficientnet_b0",
            "dataset": "pets",
            "params": "7",
            "resolution": "24",
            "top1": "75.00",
            "ci95": "18.98",
            "val_n": "20",
        },
    ),
]
RENDERED = {
    "bare": trained_card(BARE),
    "full": trained_card(FULL),
    "no counts by class": trained_card(dataclasses.replace(BARE, result=made_results.trained())),
    "imported": imported_card("b0-timm/1", 1000, EvalTransform(), SOURCE, "Apache-2.0"),
    "squashed": imported_card("b5-timm/1", 1000, EvalTransform(0, crop_mode="squash"), SOURCE, "Apache-2.0"),
    "family": family_card("pets-b0", VERSIONS, 2),
    "family without champion": family_card("pets-b0", VERSIONS, None),
    "family of an undescribed champion": family_card("pets-b0", VERSIONS[1:], 1),
}
SPACE = " &emsp;|"
CARDS = {name: text.replace(SPACE, " |") for name, text in RENDERED.items()}


@pytest.mark.parametrize("text", CARDS.values(), ids=CARDS.keys())
def test_a_card_has_no_empty_field(text: str) -> None:
    assert not re.search(r"\bNone\b|\bnan\b|``|\*\*\*\*|sha256 $", text, re.MULTILINE)
    for line in text.splitlines():
        if line.startswith("|") and line != "|  |  |":  # a table of names and values has no titles
            cells = re.split(r"(?<!\\)\|", line)[1:-1]
            assert all(cell.strip() for cell in cells[1:]), line
    for title, body in re.findall(r"^## (.*)\n\n(.*)", text, re.MULTILINE):
        assert title
        assert body.strip(), title


def test_a_card_opens_with_the_accuracy_its_interval_and_its_number_of_images() -> None:
    opening = CARDS["bare"].splitlines()[2]
    accuracy = r"75.00 % top-1 on 20 val images of pets\|2 (95 % interval 56.02 to 93.98): "
    assert opening.startswith(accuracy), "lists of versions show its beginning"


@pytest.mark.parametrize("name", ["bare", "imported", "family"])
def test_a_card_begins_without_markdown_which_lists_show_as_it_is_written(name: str) -> None:
    opening = next(line for line in CARDS[name].splitlines() if line and not line.startswith("# "))
    assert not re.search(r"[*`]|\\_", opening)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("my_pets_2", "my_pets_2"), ("_pets_", r"\_pets\_"), ("a__b", r"a\_\_b"), ("a*b_", r"a\*b\_"), ("é_é", "é_é")],
)
def test_only_underscores_within_a_word_are_no_marks(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_a_card_lists_the_weakest_classes_first_and_none_without_images() -> None:
    section = CARDS["bare"].partition("## Weakest classes")[2].partition("##")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")][2:]
    assert rows == [r"| \<b\>dog\</b\> | 50.0 % | 5 of 10 |", "| cat | 100.0 % | 10 of 10 |"]


def test_a_card_lists_the_confusions_and_shows_the_pictures_that_there_are() -> None:
    section = CARDS["full"].partition("## Confusions")[2].partition("##")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")][2:]
    assert rows == [r"| \<b\>dog\</b\> | cat | 5 of 10 |", r"| cat | \<b\>dog\</b\> | 1 of 12 |"]
    assert re.findall(r"!\[.*?\]\((.*?)\)", CARDS["full"]) == [CONFUSION_SVG, SAMPLES_SVG]
    assert "![" not in CARDS["bare"]
    assert "## Confusions" not in CARDS["bare"]


def test_a_card_states_the_box_that_is_evaluated() -> None:
    assert "The central square of 87.5 % of the short side, resized to 224 x 224" in CARDS["imported"]
    assert "The central box of 100.0 % of the width and of the height, resized to 224 x 224" in CARDS["squashed"]


def test_a_measured_calibration_error_is_on_the_card() -> None:
    assert "| val | calibration error (ECE, 15 bins) | 4.25 | 20 |" in CARDS["full"]
    assert "calibration error" not in CARDS["bare"]
    assert "probabilities are not calibrated: they differ from the accuracy by 4.2 points" in CARDS["full"]


def test_names_from_outside_are_text_and_no_markup() -> None:
    assert r"pets\|2" in CARDS["bare"]
    assert "<b>" not in CARDS["bare"]


def test_a_card_of_two_processes_counts_the_hours_of_both() -> None:
    assert "| process hours | 3 |" in CARDS["full"]


def test_the_lineage_reaches_the_digests_of_the_shards() -> None:
    lineage = json.loads(lineage_json(FULL))
    assert lineage["shards"] == [{"name": shard.name, "blake3": shard.blake3} for shard in SHARDS]
    assert (lineage["commit"], lineage["init_weights_sha256"]) == ("f" * 40, "e" * 64)


def test_a_family_lists_its_versions_newest_first_with_what_is_known() -> None:
    rows = [line for line in CARDS["family"].splitlines() if line.startswith("|")][2:]
    assert rows == ["| 2, champion | pets | 75.00 ± 18.98 % | 20 |", "| 1 | not trained here | not measured | - |"]


def test_a_family_names_its_champion() -> None:
    named = "Champion, the version to use: version {}, top-1 {} (`models:/pets-b0@champion`)."
    assert named.format(2, "75.00 ± 18.98 %") in CARDS["family"]
    assert named.format(1, "not measured") in CARDS["family of an undescribed champion"]
    assert "champion" not in CARDS["family without champion"].replace("No version is champion.", "")


@pytest.mark.parametrize("text", RENDERED.values(), ids=RENDERED.keys())
def test_columns_are_apart_where_mlflow_leaves_no_room_between_them(text: str) -> None:
    rows = [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
    assert rows
    for row in rows:
        *apart, _last = re.split(r"(?<!\\)\|", row)[1:-1]
        assert all(cell.endswith(" &emsp;") for cell in apart), row


def test_the_license_is_what_all_parts_have_or_not_stated() -> None:
    assert "| license | not stated |" in CARDS["bare"]
    assert "keep their licenses, which are not stated here." in CARDS["bare"]
    both = trained_card(dataclasses.replace(BARE, license="CC-BY-NC-SA-4.0 AND Apache-2.0")).replace(SPACE, " |")
    assert "| license | CC-BY-NC-SA-4.0 AND Apache-2.0 |" in both
    assert "keep their licenses." in both
