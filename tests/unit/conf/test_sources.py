"""Where each setting comes from is what Hydra did."""

import pytest
from matrix import with_slow_rest

from conf import compose, sources


def by_key(*overrides: str) -> dict[str, sources.Setting]:
    return {setting.key: setting for setting in sources.settings(overrides)}


def test_the_last_file_that_sets_a_value_is_its_source_and_a_word_comes_after_it() -> None:
    settings = by_key("model=b3", "recipe.epochs=3", "recipe@transfer.recipe=modern")
    assert settings["model.name"].source == "model/b3.yaml"
    assert settings["model.width"].source == "profile/laptop.yaml"
    assert settings["recipe.epochs"] == sources.Setting("recipe.epochs", 3, "recipe.epochs=3")
    assert settings["recipe.global_batch"].source == "recipe/laptop.yaml"
    assert settings["transfer.recipe.epochs"].source == "recipe/modern.yaml"
    assert settings["recipe.seed"].source == "default"


def test_a_word_that_sets_a_whole_branch_is_the_source_of_its_settings() -> None:
    word = "data.augment={policy:none,flip_prob:0.25}"
    assert by_key(word)["data.augment.flip_prob"] == sources.Setting("data.augment.flip_prob", 0.25, word)


@pytest.mark.parametrize("profile", with_slow_rest(compose.options("profile")))
def test_every_setting_has_the_value_that_is_composed(profile: str) -> None:
    config = compose.compose([f"profile={profile}"])
    for key, setting in by_key(f"profile={profile}").items():
        composed = compose.read_setting(config, key)
        assert isinstance(composed, list) or setting.value == composed
