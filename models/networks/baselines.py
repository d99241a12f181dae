"""Networks of the related work by name, with the same interface and scaling as EfficientNet.

Units come from pytorchcv, whose modules are imported individually when a network is built: its ``model_provider`` would
import torchvision. The table is read without torch. Stages, rounding, head and initialization are effnet's,
so all are counted, trained, fine-tuned, exported and explained in the same way. Names are those of torchvision, timm or
pytorchcv.

MobileNetV2 and the wide ResNets are not pytorchcv's ``mobilenetv2_w1`` and ``wrn50_2``, which have 88 parameters more
and 34,112 fewer than all other implementations: built here from other pytorchcv units, they count as torchvision's.

Source: Table 2 and 3 of the paper; each network's paper at its definition below.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from conf import schema
from infra.errors import ConfigError
from models.networks.efficientnet.compound_scaling import round_channels, round_repeats

if TYPE_CHECKING:
    from torch import nn

    from models.networks.baseline_classifiers import Baseline, Parts

INSTALL = "pip install --no-deps pytorchcv==0.0.74"
Stages = tuple[tuple[tuple[int, int], ...], ...]  # for each stage its runs of (output channels, units)


@dataclass(frozen=True)
class LayerPlan:
    """All numbers that define the units, after scaling."""

    stem: int
    stages: list[list[int]]  # output channels of each unit; the first unit of a stage is strided
    head: int  # channels of the last feature map


@dataclass(frozen=True)
class BaselineSpec:
    """Definition of one baseline network.

    Attributes:
        parts: Function that builds everything before the classifier.
        stem: Channels of the first convolution.
        stages: Runs of equal units, by stage.
        head: Channels of the final 1x1 convolution; 0: no such layer.
        divisor: Divisor to whose multiples channels are rounded, as groups and bottlenecks require.
        width: Built-in multiplier of all channels.
        dropout: Dropout rate before the classifier.
        classifies_positions: Scores of each position are averaged, as SqueezeNet does, not features.
        resolution: Default input side in pixels.
        smallest: Smallest side in pixels at which the last layer with stride 2 still has two pixels.
    """

    parts: Callable[[LayerPlan], Parts]
    stem: int
    stages: Stages
    head: int = 0
    divisor: int = 8
    width: float = 1.0
    dropout: float = 0.0
    classifies_positions: bool = False
    resolution: int = 224
    smallest: int = 17


def build(model: schema.Model, num_classes: int, dropout: float | None = None) -> Baseline:
    """Builds a network of ``BASELINES`` with the configured width, depth and resolution multipliers.

    ``model.survival_prob`` is ignored: none of these networks uses stochastic depth.

    Args:
        model: Network name and its multipliers.
        num_classes: Width of the classifier.
        dropout: Dropout rate that replaces the network's default, if given.

    Raises:
        ConfigError: pytorchcv is not installed.
    """
    from models.networks.baseline_classifiers import Baseline, SqueezeNet

    baseline = BASELINES[model.name]
    plan = scale_layers(baseline, model.width, model.depth)
    rate = baseline.dropout if dropout is None else dropout
    network = SqueezeNet if baseline.classifies_positions else Baseline
    return network(baseline.parts(plan), plan.head, num_classes, round(baseline.resolution * model.resolution), rate)


def scale_layers(spec: BaselineSpec, width: float = 1.0, depth: float = 1.0) -> LayerPlan:
    """Scales a network as EfficientNet is scaled: channels rounded, repeats rounded up.

    The last 1x1 convolution never shrinks. Source: MobileNetV2, section 6.1.
    """
    width *= spec.width
    stages = []
    for runs in spec.stages:
        scaled = [(round_channels(channels, width, spec.divisor), round_repeats(n, depth)) for channels, n in runs]
        stages.append([channels for channels, n in scaled for _ in range(n)])
    head = round_channels(spec.head, max(1.0, width)) if spec.head else stages[-1][-1]
    return LayerPlan(round_channels(spec.stem, width, spec.divisor), stages, head)


def _pytorchcv(file: str) -> Any:
    """Imports a module of ``pytorchcv.models``."""
    try:
        return importlib.import_module(f"pytorchcv.models.{file}")
    except ModuleNotFoundError as error:
        raise ConfigError(f"the baseline networks need pytorchcv, which is not installed: {INSTALL}") from error


def _parts(network: nn.Module) -> Parts:
    """Splits a pytorchcv network into parts, without its fixed-size pooling and its classifier."""
    from torch import nn

    stem, *units = network.features.named_children()  # type: ignore[union-attr]
    blocks = [unit for name, stage in units if name.startswith("stage") for unit in stage.children()]
    head = [module for name, module in units if name in ("final_block", "post_activ")]
    return stem[1], nn.Sequential(*blocks), head[0] if head else nn.Identity()


def _resnet(plan: LayerPlan) -> Parts:
    return _parts(_pytorchcv("resnet").ResNet(plan.stages, plan.stem, bottleneck=True, conv1_stride=False))


def _basic_resnet(plan: LayerPlan) -> Parts:
    return _parts(_pytorchcv("resnet").ResNet(plan.stages, plan.stem, bottleneck=False, conv1_stride=False))


def _resnext(groups: int, width: int) -> Callable[[LayerPlan], Parts]:
    """Builds a ResNeXt, ``width`` channels per group in the first stage; one group of 128 is a wide ResNet."""
    return lambda plan: _parts(_pytorchcv("resnext").ResNeXt(plan.stages, plan.stem, groups, width))


def _se_resnet(conv1_stride: bool) -> Callable[[LayerPlan], Parts]:
    """Builds an SE-ResNet; ``conv1_stride`` strides the first 1x1 convolution, as in the paper, not the 3x3."""
    return lambda plan: _parts(_pytorchcv("seresnet").SEResNet(plan.stages, plan.stem, True, conv1_stride))


def _senet(plan: LayerPlan) -> Parts:
    return _parts(_pytorchcv("senet").SENet(plan.stages, plan.stem, cardinality=64, bottleneck_width=4))


def _squeezenet(kernel: int) -> Callable[[LayerPlan], Parts]:
    return lambda plan: _parts(_pytorchcv("squeezenet").SqueezeNet(plan.stages, None, kernel, plan.stem))


def _mobilenet_v1(plan: LayerPlan) -> Parts:
    return _parts(_pytorchcv("mobilenet").MobileNet([[plan.stem], *plan.stages], first_stage_stride=False))


def _mobilenet_v2(plan: LayerPlan) -> Parts:
    library = _pytorchcv("mobilenetv2")
    network = library.MobileNetV2(plan.stages, plan.stem, plan.head, remove_exp_conv=True)
    first, relu6 = network.features.stage1, _pytorchcv("common.activ").lambda_relu6()
    for number, channels in enumerate(plan.stages[0][1:], 1):  # pytorchcv would expand all units except the first
        first[number] = library.LinearBottleneck(channels, channels, 1, False, True, relu6)
    return _parts(network)


def _shufflenet_v1(groups: int) -> Callable[[LayerPlan], Parts]:
    return lambda plan: _parts(_pytorchcv("shufflenet").ShuffleNet(plan.stages, plan.stem, groups))


def _shufflenet_v2(plan: LayerPlan) -> Parts:
    return _parts(_pytorchcv("shufflenetv2").ShuffleNetV2(plan.stages, plan.stem, plan.head))


def _preact_resnet(plan: LayerPlan) -> Parts:
    return _parts(_pytorchcv("wrn_cifar").CIFARWRN(plan.stages, plan.stem))


def _bottlenecks(*units: int) -> Stages:
    """Four stages of 256 to 2,048 channels. Source: arXiv 1512.03385, table 1."""
    return tuple(((channels, n),) for channels, n in zip((256, 512, 1024, 2048), units, strict=True))


def _resnet_of(*units: int) -> BaselineSpec:
    return BaselineSpec(_resnet, 64, _bottlenecks(*units), divisor=32)


def _basic_resnet_of(*units: int) -> BaselineSpec:
    stages = tuple(((channels, n),) for channels, n in zip((64, 128, 256, 512), units, strict=True))
    return BaselineSpec(_basic_resnet, 64, stages)


def _resnext_of(groups: int, width: int, *units: int) -> BaselineSpec:
    """Source: arXiv 1611.05431, table 1; wide ResNets 1605.07146."""
    return BaselineSpec(_resnext(groups, width), 64, _bottlenecks(*units), divisor=max(32, 256 // width))


def _se_resnet_of(*units: int, conv1_stride: bool = False) -> BaselineSpec:
    """Source: arXiv 1709.01507, table 1."""
    return BaselineSpec(_se_resnet(conv1_stride), 64, _bottlenecks(*units), divisor=32)


def _mobilenet_v1_of(width: float) -> BaselineSpec:
    """Source: arXiv 1704.04861, table 1."""
    stages = (((64, 1),), ((128, 2),), ((256, 2),), ((512, 6),), ((1024, 2),))
    return BaselineSpec(_mobilenet_v1, 32, stages, width=width)


def _mobilenet_v2_of(width: float) -> BaselineSpec:
    """Source: arXiv 1801.04381, table 2; dropout as torchvision's."""
    stages = (((16, 1),), ((24, 2),), ((32, 3),), ((64, 4), (96, 3)), ((160, 3), (320, 1)))
    return BaselineSpec(_mobilenet_v2, 32, stages, 1280, width=width, dropout=0.2)


def _shufflenet_v1_of(groups: int, channels: int, width: float = 1.0) -> BaselineSpec:
    """Source: arXiv 1707.01083, table 1."""
    stages = (((channels, 4),), ((2 * channels, 8),), ((4 * channels, 4),))
    return BaselineSpec(_shufflenet_v1(groups), 24, stages, divisor=4 * groups, width=width)


def _shufflenet_v2_of(channels: tuple[int, int, int], head: int) -> BaselineSpec:
    """Source: arXiv 1807.11164, table 5; 244 channels as in the authors' code; the table prints 224."""
    stages = tuple(((c, n),) for c, n in zip(channels, (4, 8, 4), strict=True))
    return BaselineSpec(_shufflenet_v2, 24, stages, head, divisor=4)


def _squeezenet_of(kernel: int, stem: int, stages: Stages, smallest: int) -> BaselineSpec:
    """Source: arXiv 1602.07360, table 1; 1.1 from the authors' repository. Its stem does not pad."""
    return BaselineSpec(
        _squeezenet(kernel), stem, stages, divisor=16, dropout=0.5, classifies_positions=True, smallest=smallest
    )


_WRN28_10 = BaselineSpec(
    _preact_resnet, 16, (((160, 4),), ((320, 4),), ((640, 4),)), resolution=32, smallest=3
)  # arXiv 1605.07146
_FIRE_1_0 = (((128, 2), (256, 1)), ((256, 1), (384, 2), (512, 1)), ((512, 1),))
_FIRE_1_1 = (((128, 2),), ((256, 2),), ((384, 2), (512, 2)))

BASELINES = {
    "resnet18": _basic_resnet_of(2, 2, 2, 2),
    "resnet34": _basic_resnet_of(3, 4, 6, 3),
    "resnet50": _resnet_of(3, 4, 6, 3),
    "resnet101": _resnet_of(3, 4, 23, 3),
    "resnet152": _resnet_of(3, 8, 36, 3),
    "resnet200": _resnet_of(3, 24, 36, 3),
    "wide_resnet50_2": _resnext_of(1, 128, 3, 4, 6, 3),
    "wide_resnet101_2": _resnext_of(1, 128, 3, 4, 23, 3),
    "wrn28_10_cifar10": _WRN28_10,
    "wrn28_10_cifar100": _WRN28_10,  # the data set determines the classes; both names are in use
    "resnext50_32x4d": _resnext_of(32, 4, 3, 4, 6, 3),
    "resnext101_32x8d": _resnext_of(32, 8, 3, 4, 23, 3),
    "resnext101_64x4d": _resnext_of(64, 4, 3, 4, 23, 3),
    "seresnet50": _se_resnet_of(3, 4, 6, 3),
    "seresnet101": _se_resnet_of(3, 4, 23, 3),
    "legacy_seresnet152": _se_resnet_of(3, 8, 36, 3, conv1_stride=True),
    "legacy_senet154": BaselineSpec(_senet, 128, _bottlenecks(3, 8, 36, 3), divisor=128, dropout=0.2),
    "squeezenet1_0": _squeezenet_of(7, 96, _FIRE_1_0, smallest=21),
    "squeezenet1_1": _squeezenet_of(3, 64, _FIRE_1_1, smallest=17),
    "mobilenetv1_100": _mobilenet_v1_of(1.0),
    "mobilenet_w3d4": _mobilenet_v1_of(0.75),
    "mobilenet_wd2": _mobilenet_v1_of(0.5),
    "mobilenet_wd4": _mobilenet_v1_of(0.25),
    "mobilenet_v2": _mobilenet_v2_of(1.0),
    "mobilenetv2_140": _mobilenet_v2_of(1.4),
    "shufflenet_g1_w1": _shufflenet_v1_of(1, 144),
    "shufflenet_g2_w1": _shufflenet_v1_of(2, 200),
    "shufflenet_g3_w1": _shufflenet_v1_of(3, 240),
    "shufflenet_g4_w1": _shufflenet_v1_of(4, 272),
    "shufflenet_g8_w1": _shufflenet_v1_of(8, 384),
    "shufflenet_g3_wd2": _shufflenet_v1_of(3, 240, width=0.5),
    "shufflenet_v2_x0_5": _shufflenet_v2_of((48, 96, 192), 1024),
    "shufflenet_v2_x1_0": _shufflenet_v2_of((116, 232, 464), 1024),
    "shufflenet_v2_x1_5": _shufflenet_v2_of((176, 352, 704), 1024),
    "shufflenet_v2_x2_0": _shufflenet_v2_of((244, 488, 976), 2048),
}
