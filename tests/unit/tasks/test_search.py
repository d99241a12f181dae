"""The bookkeeping of a grid search: its trials as overrides, and what its MLflow run holds."""

import pytest

from conf.compose import compose
from models.networks.efficientnet.compound_scaling import PAPER
from tasks.search import trial_overrides


@pytest.mark.parametrize("overrides", [["profile=laptop"], ["profile=paper"], ["search.recipe.dropout=0.25"]])
def test_a_trial_s_overrides_compose_to_the_scaled_network_and_the_search_s_recipe(overrides: list[str]) -> None:
    config = compose(overrides)
    trial = compose([*overrides, *trial_overrides(config, PAPER)])
    assert trial.recipe == config.search.recipe
    assert (trial.model.depth, trial.model.width, trial.model.resolution) == (
        config.model.depth * 1.2,
        config.model.width * 1.1,
        config.model.resolution * 1.15,
    )
    assert (trial.data, trial.model.name) == (config.data, config.model.name)
