"""Classifiers around the units of the baseline networks."""

from __future__ import annotations

from torch import Tensor, nn

from models.networks.efficientnet.network import Network, initialize_weights

Parts = tuple[nn.Module, nn.Sequential, nn.Module]  # stem, blocks, head


class Baseline(Network):
    """Baseline classifier of the related work.

    Args:
        parts: Stem, blocks and head.
        channels: Channels of the last feature map.
        num_classes: Width of the classifier.
        resolution: Input side in pixels.
        dropout: Dropout rate before the classifier.
    """

    def __init__(self, parts: Parts, channels: int, num_classes: int, resolution: int, dropout: float) -> None:
        super().__init__()
        self.resolution = resolution
        self.recompute = False
        self.stem, self.blocks, self.head = parts
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(channels, num_classes)
        initialize_weights(self)


class SqueezeNet(Baseline):
    """SqueezeNet, which classifies each position of the last feature map and averages the scores after a ReLU.

    Source: arXiv 1602.07360, section 4.2; initialization from the authors' train_val.prototxt.
    """

    def __init__(self, parts: Parts, channels: int, num_classes: int, resolution: int, dropout: float) -> None:
        super().__init__(parts, channels, num_classes, resolution, dropout)
        nn.init.normal_(self.classifier.weight, 0.0, 0.01)

    def classify(self, features: Tensor) -> Tensor:
        """Last feature map ``[N, C, H, W]`` -> logits ``[N, num_classes]``, none below 0."""
        scores: Tensor = self.classifier(self.dropout(features).permute(0, 2, 3, 1))
        return scores.relu().mean((1, 2))
