"""A global step: the same whoever computes its parts, right in its statistics, harmless when a number is not finite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import pytest
import torch
from matrix import with_slow_rest
from torch import nn

from conf import schema
from infra.errors import CapacityError
from models.data.loading.loader import Batch
from models.networks.build import build_model
from models.networks.efficientnet.blocks import SqueezeExcite
from models.networks.efficientnet.preprocessing import Normalize
from models.training.checkpoints import state as states
from models.training.checkpoints.state import TrainState
from models.training.distributed import Ranks
from models.training.step import Stepper
from models.training.supervision.faults import Faults
from models.training.supervision.watchdog import Watchdog

SIDE, SLICE = 32, 4


class Waiting:
    """Stands for the watchdog of a job of one rank."""

    @contextmanager
    def waiting(self) -> Iterator[None]:
        yield


def job(**recipe: Any) -> schema.Job:
    spec = {"global_batch": 2 * SLICE, "batch_slices": 2, "warmup_epochs": 0.0, "dropout": 0.2, "bn_momentum": 0.1}
    model = schema.Model(width=0.25, depth=0.2)
    return schema.Job(kind="train", model=model, recipe=schema.Recipe(**{**spec, **recipe}))


def build_stepper(spec: schema.Job, ranks: int = 1) -> tuple[Stepper, TrainState]:
    torch.manual_seed(0)
    network = build_model(spec.model, 5, dropout=spec.recipe.dropout)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = spec.recipe.bn_momentum
    network.recompute = spec.recipe.recompute  # type: ignore[assignment]
    state = states.initial_state(network.to(memory_format=torch.channels_last), spec.recipe)
    place = Ranks(0, ranks, torch.device("cpu"))
    return Stepper(spec, place, state, 10, cast(Watchdog, Waiting()), Faults("file:///nowhere", 0)), state


def batch(seed: int, images: int = 2 * SLICE) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (images, SIDE, SIDE, 3), generator=generator, dtype=torch.uint8)
    return Batch(pixels, torch.randint(0, 5, (images,), generator=generator), np.arange(images))


def everything(state: TrainState) -> list[torch.Tensor]:
    return [tensor.detach().clone() for tensor in state.tensors().values()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_statistics_move_once_a_step_by_the_mean_over_the_batch_slices() -> None:
    stepper, state = build_stepper(job())
    torch.manual_seed(0)
    plain = build_model(job().model, 5, dropout=0.0).train()
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
    images = Normalize(torch.device("cpu"))(batch(1).images)
    with torch.no_grad():  # the stem comes before anything that is random
        whole = plain.stem[0](images)
    norm = plain.stem[1]
    means = whole.reshape(2, SLICE, *whole.shape[1:]).mean((1, 3, 4))
    stepper.step(batch(1), False)
    batch_norm = state.network.stem[1]  # type: ignore[index, union-attr]
    expected = 0.9 * norm.running_mean + 0.1 * means.mean(0)
    torch.testing.assert_close(batch_norm.running_mean, expected, rtol=1e-4, atol=1e-5)  # type: ignore[union-attr]


def test_a_pass_over_two_slices_normalizes_over_both() -> None:
    apart, state_apart = build_stepper(job())
    together, state_together = build_stepper(job(bn_groups="rank"))
    for stepper in (apart, together):
        stepper.step(batch(1), False)
    assert not torch.equal(state_apart.values, state_together.values)
    torch.testing.assert_close(
        state_apart.network.stem[1].running_mean,  # type: ignore[index, union-attr]
        state_together.network.stem[1].running_mean,  # type: ignore[index, union-attr]
    )


def simplify(network: nn.Module) -> None:
    """Batch norm as in evaluation, no stochastic depth."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train = lambda mode=True, module=module: module  # type: ignore[method-assign, misc, assignment]
            module.training = False
        if hasattr(module, "survival_prob"):
            module.survival_prob = 1.0


def test_accumulated_passes_add_up_to_the_gradient_of_the_whole_batch() -> None:
    """In a network without batch norm and randomness the parts must add up to the whole."""
    spec = job(dropout=0.0, weight_decay=0.0, label_smoothing=0.0)
    stepper, state = build_stepper(spec)
    simplify(state.network)
    stepper.step(batch(1), False)
    parts = stepper.gradients.clone()
    assert (stepper.slices_per_rank, stepper.slices_per_pass) == (2, 1)
    whole, whole_state = build_stepper(job(dropout=0.0, weight_decay=0.0, label_smoothing=0.0, bn_groups="rank"))
    simplify(whole_state.network)
    whole.step(batch(1), False)
    torch.testing.assert_close(parts, whole.gradients, rtol=1e-3, atol=1e-5)


def test_a_step_with_nan_changes_no_bit_and_the_next_one_is_as_if_it_had_not_been(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAULT", "batch@0:2=nan!")
    broken, state = build_stepper(job())
    monkeypatch.delenv("FAULT")
    plain, expected = build_stepper(job())
    for stepper in (broken, plain):
        stepper.step(batch(1), False)
    before = everything(state)
    broken.step(batch(2), False)
    first, second = broken.outcomes()
    assert (first.finite, second.finite) == (True, False)
    assert same(everything(state), before)
    assert state.position.step == 2
    broken.faults.faults.clear()
    expected.position.step = 2  # a run that skips this step
    for stepper in (broken, plain):
        stepper.step(batch(3), False)
    assert same(everything(state), everything(expected))


def test_out_of_memory_is_tried_again_with_recomputation_and_gives_the_same_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain, expected = build_stepper(job())
    plain.step(batch(1), False)
    monkeypatch.setenv("FAULT", "batch@0:1=oom!")
    short, state = build_stepper(job())
    short.step(batch(1), False)
    assert state.network.recompute
    assert same(everything(state), everything(expected))


def test_recomputed_activations_give_the_same_bits_and_are_recomputed() -> None:
    plain, expected = build_stepper(job())
    again, state = build_stepper(job(recompute=True))
    calls = []
    for module in state.network.modules():
        if isinstance(module, SqueezeExcite):
            module.register_forward_hook(lambda *_: calls.append(1))
    for seed in range(3):
        for stepper in (plain, again):
            stepper.step(batch(seed), False)
    assert same(everything(state), everything(expected))
    blocks = sum(isinstance(module, SqueezeExcite) for module in state.network.modules())
    assert len(calls) == 3 * 2 * 2 * blocks  # steps, passes, forward and backward


def test_out_of_memory_in_spite_of_recomputation_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    stepper, state = build_stepper(job(recompute=True))

    def allocator(*_: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(state.network, "forward", allocator)
    with pytest.raises(CapacityError, match=r"out of memory with 4 images of 224 px .* raise recipe\.batch_slices"):
        stepper.step(batch(1), False)


def test_out_of_memory_is_not_tried_again_where_other_ranks_wait_in_the_same_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAULT", "batch@0:1=oom!")
    stepper, state = build_stepper(job(bn_groups="sync", slices_per_pass=1), ranks=2)
    with pytest.raises(CapacityError, match=r"activations in memory .*set recipe\.recompute=true, raise"):
        stepper.step(batch(1, SLICE), False)
    assert not state.network.recompute


@pytest.mark.parametrize("optimizer", with_slow_rest(["rmsprop", "adamw"]))
def test_training_lowers_the_loss(optimizer: str) -> None:
    stepper, _ = build_stepper(
        job(optimizer=optimizer, lr_per_256=0.1 if optimizer == "rmsprop" else 0.05, dropout=0.0)
    )
    for _ in range(30):
        stepper.step(batch(1), False)
    losses = [outcome.loss for outcome in stepper.outcomes()]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.slow
def test_bf16_trains_close_to_fp32() -> None:
    # 32 images per batch slice: over 4, batch norm multiplies the rounding, by 6 % of the loss on one kind of CPU.
    spec = {"dropout": 0.0, "global_batch": 64, "lr_per_256": 1e-4}
    exact, _ = build_stepper(job(**spec))
    rough, _ = build_stepper(job(**spec, precision="bf16"))
    for stepper in (exact, rough):
        for seed in range(3):
            stepper.step(batch(seed, images=64), False)
    losses = [[outcome.loss for outcome in stepper.outcomes()] for stepper in (exact, rough)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]


def test_the_loss_is_that_of_smoothed_labels() -> None:
    """Source: official main.py, ``label_smoothing=0.1``: 0.1 of the weight is spread over all classes, alike."""
    stepper, _ = build_stepper(job(label_smoothing=0.1))
    logits, labels = torch.tensor([[2.0, 0.0, -1.0, 0.5, 1.0], [0.0, 0.0, 0.0, 0.0, 3.0]]), torch.tensor([0, 2])
    smooth = torch.full((2, 5), 0.1 / 5)
    smooth[0, 0] += 0.9
    smooth[1, 2] += 0.9
    by_hand = -(smooth * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(stepper._pass_loss(logits, labels), by_hand * stepper.pass_weight)


def test_a_request_to_stop_comes_out_with_the_step() -> None:
    stepper, _ = build_stepper(job())
    stepper.step(batch(1), True)
    stepper.step(batch(2), False)
    assert [outcome.stop for outcome in stepper.outcomes()] == [True, False]
