"""The bookkeeping of a grid search: its trials, and what its MLflow run holds."""

import pytest

from conf.compose import compose
from models.networks.efficientnet.compound_scaling import PAPER
from tasks.experiments.search import trial_config


@pytest.mark.parametrize("overrides", [["profile=laptop"], ["profile=paper"], ["search.recipe.dropout=0.25"]])
def test_a_trial_is_the_scaled_network_by_the_search_s_recipe(overrides: list[str]) -> None:
    config = compose(overrides)
    trial = trial_config(config, PAPER)
    assert trial.recipe == config.search.recipe
    assert (trial.model.depth, trial.model.width, trial.model.resolution) == (
        config.model.depth * 1.2,
        config.model.width * 1.1,
        config.model.resolution * 1.15,
    )
    assert (trial.data, trial.model.name) == (config.data, config.model.name)
