"""The bookkeeping of the linear evaluation: which networks, and the rows of its part."""

from __future__ import annotations

from dataclasses import replace

import pytest

from conf import schema
from conf.compose import OverrideError, compose
from infra.errors import ConfigError
from models.networks.packaged import FrozenNetwork, check_networks, list_frozen
from models.results import ShardResult
from tasks.experiments import linear
from tasks.experiments.linear import StoredAnswers, _rows

SHARDS = ShardResult("digits", "file:///m", "0", 10, 8, 1, 4, 5, reused=True)


def test_every_network_has_imagenet_s_weights_and_every_seed() -> None:
    options = schema.Linear(networks=["efficientnet_lite0", "efficientnet_lite2"], seeds=2)
    assert [(one.network, one.seed) for one in list_frozen(options)] == [
        (name, seed) for name in options.networks for seed in (None, 0, 1)
    ]
    with pytest.raises(ConfigError, match="use profile=study"):
        check_networks(schema.Linear())


def test_imagenet_s_weights_are_evaluated_on_every_fold_and_the_seeds_run_over_them() -> None:
    options = schema.Linear(networks=["efficientnet_lite0"], seeds=4)
    assert [(one.seed, one.fold) for one in list_frozen(options, 3)] == [
        *[(None, 0), (None, 1), (None, 2)],
        *[(0, 0), (1, 1), (2, 2), (3, 0)],
    ]
    assert FrozenNetwork("efficientnet_lite0", 1, 1).title == "efficientnet_lite0, random weights 1, fold 1"


def test_the_part_has_the_accuracy_over_all_images_of_all_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose(["linear.networks=[efficientnet_lite0]", "linear.seeds=2", "data.folds=2", "data.val_share=0.5"])
    folds = [replace(SHARDS, manifest_sha256="a"), replace(SHARDS, manifest_sha256="b", val=2)]
    texts = {(None, 0): "1110", (None, 1): "10", (0, 0): "1000", (1, 1): "00"}
    answers = [
        StoredAnswers(frozen, folds[frozen.fold], texts[frozen.seed, frozen.fold], [60.0, 90.0][frozen.fold], False)
        for frozen in list_frozen(config.linear, 2)
    ]
    published: list[object] = []
    monkeypatch.setattr(linear.report_results, "publish_part", lambda *part: published.append(part[3]))
    result = linear._record(config, answers)
    assert (result.n, result.majority) == (6, pytest.approx(70.0))
    public, random = result.rows
    assert (public.top1, public.n) == (pytest.approx(100 * 4 / 6), 6)
    assert (random.top1, random.n) == (pytest.approx(100 / 6), 6)
    (comparison,) = result.comparisons
    assert comparison.lead.value == pytest.approx(50.0)
    assert published == [{"digits": "a", "digits fold 1": "b"}]


def test_random_weights_are_one_row_with_the_mean_of_their_seeds() -> None:
    config = compose(["linear.networks=[efficientnet_lite0]"])
    answers = [
        StoredAnswers(FrozenNetwork("efficientnet_lite0", seed), SHARDS, text, 60.0, reused=False)
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
