"""The cost of the full reproduction: one table in code, and the same numbers in its document."""

import re

import pytest
from checkout import ROOT

from conf import compose, schema
from infra.errors import ConfigError
from models.data.loading.order import steps_per_epoch
from models.experiments import full_run
from models.paper import table2

PAGE = (ROOT / "docs/full-reproduction.md").read_text()
IMAGENET_TRAIN = 1_281_167  # images, the minival included
IMAGES = 107_100 * 4_096  # of one training, repetitions counted


def paper() -> schema.Config:
    return compose.compose(["profile=paper"])


def test_a_run_has_the_steps_of_the_recipe_on_the_images_that_are_not_held_out() -> None:
    config = paper()
    train = IMAGENET_TRAIN - round(IMAGENET_TRAIN * config.data.minival_share)
    batch = config.recipe.global_batch
    assert steps_per_epoch(train, batch) * config.recipe.epochs * batch == IMAGES
    assert f"{IMAGES:,} training images a run: 107,100 steps" in PAGE


def gpu_hours(run: full_run.FullRun) -> float:
    return IMAGES / run.images_per_s / 3600


def test_every_variant_of_the_profile_has_a_row_and_the_document_shows_it() -> None:
    config = paper()
    assert list(full_run.FULL_RUNS) == config.variants
    gpus, rows = config.launch.nproc_per_node, re.findall(r"^\| B\d .*\|$", PAGE, re.MULTILINE)
    expected = []
    for name, run in full_run.FULL_RUNS.items():
        hours = gpu_hours(run)
        speed = f"{run.images_per_s:,.0f}" + ("" if run.measured else " (estimate)")
        top1 = table2(name).top1
        accuracies = f"{top1} | {round(top1 - run.margin, 1)} | {run.seeds}"
        expected.append(f"| B{name[-1]} | {speed} | {hours:,.0f} | {hours / gpus:.1f} | {accuracies} |")
    assert rows == expected


def test_the_sums_of_the_document_are_those_of_its_rows() -> None:
    hours = [gpu_hours(run) for run in full_run.FULL_RUNS.values()]
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
