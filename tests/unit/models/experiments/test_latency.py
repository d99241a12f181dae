"""Folded networks give the logits of the unfolded ones; times are reported as measured."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from matrix import with_slow_rest
from torch import nn

from conf import schema
from conf.compose import OverrideError, compose
from infra.errors import ConfigError
from models.experiments import latency
from models.experiments.latency import list_networks
from models.networks.build import build_model
from models.networks.folding import fold_batch_norm
from models.results import LatencyTiming, Speedup

SMALL = [
    schema.Model("efficientnet_b0", width=0.25, depth=0.4),
    schema.Model("resnet18", width=0.25),
    schema.Model("seresnet50", width=0.25),
    schema.Model("mobilenet_v2", width=0.25),
    schema.Model("shufflenet_v2_x0_5"),
    schema.Model("legacy_senet154", width=0.5, depth=0.3),
]
IMAGES = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("model", with_slow_rest(SMALL, plain=0), ids=lambda model: model.name)
def test_a_folded_network_answers_as_before_without_any_batch_norm(model: schema.Model) -> None:
    network = latency.settle_batch_norm(model)
    before = {name: t.clone() for name, t in network.state_dict().items()}
    quick = fold_batch_norm(network, IMAGES)
    with torch.no_grad():
        plain, fast = network(IMAGES), quick(IMAGES)
    assert plain.std() > 1e-3
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-4 * float(plain.abs().max()))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in quick.modules())
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in quick.modules())


def test_a_batch_norm_that_follows_no_convolution_stays() -> None:
    network = latency.settle_batch_norm(schema.Model("wrn28_10_cifar10", width=0.1, depth=0.25))
    quick = fold_batch_norm(network, IMAGES)
    kinds = [sum(isinstance(m, nn.BatchNorm2d) for m in each.modules()) for each in (network, quick)]
    assert 0 < kinds[1] < kinds[0]
    with torch.no_grad():
        torch.testing.assert_close(quick(IMAGES), network(IMAGES), rtol=1e-3, atol=1e-3)


def test_a_convolution_with_two_readers_is_left_alone() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.one, self.two = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return self.one(y) + self.two(y)

    assert isinstance(fold_batch_norm(Twice(), IMAGES).one, nn.BatchNorm2d)


def test_settled_activations_are_far_from_denormal_and_infinite() -> None:
    network = latency.settle_batch_norm(schema.Model("efficientnet_b1", width=0.5))
    with torch.no_grad():
        assert 1e-3 < network.features(IMAGES).abs().mean() < 1e3


def test_networks_take_turns_and_the_first_turns_do_not_count() -> None:
    order: list[str] = []
    timings = latency.time_in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert order == ["a", "b"] * (latency.WARM_UP + 3)
    assert {name: len(seconds) for name, seconds in timings.items()} == {"a": 3, "b": 3}


def test_a_measurement_says_what_was_measured() -> None:
    model = schema.Model("resnet18", width=0.25, resolution=0.25)
    threads = torch.get_num_threads()
    try:
        (row,) = latency.measure({"small": model}, threads=1, n=3, throughput_n=1, throughput_batch=2)
    finally:
        torch.set_num_threads(threads)
    assert (row.network, row.resolution, row.throughput_batch) == ("small", 56, 2)
    assert row.params == sum(p.numel() for p in build_model(model, 1000, device="meta").parameters())
    assert 0 < row.batch1_ms_low <= row.batch1_ms <= row.batch1_ms_high
    assert row.images_per_s > 0


def timed(network: str, ms: float) -> LatencyTiming:
    return LatencyTiming(
        network=network,
        resolution=224,
        params=1,
        multiply_adds=2,
        batch1_ms=ms,
        batch1_ms_low=ms,
        batch1_ms_high=ms,
        images_per_s=3.0,
        throughput_batch=4,
    )


def test_speedups_are_the_rivals_time_over_ours_and_times_are_beside_the_papers() -> None:
    request = schema.Latency()
    names = ("efficientnet_b1", "resnet152", "efficientnet_b4", "legacy_senet154", "efficientnet_b7")
    times = {
        10: [timed(n, ms) for n, ms in zip(names, (5.0, 20.0, 40.0, 40.0, 900.0), strict=True)],
        1: [timed(n, ms) for n, ms in zip(names, (10.0, 55.0, 100.0, 400.0, 1600.0), strict=True)],
    }
    part = latency.tabulate(request, times)
    assert part.all_cores is not None
    assert (part.threads, part.n, part.all_cores.threads) == (1, 20, 10)
    assert part.speedups == (
        Speedup(ours="efficientnet_b1", rival="resnet152", measured=5.5, paper=5.7),
        Speedup(ours="efficientnet_b4", rival="legacy_senet154", measured=4.0, paper=None),
    )
    assert part.all_cores.speedups[0].measured == 4.0
    assert [(row.paper_latency_s, row.paper_top1) for row in part.rows] == [
        (0.098, 79.1),
        (0.554, 77.8),
        (None, 82.9),
        (None, 82.7),
        (3.1, 84.3),  # alone: its rival was never published
    ]
    json.dumps(dataclasses.asdict(part))


@pytest.mark.slow
def test_the_networks_are_the_papers_with_senet_at_320_pixels() -> None:
    models = list_networks(compose(["profile=laptop"]).latency)
    sides = {name: build_model(model, 1, device="meta").resolution for name, model in models.items()}
    assert sides == {
        "efficientnet_b1": 240,
        "resnet152": 224,
        "efficientnet_b4": 380,
        "legacy_senet154": 320,
        "efficientnet_b7": 600,
    }


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ("[{ours:efficientnet_b1,rival:resnet153}]", "no network named 'resnet153'; did you mean 'resnet15"),
        ("[{ours:resnet50,rival:resnet50,rival_px:320}]", "resnet50 at two resolutions"),
    ],
)
def test_pairs_that_cannot_be_measured_are_refused(pairs: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        list_networks(compose([f"latency.pairs={pairs}"]).latency)


def test_a_side_of_no_rival_is_refused() -> None:
    with pytest.raises(OverrideError, match="rival_px=320 without the rival of efficientnet_b7"):
        compose(["latency.pairs=[{ours:efficientnet_b7,rival_px:320}]"])
