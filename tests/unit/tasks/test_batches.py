"""Batches and grids that the jobs of a command would refuse, named before it starts anything."""

from __future__ import annotations

import pytest

from conf.compose import compose
from flows import configure
from flows.cli.verbs import VERBS
from infra.errors import ConfigError
from tasks.batches import RECIPES, check_batches


@pytest.mark.parametrize(
    ("verb", "words", "message"),
    [
        ("train", ["recipe.global_batch=63"], "^recipe.global_batch 63 cannot be divided"),
        ("scaling", ["launch.nproc_per_node=3"], "^recipe.batch_slices .* over 3 processes"),
        ("search", ["search.recipe.global_batch=63"], "^search.recipe.global_batch 63"),
        ("architecture", ["architecture.recipe.global_batch=63"], "^architecture.recipe.global_batch 63"),
        ("reproduce", ["explain.recipe.global_batch=63"], "^explain.recipe.global_batch 63"),
        ("reproduce", ["transfer.recipe.global_batch=63"], "^transfer.recipe.global_batch 63"),
        ("nightly", ["transfer.recipe.global_batch=63"], "^transfer.recipe.global_batch 63"),
        ("transfer", ["recipe.global_batch=63"], "^recipe.global_batch 63"),
        ("study", ["profile=study", "architecture.recipe.global_batch=63"], "^architecture.recipe.global_batch 63"),
        (
            "train",
            ["recipe.bn_groups=sync", "runtime.pipeline_stages=2"],
            "^recipe.bn_groups=sync is incompatible with runtime.pipeline_stages=2",
        ),
        ("reproduce", ["search.alpha=[2.5]"], "^no point of the grid"),
    ],
)
def test_what_the_jobs_of_a_command_would_refuse_is_refused_by_the_name_of_its_setting(
    verb: str, words: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_batches(verb, compose(words))


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("transfer", ["model_ref=b0@champion", "recipe.global_batch=63"]),  # nothing is trained by `recipe`
        ("explain", ["explain.models=[{registered:b0@champion}]", "explain.recipe.global_batch=63"]),
        ("search", ["recipe.global_batch=63"]),
        ("study", ["transfer.network=null", "transfer.recipe.global_batch=63"]),
        ("report", ["recipe.global_batch=63"]),
    ],
)
def test_a_recipe_by_which_nothing_is_trained_is_not_checked(verb: str, words: list[str]) -> None:
    check_batches(verb, compose(words))


def test_every_verb_that_trains_has_its_recipes_in_the_table() -> None:
    assert set(RECIPES) == {name for name, verb in VERBS.items() if verb.trains}


def test_a_run_of_a_deployment_refuses_them_before_its_flow_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configure, "_flow_name", lambda: "train")
    with pytest.raises(ConfigError, match=r"recipe\.global_batch 63 cannot be divided"):
        configure.configure(["recipe.global_batch=63"])
