"""The moving average against a plain loop."""

import pytest
import torch
from torch import nn

from models.training import average, flat


@pytest.mark.parametrize("decay", [0.9999, 0.3, 0.0])
def test_it_agrees_with_a_plain_loop(decay: float) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(50, generator=generator)
    kept, expected = values.clone(), values.double()
    for step in range(1, 16):
        values.add_(torch.randn(50, generator=generator))
        average.update(kept, values, decay, step)
        d = min(decay, (1 + step) / (10 + step))
        expected = d * expected + (1 - d) * values.double()
    torch.testing.assert_close(kept.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("step", "decay"),
    [(1, 2 / 11), (10, 0.55), (90, 0.91), (89_989, 89_990 / 89_999), (89_991, 0.9999), (10**6, 0.9999)],
)
def test_the_decay_rises_to_its_cap(step: int, decay: float) -> None:
    assert average.decay_at(0.9999, step) == pytest.approx(decay, abs=1e-12)


def test_a_step_that_must_change_nothing_leaves_it_to_the_bit() -> None:
    kept, values = torch.randn(9), torch.randn(9)
    before = kept.clone()
    average.update(kept, values, 0.9, 3, torch.tensor(0.0))
    assert torch.equal(kept, before)


def test_batch_norm_statistics_are_averaged_and_counters_are_not() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    layout = flat.layout_of(net)
    names = {field.name for field in layout.fields}
    assert {"1.running_mean", "1.running_var"} < names
    assert "1.num_batches_tracked" not in names
    values = flat.flatten(net, layout)
    kept = values.clone()
    net.train()(torch.randn(8, 3, 2, 2))
    average.update(kept, values, 0.9, 1)
    mean = dict(net.named_buffers())["1.running_mean"]
    torch.testing.assert_close(layout.views(kept)["1.running_mean"], (1 - 2 / 11) * mean)  # the start was 0
