"""The optimizer against a reference written number by number, the decay groups, and the learning rates."""

import math

import pytest
import torch
from torch import Tensor, nn

from conf.schema import Recipe
from models.training import flat
from models.training.optim import Optimizer, TFRMSProp, build_optimizer, peak_rate, rate_at

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


class Ours:
    """effnet's optimizer with one weight, whose gradient is set before each step."""

    def __init__(self, start: Tensor, weight_decay: float = 0.0, epsilon: float = 1e-3) -> None:
        self.weight, self.gradient = start.clone(), torch.zeros_like(start)
        self.optimizer = Optimizer(TFRMSProp(epsilon=epsilon), {"all": (self.weight, self.gradient, weight_decay)}, 1.0)
        self.slots = self.optimizer.parts["all"].slots

    def step(self, gradient: list[float], rate: float) -> None:
        self.gradient.copy_(torch.tensor(gradient))
        self.optimizer.lr = rate
        self.optimizer.step()


class Theirs:
    """torch's RMSprop in the same form."""

    def __init__(self, **how: float) -> None:
        self.weight = nn.Parameter(torch.zeros(1))
        self.optimizer = torch.optim.RMSprop([self.weight], alpha=0.9, momentum=0.9, **how)

    def step(self, gradient: list[float], rate: float) -> None:
        self.weight.grad = torch.tensor(gradient)
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()


@pytest.mark.parametrize("weight_decay", [0.0, 1e-5, 0.3])
def test_twenty_steps_with_a_changing_rate_agree_with_the_reference(weight_decay: float) -> None:
    generator = torch.Generator().manual_seed(3)
    start = torch.randn(5, generator=generator, dtype=torch.float64)
    ours = Ours(start, weight_decay)
    expected = [Reference(value) for value in start.tolist()]
    for step in range(20):
        rate = 0.1 * 0.8 ** (step // 3)
        gradient = torch.randn(5, generator=generator, dtype=torch.float64)
        ours.gradient.copy_(gradient)
        ours.optimizer.lr = rate
        ours.optimizer.step()
        for one, value in zip(expected, gradient.tolist(), strict=True):
            one.step(value, rate, weight_decay)
    assert ours.weight.tolist() == pytest.approx([one.weight for one in expected], rel=1e-12)
    assert ours.slots["mean_square"].tolist() == pytest.approx([one.mean_square for one in expected], rel=1e-12)
    assert ours.slots["momentum"].tolist() == pytest.approx([one.momentum for one in expected], rel=1e-12)


def test_the_mean_square_starts_at_one_where_torch_starts_at_zero() -> None:
    ours, theirs = Ours(torch.zeros(1), epsilon=0.0), Theirs(eps=0.0)
    for optimizer in (ours, theirs):
        optimizer.step([2.0], 1.0)
    assert ours.weight.item() == pytest.approx(-2 / math.sqrt(0.9 * 1 + 0.1 * 4))
    assert theirs.weight.item() == pytest.approx(-2 / math.sqrt(0.1 * 4))


def test_epsilon_stands_inside_the_root_where_torch_has_it_outside() -> None:
    ours, theirs = Ours(torch.zeros(1), epsilon=0.04), Theirs(eps=0.04)
    ours.slots["mean_square"].zero_()  # so that only epsilon tells the two apart
    for optimizer in (ours, theirs):
        optimizer.step([0.3], 1.0)
    assert ours.weight.item() == pytest.approx(-0.3 / math.sqrt(0.1 * 0.09 + 0.04))
    assert theirs.weight.item() == pytest.approx(-0.3 / (math.sqrt(0.1 * 0.09) + 0.04))


def test_a_new_rate_does_not_scale_old_gradients_where_torch_s_does() -> None:
    ours, theirs = Ours(torch.zeros(1)), Theirs()
    for optimizer in (ours, theirs):
        optimizer.step([1.0], 1.0)
    first_ours, first_theirs = ours.weight.item(), theirs.weight.item()
    for optimizer in (ours, theirs):
        optimizer.step([1.0], 0.0)
    assert ours.weight.item() == pytest.approx(1.9 * first_ours)  # 0.9 of the first step again
    assert theirs.weight.item() == first_theirs


def test_two_runs_are_equal_to_the_last_bit() -> None:
    def run() -> Tensor:
        generator = torch.Generator().manual_seed(5)
        ours = Ours(torch.randn(21, generator=generator), 1e-5)
        for _ in range(5):
            ours.step(torch.randn(21, generator=generator).tolist(), 0.1)
        return ours.weight

    assert torch.equal(run(), run())


def test_the_recipe_s_numbers_reach_the_optimizer() -> None:
    recipe = Recipe(rmsprop_decay=0.8, momentum=0.7, rmsprop_epsilon=0.01, weight_decay=0.002, global_batch=512)
    optimizer, _ = flat_optimizer(recipe)
    assert optimizer.rule == TFRMSProp(decay=0.8, momentum=0.7, epsilon=0.01)
    assert optimizer.lr == 0.032
    assert [part.weight_decay for part in optimizer.parts.values()] == [0.002, 0.0]


def flat_optimizer(recipe: Recipe) -> tuple[Optimizer, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    layout = flat.layout_of(network)
    values = flat.flatten(network, layout)
    gradients = torch.randn(layout.size)
    return build_optimizer(values, gradients, layout, recipe), (values, gradients)


@pytest.mark.parametrize("name", ["rmsprop", "adamw", "sgd"])
def test_a_step_with_an_infinite_gradient_found_changes_no_bit(name: str) -> None:
    optimizer, (values, gradients) = flat_optimizer(Recipe(optimizer=name, weight_decay=0.1))
    optimizer.step()
    before = [values.clone(), *(slot.clone() for slot in optimizer.slots().values())]
    gradients.zero_()
    optimizer.found_inf = torch.tensor(1.0)
    optimizer.step()
    after = [values, *optimizer.slots().values()]
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
    gradients.normal_()
    optimizer.found_inf = torch.tensor(0.0)
    optimizer.step()
    assert not torch.equal(values, before[0])


def test_a_masked_step_that_goes_ahead_is_the_plain_one_to_the_bit() -> None:
    plain, (expected, _) = flat_optimizer(Recipe(weight_decay=0.1))
    masked, (values, _) = flat_optimizer(Recipe(weight_decay=0.1))
    masked.found_inf = torch.tensor(0.0)
    for _ in range(3):
        plain.step()
        masked.step()
    assert torch.equal(values, expected)


def test_adamw_is_torch_s_own_with_decay_on_the_decayed_part_alone() -> None:
    recipe = Recipe(optimizer="adamw", weight_decay=0.05, global_batch=256, lr_per_256=0.001)
    ours, (values, gradients) = flat_optimizer(recipe)
    theirs = nn.Parameter(values[:16].clone())
    theirs.grad = gradients[:16].clone()
    reference = torch.optim.AdamW([theirs], lr=0.001, weight_decay=0.05)
    for _ in range(3):
        ours.step()
        reference.step()
    torch.testing.assert_close(values[:16], theirs.detach())
    assert ours.parts["free"].weight_decay == 0.0


def test_sgd_is_torch_s_own_plain_loop_with_nesterov_s_momentum_and_decay_on_the_decayed_part_alone() -> None:
    recipe = Recipe(optimizer="sgd", weight_decay=0.05, momentum=0.8, global_batch=256, lr_per_256=0.01)
    ours, (values, gradients) = flat_optimizer(recipe)
    theirs = [nn.Parameter(part.clone()) for part in (values[:16], values[32:36])]
    groups = [{"params": [theirs[0]], "weight_decay": 0.05}, {"params": [theirs[1]]}]
    reference = torch.optim.SGD(groups, lr=0.01, momentum=0.8, nesterov=True, fused=False, foreach=False)
    for step in range(4):
        gradients.normal_(generator=torch.Generator().manual_seed(step))
        theirs[0].grad, theirs[1].grad = gradients[:16].clone(), gradients[32:36].clone()
        ours.step()
        reference.step()
    torch.testing.assert_close(values[:16], theirs[0].detach())
    torch.testing.assert_close(values[32:36], theirs[1].detach())
    assert ours.slots().keys() == {"decayed.momentum_buffer", "free.momentum_buffer"}


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


def test_the_cosine_falls_from_the_peak_to_zero_over_the_epochs_after_the_warmup() -> None:
    recipe = Recipe(schedule="cosine", epochs=10, warmup_epochs=2.0)
    rates = [rate_at(recipe, step, 100) for step in (100, 200, 600, 999)]
    assert rates[:3] == pytest.approx([0.128, 0.256, 0.128])
    assert 0 < rates[3] < 0.256 * 1e-4
