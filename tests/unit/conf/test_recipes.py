"""The rates, averages and batch-norm groups of the recipes that the profiles use."""

import math

import pytest
from matrix import with_slow_rest

from conf import compose, schema
from models.networks.memory import slices_per_pass
from models.training.average import decay_at
from models.training.optim import peak_rate, rate_at

PAPER = ["profile=paper", "data.path=images", "transfer.path=sets"]
IMAGENETTE = ["profile=imagenette", "data.path=images", "transfer.data.path=images"]
LAPTOP = ["profile=laptop"]
STUDY = ["profile=study"]
LAPTOP_RECIPES = [name for name in compose.options("recipe") if name.startswith("laptop")]


PROFILES = {"paper": PAPER, "imagenette": IMAGENETTE, "laptop": LAPTOP, "study": STUDY}
PLACES = {
    "networks": "recipe",
    "grid search": "search.recipe",
    "architecture search": "architecture.recipe",
    "activation maps": "explain.recipe",
    "transfer": "transfer.recipe",
}
# The recipes of proxies, of fine-tuning and of short trainings in all profiles: overrides, and the setting to read.
# The tests compose them: collecting imports this module in every process, and all of them take ten seconds.
USES: dict[str, tuple[list[str], str]] = {
    **{
        f"{profile}: {use}": (words, place)
        for profile, words in PROFILES.items()
        for use, place in PLACES.items()
        if (profile, use) not in {("paper", "networks"), ("paper", "activation maps")}  # a staircase over 350 epochs
    },
    **{
        f"{profile}: {protocol}": ([*words, f"transfer={protocol}"], "transfer.recipe")
        for profile, words in PROFILES.items()
        for protocol in ("author", "single")
    },
    "laptop: kornblith": ([*LAPTOP, "transfer=laptop_kornblith"], "transfer.recipe"),
    **{f"laptop: recipe={name}": ([*LAPTOP, f"recipe={name}"], "recipe") for name in LAPTOP_RECIPES},
}


def recipe_of(use: str) -> schema.Recipe:
    words, place = USES[use]
    recipe: schema.Recipe = compose.read_setting(compose.compose(words), place)
    return recipe


def test_every_profile_is_checked() -> None:
    assert {use.partition(":")[0] for use in USES} == set(compose.options("profile"))
    assert set(LAPTOP_RECIPES) >= {"laptop", "laptop_explain", "laptop_finetune", "laptop_kornblith", "laptop_search"}


@pytest.mark.parametrize("use", with_slow_rest(USES, plain=2))
def test_a_short_training_ends_at_a_tenth_of_its_peak_rate_or_less(use: str) -> None:
    steps, recipe = 100, recipe_of(use)
    assert rate_at(recipe, recipe.epochs * steps - 1, steps) <= peak_rate(recipe) / 10


@pytest.mark.parametrize("use", with_slow_rest([use for use in USES if use != "imagenette: networks"], plain=4))
def test_a_short_training_warms_up_for_an_epoch_at_most(use: str) -> None:
    assert recipe_of(use).warmup_epochs <= 1


def test_networks_are_trained_from_random_weights_at_the_official_rate_on_imagenette() -> None:
    for use in ("networks", "grid search", "architecture search", "activation maps"):
        assert recipe_of(f"imagenette: {use}").lr_per_256 == 0.016, use
    assert recipe_of("imagenette: networks").epochs == 200
    assert recipe_of("imagenette: transfer").lr_per_256 == 0.016 / 4  # from trained weights


@pytest.mark.parametrize("use", with_slow_rest(USES, plain=2))
def test_the_initial_weights_have_no_share_in_the_average_of_a_short_training(use: str) -> None:
    """The decay rises with the steps. A constant 0.9999 would leave them 95 % after 500 steps."""
    if ema_decay := recipe_of(use).ema_decay:
        decays = [decay_at(ema_decay, step) for step in range(1, 101)]
        assert math.prod(decays) < 1e-9


def images_per_group(recipe: schema.Recipe, ranks: int) -> int:
    """Images over which batch statistics are computed, with one network on each rank."""
    images = recipe.global_batch // recipe.batch_slices * slices_per_pass(recipe, ranks)
    return images * ranks if recipe.bn_groups == "sync" else images


def test_the_paper_s_recipe_has_the_batch_norm_groups_of_the_official_code_on_eight_ranks() -> None:
    config = compose.compose(PAPER)
    assert config.launch.nproc_per_node == 8
    for recipe in (config.recipe, config.search.recipe, config.architecture.recipe):
        assert images_per_group(recipe, 8) == 512  # tensorflow/tpu, utils.py: max(8, 64 / 8) cores of 64 images
    by_slice = compose.compose([*PAPER, "recipe.bn_groups=slice"]).recipe
    assert {images_per_group(by_slice, ranks) for ranks in (1, 8, 64)} == {64}


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_kornblith_s_batch_norm_has_one_group_and_imagenette_s_have_128_images_or_more(ranks: int) -> None:
    assert images_per_group(recipe_of("paper: transfer"), ranks) == recipe_of("paper: transfer").global_batch == 256
    for use in ("networks", "grid search", "architecture search", "activation maps"):
        assert images_per_group(recipe_of(f"imagenette: {use}"), ranks) >= 128
