"""The rates of short trainings: one that ends at a high rate says little of the network."""

import pytest

from conf import compose, schema
from models.training.optim import peak_rate, rate_at

PAPER = ["profile=paper", "data.path=images", "transfer.path=sets"]
IMAGENETTE = ["profile=imagenette", "data.path=images", "transfer.data.path=images"]


def _short_recipes() -> dict[str, schema.Recipe]:
    """The recipes of proxies and of fine-tuning in the profiles for GPUs."""
    paper, imagenette = compose.compose(PAPER), compose.compose(IMAGENETTE)
    return {
        "paper: grid search": paper.search.recipe,
        "paper: architecture search": paper.architecture.recipe,
        "paper: kornblith": paper.transfer.recipe,
        "paper: author": compose.compose([*PAPER, "transfer=author"]).transfer.recipe,
        "imagenette: networks": imagenette.recipe,
        "imagenette: grid search": imagenette.search.recipe,
        "imagenette: architecture search": imagenette.architecture.recipe,
        "imagenette: activation maps": imagenette.explain.recipe,
        "imagenette: transfer": imagenette.transfer.recipe,
    }


SHORT = _short_recipes()


@pytest.mark.parametrize("use", SHORT)
def test_a_short_training_ends_at_a_tenth_of_its_peak_rate_or_less(use: str) -> None:
    steps = 100
    last = rate_at(SHORT[use], SHORT[use].epochs * steps - 1, steps)
    assert last <= 0.1 * peak_rate(SHORT[use])


@pytest.mark.parametrize("use", [use for use in SHORT if use != "imagenette: networks"])
def test_a_short_training_warms_up_for_an_epoch_at_most(use: str) -> None:
    assert SHORT[use].warmup_epochs <= 1
