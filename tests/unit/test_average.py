"""The moving average against a plain loop."""

import pytest
import torch
from torch import nn

from models.training.average import WeightAverage, averaged_tensors


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))


def disturb(net: nn.Module) -> None:
    """What a training step does: new weights in place, new BN statistics."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter))
    net.train()(torch.randn(8, 3, 2, 2))


@pytest.mark.parametrize("decay", [0.9999, 0.3, 0.0])
def test_it_agrees_with_a_plain_loop(decay: float) -> None:
    net = network()
    average = WeightAverage(net, decay)
    expected = {name: tensor.double() for name, tensor in averaged_tensors(net).items()}
    for step in range(1, 16):
        disturb(net)
        average.update(step)
        d = min(decay, (1 + step) / (10 + step))
        for name, tensor in averaged_tensors(net).items():
            expected[name] = d * expected[name] + (1 - d) * tensor.double()
    for name, tensor in average.tensors.items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("step", "decay"), [
    (1, 2 / 11), (10, 0.55), (90, 0.91), (89_989, 89_990 / 89_999), (89_991, 0.9999), (10**6, 0.9999),
])  # fmt: skip
def test_the_decay_rises_to_its_cap(step: int, decay: float) -> None:
    assert WeightAverage(network(), 0.9999).decay_at(step) == pytest.approx(decay, abs=1e-12)


def test_it_starts_as_a_copy_that_training_does_not_touch() -> None:
    net = network()
    average = WeightAverage(net, 0.9)
    before = {name: tensor.clone() for name, tensor in averaged_tensors(net).items()}
    disturb(net)
    assert all(torch.equal(average.tensors[name], before[name]) for name in before)


def test_batch_norm_statistics_are_averaged_and_counters_are_not() -> None:
    net = network()
    average = WeightAverage(net, 0.9)
    assert {"1.running_mean", "1.running_var"} < average.tensors.keys()
    assert "1.num_batches_tracked" not in average.tensors
    disturb(net)
    average.update(1)
    running_mean = dict(net.named_buffers())["1.running_mean"]
    torch.testing.assert_close(average.tensors["1.running_mean"], (1 - 2 / 11) * running_mean)  # the start was 0


def test_the_copy_for_evaluation_holds_the_average_and_shares_nothing() -> None:
    net, other = network(0), network(1)
    average = WeightAverage(net, 0.9)
    disturb(net)
    average.update(1)
    average.copy_to(other)
    copied = averaged_tensors(other)
    assert all(torch.equal(copied[name], tensor) for name, tensor in average.tensors.items())
    disturb(net)
    average.update(2)
    assert not torch.equal(copied["0.weight"], average.tensors["0.weight"])
