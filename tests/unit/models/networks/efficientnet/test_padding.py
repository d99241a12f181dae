"""TensorFlow's SAME padding: hand-worked cases, and two other implementations of it."""

import pytest
import torch
from efficientnet_lite_pytorch.utils import Conv2dDynamicSamePadding
from torch import nn

from conf import schema
from conf.training import PADDINGS
from models.networks.build import build_model
from models.networks.complexity import count_model
from models.networks.efficientnet.blocks import ConvNorm, SameConv2d


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 2), (7, 7), (8, 8), (8, 9), (15, 4), (56, 57)])
def test_it_is_the_padding_of_another_implementation(kernel: int, stride: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    ours = SameConv2d(4, 4, kernel, stride, kernel // 2, groups=4, bias=False)
    theirs = Conv2dDynamicSamePadding(4, 4, kernel, stride, groups=4, bias=False)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 4, *size)
    assert torch.equal(ours(x), theirs(x))


def ones(side: int, stride: int, kernel: int = 3) -> list[int]:
    """How many pixels of a row of ones each output sees, at an inner line."""
    conv = SameConv2d(1, 1, kernel, stride, kernel // 2, bias=False)
    nn.init.ones_(conv.weight)
    row = conv(torch.ones(1, 1, side, side))[0, 0, 1].tolist()
    return [round(value / kernel) for value in row]  # an inner line sees `kernel` rows


def test_on_an_even_side_only_the_last_output_of_stride_two_sees_padding() -> None:
    # side 8, kernel 3, stride 2: 4 outputs need (4 - 1) * 2 + 3 = 9 pixels, so one is added, behind
    assert ones(8, 2) == [3, 3, 3, 2]


def test_on_an_odd_side_both_ends_see_padding() -> None:
    # side 7: 4 outputs need 9 pixels, two more than there are, one at each end
    assert ones(7, 2) == [2, 3, 3, 2]


def test_a_kernel_of_five_pads_one_before_and_two_behind_on_an_even_side() -> None:
    # side 8: (4 - 1) * 2 + 5 = 11, three more; symmetric padding would have two at each end
    assert ones(8, 2, kernel=5) == [4, 5, 5, 3]


def test_same_padding_changes_no_size_no_count_and_no_name() -> None:
    symmetric, same = (build_model(schema.Model(padding=padding), 10, device="meta") for padding in PADDINGS)
    assert count_model(same, 224) == count_model(symmetric, 224)
    assert list(same.state_dict()) == list(symmetric.state_dict())
    assert [type(m).__name__ for m in same.modules()].count("SameConv2d") == 17  # the stem and 16 depthwise kernels


def test_both_paddings_start_from_the_same_weights_and_answer_differently() -> None:
    images = torch.randn(1, 3, 64, 64)
    answers = []
    for padding in PADDINGS:
        torch.manual_seed(0)
        network = build_model(schema.Model(width=0.25, depth=0.2, padding=padding), 10).eval()
        answers.append((network.state_dict(), network(images)))
    (first, symmetric), (second, same) = answers
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.allclose(symmetric, same)


@pytest.mark.slow
def test_it_is_exported_with_any_batch_and_keeps_the_memory_order() -> None:
    layer = ConvNorm(3, 4, 3, 2, convolution=SameConv2d).eval()
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(layer, (torch.randn(2, 3, 8, 8),), dynamic_shapes=({0: batch},)).module()
    x = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(program(x), layer(x))
    last = layer.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
