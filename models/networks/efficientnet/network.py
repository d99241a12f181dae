"""EfficientNet: stem, MBConv stages and head, with the official initialization."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.networks.efficientnet.blocks import BATCH_NORMS, ConvNorm, FusedMBConv, MBConv, SameConv2d
from models.networks.efficientnet.preprocessing import RenormalizingStem
from models.networks.efficientnet.variants import Architecture


class Network(nn.Module):
    """Common interface of all networks, EfficientNet and baselines: stem, blocks, head, classifier.

    Attributes:
        resolution: Side in pixels at which it is trained and counted; any side works.
        stem: Layers before the blocks.
        blocks: Blocks in forward order.
        head: Layers that produce the last feature map.
        classifier: Last linear layer; fine-tuning replaces it.
        recompute: Activation checkpointing: in training, only block inputs are kept and the rest is recomputed in the
            backward pass: far less memory, about a third more time, identical bits.
    """

    resolution: int
    recompute: bool
    stem: nn.Module
    blocks: nn.Sequential
    head: nn.Module
    dropout: nn.Dropout
    classifier: nn.Linear

    def features(self, x: Tensor) -> Tensor:
        """Images ``[N, 3, R, R]`` -> last feature map ``[N, head, H, W]``; for EfficientNet, H = W = R / 32."""
        out: Tensor = self.head(self.middle(self.stem(x), 0, len(self.blocks)))
        return out

    def middle(self, x: Tensor, first: int, last: int) -> Tensor:
        """Applies blocks ``[first, last)`` to their input."""
        for index in range(first, last):
            block = self.blocks[index]
            x = recomputed(block, x) if self.recompute and self.training else block(x)
        return x

    def classify(self, features: Tensor) -> Tensor:
        """Last feature map ``[N, head, H, W]`` -> logits ``[N, num_classes]``."""
        logits: Tensor = self.classifier(self.dropout(features.mean((2, 3))))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Normalized images ``[N, 3, R, R]`` -> logits ``[N, num_classes]``."""
        return self.classify(self.features(x))


class EfficientNet(Network):
    """EfficientNet for classification."""

    def __init__(self, arch: Architecture, num_classes: int, survival_prob: float = 0.8) -> None:
        super().__init__()
        self.resolution = arch.resolution
        self.recompute = False
        self.stem = _stem(arch)
        self.blocks = _blocks(arch, survival_prob)
        self.head = ConvNorm(arch.stages[-1].channels, arch.head, 1, activation=_activation(arch))
        self.dropout = nn.Dropout(arch.dropout)
        self.classifier = nn.Linear(arch.head, num_classes)
        initialize_weights(self)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = arch.bn_epsilon


def recomputed(block: nn.Module, x: Tensor) -> Tensor:
    """Computes ``block(x)``, recomputing its inner activations in the backward pass.

    The recomputation would update batch-norm running statistics a second time; a momentum of 0 prevents that. It reuses
    the random numbers of the first forward pass.
    """
    norms = [module for module in block.modules() if isinstance(module, BATCH_NORMS)]

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _freeze_statistics(norms)

    out: Tensor = checkpoint(block, x, use_reentrant=False, context_fn=contexts)
    return out


@contextmanager
def _freeze_statistics(norms: list[nn.BatchNorm2d | nn.SyncBatchNorm]) -> Iterator[None]:
    """Keeps running statistics unchanged inside the context."""
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def _activation(arch: Architecture) -> type[nn.Module]:
    return {"silu": nn.SiLU, "relu6": nn.ReLU6}[arch.activation]


def _convolution(arch: Architecture) -> type[nn.Conv2d]:
    return {"symmetric": nn.Conv2d, "same": SameConv2d}[arch.padding]


def _stem(arch: Architecture) -> ConvNorm:
    if arch.preprocessing == "imagenet":
        return ConvNorm(3, arch.stem, 3, 2, activation=_activation(arch), convolution=_convolution(arch))
    return RenormalizingStem(arch.stem, _activation(arch), _convolution(arch), arch.preprocessing)


def _blocks(arch: Architecture, survival_prob: float) -> nn.Sequential:
    """Builds all blocks; the survival probability falls linearly: 1 - (1 - survival_prob) * i / N, i from 0.

    Source: official efficientnet_model.py, ``drop_rate * float(idx) / len(self._blocks)``.
    """
    total = sum(stage.repeats for stage in arch.stages)
    blocks: list[nn.Module] = []
    channels = arch.stem
    for stage in arch.stages:
        block_type = FusedMBConv if stage.fused else MBConv
        for repeat in range(stage.repeats):
            blocks.append(
                block_type(
                    channels,
                    stage.channels,
                    stage.kernel,
                    stage.stride if repeat == 0 else 1,
                    stage.expand_ratio,
                    stage.se_ratio,
                    1 - (1 - survival_prob) * len(blocks) / total,
                    stage.skip,
                    _activation(arch),
                    _convolution(arch),
                )
            )
            channels = stage.channels
    return nn.Sequential(*blocks)


def initialize_weights(network: nn.Module) -> None:
    """Draws the official initial weights from torch's global generator.

    Convolutions N(0, 2 / (k^2 * out)), where ``out`` of a depthwise kernel is its multiplier 1, so a 5x5
    depthwise starts at std 0.283 and not, as with PyTorch's fan_out, at 0.018. Classifier U(+-1/sqrt(classes)),
    biases 0, BN 1 and 0. Source: official ``conv_kernel_initializer``, ``dense_kernel_initializer``.
    """
    for module in network.modules():
        if any(weight.is_meta for weight in module.parameters(recurse=False)):
            continue  # without values; torch would import its compiler for them, which takes seconds
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
            nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            bound = 1.0 / math.sqrt(module.out_features)
            nn.init.uniform_(module.weight, -bound, bound)
            nn.init.zeros_(module.bias)
