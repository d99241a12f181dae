"""Linear evaluation: the features are the network's, val has no part in the fit, and every lead has an interval."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from made_set import write_set
from numpy.typing import NDArray

from conf import schema
from models.data.loading.loader import Loader
from models.experiments import linear_evaluation
from models.experiments.linear_evaluation import (
    BATCH,
    FrozenNetwork,
    Split,
    build_frozen,
    calibrate,
    compare_networks,
    extract,
    fit_and_classify,
)
from models.networks.build import build_model
from models.networks.efficientnet.network import EfficientNet

SIDE = 32
COUNT = 2 * BATCH + 3


@pytest.fixture
def loader(tmp_path: Path) -> Iterator[Loader]:
    made = write_set(f"file://{tmp_path}/store", {"train": [COUNT], "minival": [3], "val": [3]})
    with closing(Loader(made.manifest, made.uri, "train", SIDE, schema.Augment(), tmp_path / "cache", 1)) as opened:
        yield opened


def small() -> EfficientNet:
    torch.manual_seed(0)
    network = build_model(schema.Model(name="efficientnet_lite0", width=0.25, depth=0.25), 2)
    assert isinstance(network, EfficientNet)
    return network


def test_features_are_what_the_classifier_receives(loader: Loader) -> None:
    network, received = small().eval(), []
    network.classifier.register_forward_pre_hook(lambda _, inputs: received.append(inputs[0]))
    split = extract(network, loader)
    with torch.inference_mode():
        for images, _ in linear_evaluation._images(loader):
            network(images)
    np.testing.assert_allclose(split.features, torch.cat(received).numpy(), atol=1e-5)
    assert split.labels.tolist() == [i % 10 for i in range(COUNT)]


@pytest.mark.slow
def test_calibrated_statistics_are_those_of_the_images(loader: Loader) -> None:
    network = small()
    calibrate(network, loader)
    convolution, norm = network.stem[0], network.stem[1]
    with torch.no_grad():
        outputs = [convolution(images) for images, _ in linear_evaluation._images(loader)]
    expected = torch.stack([out.mean((0, 2, 3)) for out in outputs]).mean(0)
    torch.testing.assert_close(norm.running_mean, expected, rtol=1e-4, atol=1e-5)
    assert (extract(network, loader).features.std(axis=0) > 0).mean() > 0.9  # nearly no feature is constant


@pytest.mark.slow
def test_random_weights_are_those_of_the_seed_and_imagenet_s_are_neither() -> None:
    weights = [
        build_frozen(FrozenNetwork("efficientnet_lite0", seed)).head[0].weight.detach() for seed in (0, 0, 1, None)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[3])


def split_of(numbers: np.random.Generator, count: int, signal: float) -> Split:
    labels = np.arange(count) % 2
    features = numbers.standard_normal((count, 20)).astype(np.float32)
    features[:, 0] += signal * labels
    return Split(features, labels)


@pytest.mark.parametrize(("signal", "low", "high"), [(8.0, 0.98, 1.0), (0.0, 0.4, 0.6)])
def test_a_signal_in_the_features_is_used_and_noise_stays_at_chance(signal: float, low: float, high: float) -> None:
    numbers = np.random.default_rng(0)
    splits = {part: split_of(numbers, count, signal) for part, count in (("train", 200), ("minival", 60), ("val", 400))}
    assert low <= fit_and_classify(splits, [1e-3, 1e-1]).mean() <= high


def test_minival_selects_the_strength_and_takes_part_in_the_last_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = []

    class Regression:
        def __init__(self, strength: float) -> None:
            self.strength = strength

        def predict(self, features: NDArray[np.float32]) -> NDArray[np.int64]:
            return np.full(len(features), int(self.strength == 0.1))

    def fit(_features: NDArray[np.float32], labels: NDArray[np.int64], strength: float) -> Regression:
        fitted.append((len(labels), strength))
        return Regression(strength)

    monkeypatch.setattr(linear_evaluation, "_fit", fit)
    zeros, ones = np.zeros((5, 2), np.float32), np.ones(3, np.int64)
    splits = {"train": Split(zeros, np.zeros(5, np.int64)), "minival": Split(zeros[:3], ones)}
    answers = fit_and_classify(splits | {"val": Split(zeros[:2], np.array([1, 0]))}, [0.01, 0.1, 1.0])
    assert fitted == [(5, 0.01), (5, 0.1), (5, 1.0), (8, 0.1)]
    assert answers.tolist() == [True, False]


def correct(count: int) -> NDArray[np.bool_]:
    return np.arange(1000) < count


def test_leads_are_those_over_random_weights_and_over_the_first_network() -> None:
    comparisons, verdicts = compare_networks(
        {"lite0": [correct(850)], "lite1": [correct(852)], "lite2": [correct(800)]},
        {
            "lite0": [[correct(700), correct(710)]],
            "lite1": [[correct(852), correct(852)]],
            "lite2": [[correct(700), correct(700)]],
        },
        0.5,
    )
    assert [(c.first, c.second, c.lead.seeds) for c in comparisons] == [
        ("lite0", "lite0 with random weights", 2),
        ("lite1", "lite1 with random weights", 2),
        ("lite2", "lite2 with random weights", 2),
        ("lite1", "lite0", 1),
        ("lite2", "lite0", 1),
    ]
    assert [c.lead.value for c in comparisons] == pytest.approx([14.5, 0.0, 10.0, 0.2, -5.0])
    assert (
        verdicts[1] == "lite1 is not distinguished from lite1 with random weights (+0.00 points, +0.00 to +0.00, p 1)"
    )
    assert verdicts[3].startswith("lite1 is not distinguished from lite0 (+0.20 points, ")
    assert verdicts[4].startswith("lite2 loses to lite0 (-5.00 points, ")
    assert verdicts[2].startswith("lite2 beats lite2 with random weights (+10.00 points, ")


def test_features_are_compared_within_each_fold_where_random_weights_were_tested() -> None:
    """Two random weights over three folds: nothing of the third is compared with them."""
    comparisons, _ = compare_networks(
        {"lite0": [correct(850), correct(840), correct(830)], "lite1": [correct(850), correct(850), correct(850)]},
        {"lite0": [[correct(700)], [correct(710)], []], "lite1": [[], [], []]},
        0.5,
    )
    leads = {(c.first, c.second): c.lead for c in comparisons}
    assert list(leads) == [("lite0", "lite0 with random weights"), ("lite1", "lite0")]
    assert [(lead.folds, lead.seeds, lead.n) for lead in leads.values()] == [(2, 2, 2000), (3, 3, 3000)]
    assert [lead.value for lead in leads.values()] == pytest.approx([14.0, 1.0])
