"""The bookkeeping of the linear evaluation: which networks, and the rows of its part."""

from __future__ import annotations

import pytest

from conf import schema
from conf.compose import OverrideError, compose
from infra.errors import ConfigError
from models.networks.packaged import FrozenNetwork, check_networks, list_frozen
from tasks.experiments.linear import StoredAnswers, _rows


def test_every_network_has_imagenet_s_weights_and_every_seed() -> None:
    options = schema.Linear(networks=["efficientnet_lite0", "efficientnet_lite2"], seeds=2)
    assert [(one.network, one.seed) for one in list_frozen(options)] == [
        (name, seed) for name in options.networks for seed in (None, 0, 1)
    ]
    with pytest.raises(ConfigError, match="use profile=study"):
        check_networks(schema.Linear())


def test_random_weights_are_one_row_with_the_mean_of_their_seeds() -> None:
    config = compose(["linear.networks=[efficientnet_lite0]"])
    answers = [
        StoredAnswers(FrozenNetwork("efficientnet_lite0", seed), text, 60.0, reused=False)
        for seed, text in ((None, "1110"), (0, "1000"), (1, "1100"))
    ]
    public, random = _rows(config, "efficientnet_lite0", answers)
    assert (public.weights, public.top1, public.seed_top1, public.n) == ("ImageNet", 75.0, (75.0,), 4)
    assert (random.weights, random.top1, random.seed_top1, random.n) == ("random", 37.5, (25.0, 50.0), 4)
    assert public.params == 4_652_008
    assert public.multiply_adds == pytest.approx(384_869_472 * (160 / 224) ** 2, rel=0.01)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("networks=[efficientnet_b0]", "'efficientnet_b0' is not one of efficientnet_lite0"),
        ("networks=[efficientnet_lite0,efficientnet_lite0]", "names a network twice"),
        ("seeds=-1", "must be >= 0"),
        ("resolution=16", "must be >= 32"),
        ("strengths=[]", "needs values > 0"),
    ],
)
def test_settings_without_sense_are_refused(setting: str, message: str) -> None:
    with pytest.raises(OverrideError, match=message):
        compose([f"linear.{setting}"])
