"""The optimizer against a reference written number by number, the decay groups, and the learning rates."""

import math

import pytest
import torch
from torch import Tensor, nn

from conf.schema import Recipe
from models.build import build_network
from models.training.optim import TFRMSProp, build_optimizer, decay_groups, peak_rate, rate_at

IMAGENET_STEPS = 1_281_167 // 4096  # global steps of an epoch at the paper's batch


class Reference:
    """One weight under tensorflow/python/training/rmsprop.py, in Python floats."""

    def __init__(self, weight: float) -> None:
        self.weight, self.mean_square, self.momentum = weight, 1.0, 0.0

    def step(self, gradient: float, rate: float, weight_decay: float) -> None:
        gradient += weight_decay * self.weight
        self.mean_square = 0.9 * self.mean_square + 0.1 * gradient**2
        self.momentum = 0.9 * self.momentum + rate * gradient / math.sqrt(self.mean_square + 1e-3)
        self.weight -= self.momentum


def group(weight: Tensor, weight_decay: float = 0.0) -> list[dict[str, object]]:
    return [{"params": [weight], "weight_decay": weight_decay}]


def gradient_step(optimizer: torch.optim.Optimizer, weight: Tensor, gradient: list[float], rate: float) -> None:
    weight.grad = torch.tensor(gradient, dtype=weight.dtype)
    optimizer.param_groups[0]["lr"] = rate
    optimizer.step()


@pytest.mark.parametrize("weight_decay", [0.0, 1e-5, 0.3])
def test_twenty_steps_with_a_changing_rate_agree_with_the_reference(weight_decay: float) -> None:
    generator = torch.Generator().manual_seed(3)
    start = torch.randn(5, generator=generator, dtype=torch.float64)
    weight = nn.Parameter(start.clone())
    optimizer = TFRMSProp(group(weight, weight_decay), lr=1.0)
    expected = [Reference(value) for value in start.tolist()]
    for step in range(20):
        rate = 0.1 * 0.8 ** (step // 3)
        gradient = torch.randn(5, generator=generator, dtype=torch.float64).tolist()
        gradient_step(optimizer, weight, gradient, rate)
        for one, value in zip(expected, gradient, strict=True):
            one.step(value, rate, weight_decay)
    assert weight.tolist() == pytest.approx([one.weight for one in expected], rel=1e-12)
    state = optimizer.state[weight]
    assert state["mean_square"].tolist() == pytest.approx([one.mean_square for one in expected], rel=1e-12)
    assert state["momentum"].tolist() == pytest.approx([one.momentum for one in expected], rel=1e-12)


def test_the_mean_square_starts_at_one_where_torch_starts_at_zero() -> None:
    ours, theirs = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    gradient_step(TFRMSProp(group(ours), lr=1.0, epsilon=0.0), ours, [2.0], 1.0)
    gradient_step(torch.optim.RMSprop([theirs], alpha=0.9, eps=0.0, momentum=0.9), theirs, [2.0], 1.0)
    assert ours.item() == pytest.approx(-2 / math.sqrt(0.9 * 1 + 0.1 * 4))
    assert theirs.item() == pytest.approx(-2 / math.sqrt(0.1 * 4))


def test_epsilon_stands_inside_the_root_where_torch_has_it_outside() -> None:
    ours, theirs = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    mine = TFRMSProp(group(ours), lr=1.0, epsilon=0.04)
    mine.state[ours]["mean_square"].zero_()  # so that only epsilon tells the two apart
    gradient_step(mine, ours, [0.3], 1.0)
    gradient_step(torch.optim.RMSprop([theirs], alpha=0.9, eps=0.04, momentum=0.9), theirs, [0.3], 1.0)
    assert ours.item() == pytest.approx(-0.3 / math.sqrt(0.1 * 0.09 + 0.04))
    assert theirs.item() == pytest.approx(-0.3 / (math.sqrt(0.1 * 0.09) + 0.04))


def test_a_new_rate_does_not_scale_old_gradients_where_torch_s_does() -> None:
    ours, theirs = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    mine = TFRMSProp(group(ours), lr=1.0)
    other = torch.optim.RMSprop([theirs], alpha=0.9, momentum=0.9)
    for optimizer, weight in ((mine, ours), (other, theirs)):
        gradient_step(optimizer, weight, [1.0], 1.0)
    first_ours, first_theirs = ours.item(), theirs.item()
    for optimizer, weight in ((mine, ours), (other, theirs)):
        gradient_step(optimizer, weight, [1.0], 0.0)
    assert ours.item() == pytest.approx(1.9 * first_ours)  # 0.9 of the first step again
    assert theirs.item() == first_theirs


def test_a_parameter_without_a_gradient_stays_and_a_closure_is_refused() -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = TFRMSProp(group(weight, 0.1), lr=1.0)
    optimizer.step()
    assert weight.tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="closure"):
        optimizer.step(lambda: 0.0)


def test_two_runs_are_equal_to_the_last_bit() -> None:
    def run() -> Tensor:
        generator = torch.Generator().manual_seed(5)
        weight = nn.Parameter(torch.randn(7, 3, generator=generator))
        optimizer = TFRMSProp(group(weight, 1e-5), lr=0.1)
        for _ in range(5):
            weight.grad = torch.randn(7, 3, generator=generator)
            optimizer.step()
        return weight.detach()

    assert torch.equal(run(), run())


def test_all_of_b0_is_decayed_but_batch_norm() -> None:
    network = build_network("efficientnet_b0", device="meta")
    decayed, free = decay_groups(network, 1e-5)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert (decayed["weight_decay"], free["weight_decay"]) == (1e-5, 0.0)
    assert sum(p.numel() for p in decayed["params"]) == 5_246_532
    assert sum(p.numel() for p in free["params"]) == 42_016
    decayed_names = {names[id(p)] for p in decayed["params"]}
    assert {"classifier.bias", "blocks.3.se.reduce.bias", "blocks.3.se.expand.bias"} <= decayed_names
    assert len(free["params"]) == 2 * 49


def test_the_recipe_s_numbers_reach_the_optimizer() -> None:
    recipe = Recipe(rmsprop_decay=0.8, momentum=0.7, rmsprop_epsilon=0.01, weight_decay=0.002, global_batch=512)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    optimizer = build_optimizer(network, recipe)
    keys = ("lr", "decay", "momentum", "epsilon", "weight_decay")
    assert [[g[key] for key in keys] for g in optimizer.param_groups] == [
        [0.032, 0.8, 0.7, 0.01, 0.002],
        [0.032, 0.8, 0.7, 0.01, 0.0],
    ]


@pytest.mark.parametrize(("batch", "peak"), [(4096, 0.256), (2048, 0.128), (256, 0.016), (64, 0.004)])
def test_the_peak_rate_follows_the_global_batch(batch: int, peak: float) -> None:
    assert peak_rate(Recipe(global_batch=batch)) == pytest.approx(peak)


def test_the_rate_rises_linearly_from_zero_over_the_warmup() -> None:
    warmup = 5 * IMAGENET_STEPS
    rates = [rate_at(Recipe(), step, IMAGENET_STEPS) for step in (0, warmup // 4, warmup // 2, warmup - 1)]
    assert rates == pytest.approx([0.0, 0.064, 0.128, 0.256 * (warmup - 1) / warmup])


def test_the_first_full_rate_has_two_decays_behind_it() -> None:
    assert rate_at(Recipe(), 5 * IMAGENET_STEPS, IMAGENET_STEPS) == pytest.approx(0.24087, abs=5e-6)


def test_the_last_rate_of_350_epochs_is_the_paper_s() -> None:
    assert rate_at(Recipe(), 350 * IMAGENET_STEPS - 1, IMAGENET_STEPS) == pytest.approx(0.00309, abs=5e-6)


def test_the_rate_falls_in_stairs_of_two_point_four_epochs() -> None:
    rates = [rate_at(Recipe(), step, 10) for step in range(50, 120)]  # a stair is 24 steps: 72, 96, 120
    assert rates[:22] == [rates[0]] * 22
    assert rates[22:46] == [pytest.approx(0.97 * rates[0])] * 24
    assert rates[46:] == [pytest.approx(0.97**2 * rates[0])] * 24


def test_without_warmup_the_first_step_has_the_peak_rate() -> None:
    assert rate_at(Recipe(warmup_epochs=0.0), 0, 10) == 0.256
