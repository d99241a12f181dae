"""A network whose tensors are views of one flat tensor computes and learns as it did before."""

import torch
from torch import nn

from conf import schema
from models.networks.build import build_model
from models.training import flat

MODEL = schema.Model(width=0.25, depth=0.2)


def network() -> nn.Module:
    torch.manual_seed(1)
    return build_model(MODEL, 7).to(memory_format=torch.channels_last)


def test_the_network_computes_the_same_and_its_gradients_land_in_the_flat_tensor() -> None:
    plain, net = network(), network()
    layout = flat.layout_of(net)
    flat.flatten(net, layout)
    gradients = torch.zeros(layout.size)
    flat.bind_gradients(net, layout, gradients)
    images = torch.randn(4, 3, 32, 32)
    for model in (plain, net):
        torch.manual_seed(5)
        model.train()(images.to(memory_format=torch.channels_last)).square().sum().backward()
    views = layout.views(gradients)
    for (name, expected), (_, parameter) in zip(plain.named_parameters(), net.named_parameters(), strict=True):
        assert expected.grad is not None
        assert torch.equal(views[name], expected.grad), name
        assert parameter.grad is not None
        assert parameter.grad.data_ptr() == views[name].data_ptr()
        assert parameter.is_contiguous(memory_format=torch.channels_last) or parameter.dim() != 4
    statistics = {n: b for n, b in net.named_buffers() if b.is_floating_point()}
    for name, expected in plain.named_buffers():
        if name in statistics:
            assert torch.equal(statistics[name], expected)


def test_what_is_written_to_the_flat_tensor_is_what_the_network_is() -> None:
    net, other = network(), build_model(MODEL, 7)
    layout = flat.layout_of(net)
    values = flat.flatten(net, layout)
    flat.bind(other.to(memory_format=torch.channels_last), layout, values)
    values.mul_(0.5)
    expected = other.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in net.state_dict().items())


def test_the_parts_lie_in_order_aligned_and_the_padding_stays_zero() -> None:
    net = network()
    layout = flat.layout_of(net)
    values = flat.flatten(net, layout)
    assert all(field.start % 16 == 0 for field in layout.fields)
    used = torch.zeros(layout.size, dtype=torch.bool)
    for view in layout.views(used).values():
        view.fill_(True)
    assert not values[~used].any()
    decayed = [f.name for f in layout.fields if f.start < layout.decayed]
    assert decayed[0] == "stem.0.weight"
    assert all("running" in f.name for f in layout.fields if f.start >= layout.parameters)


def test_batch_norm_that_is_synchronized_over_ranks_is_laid_out_as_any_other() -> None:
    synced = nn.SyncBatchNorm.convert_sync_batchnorm(network())
    assert flat.layout_of(synced) == flat.layout_of(network())


def test_all_of_b0_is_decayed_but_batch_norm() -> None:
    net = build_model(schema.Model(), 1000, device="meta")
    layout = flat.layout_of(net)
    sizes = {f.name: torch.Size(f.shape).numel() for f in layout.fields}
    decayed = {f.name for f in layout.fields if f.start < layout.decayed}
    free = {f.name for f in layout.fields if layout.decayed <= f.start < layout.parameters}
    assert sum(sizes[n] for n in decayed) == 5_246_532
    assert sum(sizes[n] for n in free) == 42_016
    assert {"classifier.bias", "blocks.3.se.reduce.bias", "blocks.3.se.expand.bias"} <= decayed
    assert len(free) == 2 * 49
