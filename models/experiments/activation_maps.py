"""Class activation maps: which part of an image supports a class.

CAM if the head is global mean + linear (EfficientNet, ResNet ...): the classifier's weights times the last feature
map, exact, so that its spatial mean plus the bias is the class's logit. Grad-CAM, by captum, for any other head.

Source: Zhou et al., arXiv 1512.04150, section 2; Selvaraju et al., arXiv 1610.02391, section 3; Fig. 7 of the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from infra.errors import ConfigError
from models.networks.efficientnet.network import Network

Pixels = NDArray[np.uint8]
OPACITY = 0.5  # of the colors over the gray image

# Black over violet and orange to pale yellow, lightness rising evenly: matplotlib's "inferno" at 0, 1/10, ... 1.
# Source: Smith and van der Walt, matplotlib 3.x, _cm_listed.py; CC0.
INFERNO = np.array(
    [
        (0, 0, 4),
        (22, 11, 57),
        (66, 10, 104),
        (106, 23, 110),
        (147, 38, 103),
        (188, 55, 84),
        (221, 81, 58),
        (243, 120, 25),
        (252, 165, 10),
        (246, 215, 70),
        (252, 255, 164),
    ],
    np.float64,
)


@dataclass(frozen=True)
class Explanation:
    """Predictions and activation maps of some images.

    Attributes:
        method: Either ``cam`` or ``grad-cam``.
        maps: ``[N, H, W]`` float32 at the size of the last feature map; a CAM may be negative.
        probabilities: ``[N, C]`` softmax probabilities of all classes.
    """

    method: str
    maps: Tensor
    probabilities: Tensor


def explain(network: Network, images: Tensor, classes: Sequence[int] | None = None) -> Explanation:
    """Computes the map of one class per image, by the method that the network's head allows.

    Args:
        network: The network; it is put into evaluation mode.
        images: Normalized images ``[N, 3, R, R]``.
        classes: Class to map for each image, ``[N]``; None maps the most probable one.
    """
    network.eval()
    with torch.no_grad():
        features = network.features(images)
        logits = network.classify(features)
    if classes is None:
        classes = logits.argmax(1).tolist()
    if has_mean_linear_head(network, features, logits):
        return Explanation("cam", cam(features, network.classifier, classes), logits.softmax(1))
    return Explanation("grad-cam", grad_cam(network, images, classes), logits.softmax(1))


def has_mean_linear_head(network: Network, features: Tensor, logits: Tensor) -> bool:
    """Whether ``logits`` are a linear layer on the spatial mean of ``features``, tested numerically."""
    head = network.classifier
    if not isinstance(head, nn.Linear) or head.in_features != features.shape[1]:
        return False
    with torch.no_grad():
        return torch.allclose(head(features.mean((2, 3))), logits, rtol=1e-4, atol=1e-4)


def cam(features: Tensor, classifier: nn.Linear, classes: Sequence[int]) -> Tensor:
    """``sum_k w[c, k] * features[:, k]`` without the bias: ``[N, K, H, W] -> [N, H, W]``."""
    weights = classifier.weight.detach()[list(classes)]
    return torch.einsum("nk,nkhw->nhw", weights, features.detach())


def grad_cam(network: Network, images: Tensor, classes: Sequence[int]) -> Tensor:
    """ReLU of the last feature map weighted by the mean gradient of the class's logit: ``[N, H, W]``, >= 0."""
    from captum.attr import LayerGradCam  # lazy: the import takes a third of a second, and most networks do not need it

    attributed = LayerGradCam(network, feature_layer(network, images)).attribute(
        images, target=torch.tensor(list(classes)), relu_attributions=True
    )
    maps: Tensor = attributed.detach()[:, 0]
    return maps


def feature_layer(network: Network, images: Tensor) -> nn.Module:
    """The outermost module whose output is the last feature map; captum attributes to modules, not to tensors.

    Raises:
        ConfigError: ``features`` ends in a computation outside any module.
    """
    outputs: list[tuple[nn.Module, object]] = []

    def record_output(module: nn.Module, _inputs: object, output: object) -> None:
        outputs.append((module, output))

    handles = [module.register_forward_hook(record_output) for module in network.modules() if module is not network]
    try:
        with torch.no_grad():
            features = network.features(images)
    finally:
        for handle in handles:
            handle.remove()
    layers = [module for module, output in outputs if output is features]
    if not layers:
        raise ConfigError(
            f"{type(network).__name__} has no layer that outputs the last feature map; Grad-CAM needs one"
        )
    return layers[-1]  # an outer module finishes after its inner ones


def upsample(maps: Tensor, side: int) -> NDArray[np.float32]:
    """Upsamples maps bilinearly to the image size and scales each to 0..1: ``[N, H, W] -> [N, side, side]``.

    A constant map carries no information and becomes 0.
    """
    large = nn.functional.interpolate(maps[:, None].float(), (side, side), mode="bilinear", align_corners=False)[:, 0]
    low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
    span = high - low
    flat = span <= 1e-6 * high.abs().clamp(min=1e-6)
    scaled: NDArray[np.float32] = torch.where(flat, 0.0, (large - low) / span.masked_fill(flat, 1.0)).numpy()
    return scaled


def overlay_maps(images: Pixels, maps: Tensor) -> Pixels:
    """Blends the map of each image over it: ``[N, R, R, 3]`` and ``[N, H, W] -> [N, R, R, 3]``."""
    return np.stack([overlay(image, heat) for image, heat in zip(images, upsample(maps, images.shape[1]), strict=True)])


def overlay(image: Pixels, heat: NDArray[np.float32]) -> Pixels:
    """Blends a colored map over the grayscale image.

    Args:
        image: Image ``[R, R, 3]``.
        heat: Map ``[R, R]`` in 0..1.
    """
    # Source of the weights: ITU-R BT.601, luma.
    gray = (image.astype(np.float64) @ np.array([0.299, 0.587, 0.114]))[..., None]
    blended: Pixels = ((1 - OPACITY) * gray + OPACITY * colorize(heat)).round().astype(np.uint8)
    return blended


def colorize(heat: NDArray[np.float32]) -> NDArray[np.float64]:
    """Maps 0..1 of any shape to RGB 0..255 in an added last dimension; lighter is higher."""
    positions = np.linspace(0, 1, len(INFERNO))
    return np.stack([np.interp(heat, positions, INFERNO[:, channel]) for channel in range(3)], axis=-1)
