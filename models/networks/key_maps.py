"""Tensor names of an EfficientNet in timm, torchvision and lukemelas' efficientnet-pytorch.

Sources: the state dicts of timm 1.0.20, torchvision 0.29.1 and efficientnet_pytorch 0.7.1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from models.networks.efficientnet.variants import Architecture


@dataclass(frozen=True)
class KeyMap:
    """Module names of one project, by effnet's module names.

    Attributes:
        name: Name of the project.
        outside: Modules outside the blocks.
        block: Prefix of an MBConv; ``index`` counts all blocks, ``repeat`` those of a stage, ``stage`` the stages from
            0 and ``row`` from 1.
        expanded: Modules inside an MBConv.
        plain: Modules inside an MBConv without expansion.
    """

    name: str
    outside: Mapping[str, str]
    block: str
    expanded: Mapping[str, str]
    plain: Mapping[str, str]

    def modules(self, arch: Architecture) -> dict[str, str]:
        """Maps effnet's name to the project's, for every module of a network that holds tensors."""
        names = dict(self.outside)
        index = 0
        for number, stage in enumerate(arch.stages):
            block_names = self.plain if stage.expand_ratio == 1 else self.expanded
            for repeat in range(stage.repeats):
                prefix = self.block.format(index=index, repeat=repeat, stage=number, row=number + 1)
                for name, theirs in block_names.items():
                    if stage.se_ratio or not name.startswith("se."):
                        names[f"blocks.{index}.{name}"] = f"{prefix}.{theirs}"
                index += 1
        return names


# fmt: off
TIMM = KeyMap(
    "timm",
    {"stem.0": "conv_stem", "stem.1": "bn1", "head.0": "conv_head", "head.1": "bn2", "classifier": "classifier"},
    "blocks.{stage}.{repeat}",
    {"expand.0": "conv_pw", "expand.1": "bn1", "depthwise.0": "conv_dw", "depthwise.1": "bn2",
     "se.reduce": "se.conv_reduce", "se.expand": "se.conv_expand", "project.0": "conv_pwl", "project.1": "bn3"},
    {"depthwise.0": "conv_dw", "depthwise.1": "bn1",
     "se.reduce": "se.conv_reduce", "se.expand": "se.conv_expand", "project.0": "conv_pw", "project.1": "bn2"},
)
TORCHVISION = KeyMap(
    "torchvision",
    {"stem.0": "features.0.0", "stem.1": "features.0.1", "head.0": "features.8.0", "head.1": "features.8.1",
     "classifier": "classifier.1"},
    "features.{row}.{repeat}.block",
    {"expand.0": "0.0", "expand.1": "0.1", "depthwise.0": "1.0", "depthwise.1": "1.1",
     "se.reduce": "2.fc1", "se.expand": "2.fc2", "project.0": "3.0", "project.1": "3.1"},
    {"depthwise.0": "0.0", "depthwise.1": "0.1",
     "se.reduce": "1.fc1", "se.expand": "1.fc2", "project.0": "2.0", "project.1": "2.1"},
)
LUKEMELAS = KeyMap(
    "lukemelas",
    {"stem.0": "_conv_stem", "stem.1": "_bn0", "head.0": "_conv_head", "head.1": "_bn1", "classifier": "_fc"},
    "_blocks.{index}",
    {"expand.0": "_expand_conv", "expand.1": "_bn0", "depthwise.0": "_depthwise_conv", "depthwise.1": "_bn1",
     "se.reduce": "_se_reduce", "se.expand": "_se_expand", "project.0": "_project_conv", "project.1": "_bn2"},
    {"depthwise.0": "_depthwise_conv", "depthwise.1": "_bn1",
     "se.reduce": "_se_reduce", "se.expand": "_se_expand", "project.0": "_project_conv", "project.1": "_bn2"},
)
# fmt: on
KEY_MAPS = (TIMM, TORCHVISION, LUKEMELAS)
_STEMS = tuple(f"{key_map.outside['stem.0']}.weight" for key_map in KEY_MAPS)
_FUSED = re.compile(r"blocks\.\d+\.\d+\.(conv|conv_exp)\.weight$")  # of timm: ConvBnAct, EdgeResidual
# EfficientNets of other projects, and other networks, by the names of their tensors.
_GOOGLE = "timm has Google's weights, too, as tf_efficientnet_b0"
_OTHER_PROJECTS = {
    re.compile(r"depthwise_conv\.conv\.weight$"): ("OpenMMLab (MMPretrain, MMClassification)", _GOOGLE),
    re.compile(r"\.depsep\.\w+\."): ("NVIDIA (DeepLearningExamples)", "timm has weights of its own for these networks"),
    re.compile(r"embeddings\.convolution\.weight$"): ("Transformers", _GOOGLE),
    re.compile(r"(^|\.)s\d\.b\d+\.(dwise|exp|se)\b"): ("pycls", "timm has weights of its own for these networks"),
    re.compile(r"(^|\.)block1a_dwconv"): ("Keras", _GOOGLE),
}
# Of a job of effnet: its weights.safetensors, a checkpoint, the best epoch.
_OWN = re.compile(r"^(blocks\.0\.depthwise\.0\.weight|optimizer\.decayed\.\w+|best)$")
_OTHER_NETWORKS = {
    re.compile(r"relative_position_bias_table$"): "a Swin transformer",
    re.compile(r"(^|\.)(blocks\.0\.attn\.qkv\.weight|encoder_layer_0\..*in_proj_weight)$"): "a vision transformer",
    re.compile(r"(^|\.)text_projection(\.|$)"): "CLIP",
    re.compile(r"(^|\.)(layer_scale|stages\.0\.blocks\.0\.conv_dw\.weight)$"): "a ConvNeXt",
    re.compile(r"(^|\.)layer1\.0\.conv1\.weight$"): "a ResNet",
    re.compile(r"(^|\.)features\.(denseblock1|conv0)\."): "a DenseNet",
    re.compile(r"(^|\.)(features\.1\.(conv\.0|block)\.0\.|conv_head\.bias$)"): "a MobileNet",
    re.compile(r"(^|\.)model\.0\.conv\.weight$"): "a YOLO network",
    re.compile(r"(^|\.)classifier\.6\.weight$"): "a VGG or AlexNet",
}
_BLOCKS = "effnet has the networks of the paper: B0 to B8, L2, and Lite"
_PIXELS = 3  # channels of an image


def describe_foreign(tensors: Mapping[str, Tensor], file: str) -> str:
    """Says of which other project or kind of network tensors are by their names; empty if that is not known."""
    if any(map(_OWN.search, tensors)):
        return (
            f"{file} is of a job of effnet: `effnet register JOB` registers its weights, and `effnet runs` lists jobs"
        )
    for pattern, (project, remedy) in _OTHER_PROJECTS.items():
        if any(map(pattern.search, tensors)):
            return f"{file} has the tensor names of the EfficientNet of {project}, which are not read: {remedy}"
    what = next((what for pattern, what in _OTHER_NETWORKS.items() if any(map(pattern.search, tensors))), "")
    return f"{file} has the tensor names of {what}, and no EfficientNet: {_BLOCKS}" if what else ""


def describe_other_network(tensors: Mapping[str, Tensor], file: str) -> str:
    """Says which relative of EfficientNet tensors of none of its variants are of; empty if that is not known."""
    if foreign := describe_foreign(tensors, file):
        return foreign
    first = next((tensors[stem] for stem in _STEMS if stem in tensors), None)
    row = tensors.get("features.1.0.block.0.0.weight")  # of torchvision: [16, 32, 3, 3] in V2, [32, 1, 3, 3] here
    if first is not None and first.ndim == 4 and first.shape[1] != _PIXELS:
        return f"{file} is of a network for images of {first.shape[1]} channels, and those of effnet have {_PIXELS}"
    if any(_FUSED.search(key) for key in tensors) or (row is not None and row.ndim == 4 and row.shape[1] > 1):
        return f"{file} has fused blocks, as EfficientNetV2 and EfficientNet-EdgeTPU: {_BLOCKS}"
    if any(".routing_fn." in key for key in tensors):
        return f"{file} has conditional convolutions, as EfficientNet-CondConv: {_BLOCKS}"
    if not any(key.endswith("running_var") for key in tensors):
        return f"{file} has no batch norm, as timm's efficientnet_b0_gn: {_BLOCKS}, all with batch norm"
    return ""
