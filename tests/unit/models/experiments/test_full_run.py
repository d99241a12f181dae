"""The cost of the full reproduction: one table in code, and the same numbers in its document."""

import re

import pytest
from checkout import ROOT

from conf import compose
from infra.errors import ConfigError
from models.data.loading.order import steps_per_epoch
from models.experiments import full_run
from models.paper import table2

PAGE = (ROOT / "docs/full-reproduction.md").read_text()
CONFIG = compose.compose(["profile=paper"])
IMAGES = full_run.count_images(CONFIG.recipe, CONFIG.data.minival_share)


def test_a_run_has_the_steps_of_the_recipe_on_the_images_that_are_not_held_out() -> None:
    assert full_run.IMAGENET_TRAIN - round(full_run.IMAGENET_TRAIN * CONFIG.data.minival_share) == 1_256_145
    assert steps_per_epoch(1_256_145, 4_096) * 350 == 107_100
    assert IMAGES == 107_100 * 4_096
    assert f"{IMAGES:,} training images a run: 107,100 steps" in PAGE


def test_every_variant_of_the_profile_has_a_row_and_the_document_shows_it() -> None:
    assert list(full_run.FULL_RUNS) == CONFIG.variants
    gpus, rows = CONFIG.launch.nproc_per_node, re.findall(r"^\| B\d .*\|$", PAGE, re.MULTILINE)
    expected = []
    for name, run in full_run.FULL_RUNS.items():
        hours = full_run.gpu_hours(name, IMAGES)
        speed = f"{run.images_per_s:,.0f}" + ("" if run.measured else " (estimate)")
        accuracies = f"{table2(name).top1} | {full_run.accepted_top1(name)} | {run.seeds}"
        expected.append(f"| B{name[-1]} | {speed} | {hours:,.0f} | {hours / gpus:.1f} | {accuracies} |")
    assert rows == expected


def test_the_sums_of_the_document_are_those_of_its_rows() -> None:
    hours = [full_run.gpu_hours(name, IMAGES) for name in full_run.FULL_RUNS]
    assert f"One run of each is {sum(hours):,.0f} GPU-hours; B0 to B3 are {sum(hours[:4]):.0f} of them" in PAGE
    assert f"seeds of B0 add {2 * hours[0]:.0f}." in PAGE


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["profile=laptop"], "the data are mnist5k"),
        (["profile=paper", "gate.weights=[tf_efficientnet_b0_aa.pth]"], "data.path=FOLDER"),
    ],
)
def test_a_gate_without_imagenet_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        full_run.check_request(compose.compose(words))
