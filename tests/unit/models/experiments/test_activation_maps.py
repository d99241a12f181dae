"""Class activation maps against hand-computed maps, against captum, and against the logits they explain."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matrix import with_slow_rest
from torch import Tensor, nn

from conf import schema
from infra.errors import ConfigError
from models.experiments import activation_maps
from models.networks.build import build_model

TINY = {"width": 0.25, "depth": 0.25, "resolution": 0.3}


class Given(nn.Module):
    """A network whose last feature map is its input; its head is given."""

    def __init__(self, pool: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.Sequential(nn.Identity())
        self.pool = pool
        self.classifier = classifier

    def features(self, x: Tensor) -> Tensor:
        return self.blocks(x)

    def classify(self, features: Tensor) -> Tensor:
        return self.classifier(self.pool(features))

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.features(x))


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class Greatest(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.amax((2, 3))


class Scores(nn.Conv2d):
    """SqueezeNet's head: scores at each position, ReLU, their mean."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu().mean((2, 3))


FEATURES = torch.tensor([[[[1.0, 2.0], [0.0, 3.0]], [[4.0, 0.0], [2.0, 2.0]]]])  # 2 channels of 2 x 2
WEIGHTS = torch.tensor([[1.0, -1.0], [2.0, 0.5]])
BIASES = torch.tensor([10.0, 20.0])


def linear() -> nn.Linear:
    head = nn.Linear(2, 2)
    with torch.no_grad():
        head.weight.copy_(WEIGHTS)
        head.bias.copy_(BIASES)
    return head


def calibrated(name: str, classes: int = 5) -> nn.Module:
    """A small network with batch-norm statistics of its own activations, in evaluation mode."""
    torch.manual_seed(0)
    network = build_model(schema.Model(name=name, **TINY), classes)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network(torch.randn(8, 3, 70, 70))
    return network.eval()


IMAGES = torch.randn(3, 3, 70, 70, generator=torch.Generator().manual_seed(1))
CLASSES = [4, 0, 2]


def test_a_cam_is_the_classifiers_weights_on_the_last_feature_map() -> None:
    # class 0: first minus second channel; class 1: twice the first plus half the second
    assert torch.equal(activation_maps.cam(FEATURES, linear(), [0]), torch.tensor([[[-3.0, 2.0], [-2.0, 1.0]]]))
    assert torch.equal(activation_maps.cam(FEATURES, linear(), [1]), torch.tensor([[[4.0, 4.0], [1.0, 7.0]]]))


def test_an_explanation_says_what_was_predicted_and_how_surely() -> None:
    # logits: 10 + mean(-3, 2, -2, 1) = 9.5 and 20 + mean(4, 4, 1, 7) = 24
    explanation = activation_maps.explain(Given(Mean(), linear()), FEATURES, [0])
    assert explanation.method == "cam"
    (probabilities,) = explanation.probabilities.tolist()
    assert probabilities == pytest.approx([1 / (1 + np.exp(24 - 9.5)), 1 / (1 + np.exp(9.5 - 24))])
    assert torch.equal(explanation.maps, torch.tensor([[[-3.0, 2.0], [-2.0, 1.0]]]))


def test_without_a_class_the_most_probable_one_is_mapped() -> None:
    network = calibrated("efficientnet_b0")
    explanation = activation_maps.explain(network, IMAGES)
    predicted = network(IMAGES).argmax(1).tolist()
    assert explanation.probabilities.argmax(1).tolist() == predicted
    assert torch.equal(explanation.maps, activation_maps.explain(network, IMAGES, predicted).maps)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", with_slow_rest(["efficientnet_b0", "resnet18", "mobilenet_v2", "shufflenet_v2_x1_0", "seresnet50"])
)
def test_a_cams_mean_and_the_bias_are_the_logit(name: str) -> None:
    network = calibrated(name)
    nn.init.normal_(network.classifier.bias)
    explanation = activation_maps.explain(network, IMAGES, CLASSES)
    assert explanation.method == "cam"
    logits = network(IMAGES)[range(3), CLASSES]
    torch.testing.assert_close(
        explanation.maps.mean((1, 2)) + network.classifier.bias[CLASSES], logits, rtol=1e-4, atol=1e-4
    )


@pytest.mark.slow
def test_each_image_gets_the_map_of_its_own_class() -> None:
    network = calibrated("efficientnet_b0")
    together = activation_maps.explain(network, IMAGES, CLASSES).maps
    for i, label in enumerate(CLASSES):
        torch.testing.assert_close(
            activation_maps.explain(network, IMAGES[i : i + 1], [label]).maps[0], together[i], rtol=1e-4, atol=1e-4
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", with_slow_rest(["efficientnet_b0", "resnet18"]))
def test_on_a_mean_linear_head_grad_cam_is_the_positive_part_of_cam(name: str) -> None:
    network = calibrated(name)
    positions = network.features(IMAGES).shape[2:].numel()
    cam = activation_maps.explain(network, IMAGES, CLASSES).maps
    assert (cam < 0).any()
    torch.testing.assert_close(activation_maps.grad_cam(network, IMAGES, CLASSES), cam.relu() / positions)


def test_grad_cam_of_squeezenets_head_by_hand() -> None:
    head = Scores(2, 2, 1)
    with torch.no_grad():
        head.weight.copy_(WEIGHTS[:, :, None, None])
        head.bias.zero_()
    explanation = activation_maps.explain(Given(nn.Identity(), head), FEATURES, [0])
    # Scores of class 0 are (-3, 2, -2, 1): two of four pass the ReLU, so the mean gradients are 2/16 of (1, -1),
    # and the map is the positive part of (-3, 2, -2, 1) / 8.
    assert explanation.method == "grad-cam"
    torch.testing.assert_close(explanation.maps, torch.tensor([[[0.0, 0.25], [0.0, 0.125]]]))


def test_squeezenet_is_explained_by_grad_cam_as_plain_autograd_has_it() -> None:
    network = calibrated("squeezenet1_1")
    explanation = activation_maps.explain(network, IMAGES, CLASSES)
    assert explanation.method == "grad-cam"
    features = network.features(IMAGES).detach().requires_grad_()
    logits = network.classify(features)
    logits[range(3), CLASSES].sum().backward()
    assert features.grad is not None
    by_hand = (features.grad.mean((2, 3), keepdim=True) * features).sum(1).relu().detach()
    assert (by_hand > 0).any()
    torch.testing.assert_close(explanation.maps, by_hand)


def test_a_linear_classifier_behind_another_pooling_is_no_cam() -> None:
    network = Given(Greatest(), linear())
    assert not activation_maps.has_mean_linear_head(network, FEATURES, network(FEATURES))
    assert activation_maps.explain(network, FEATURES, [0]).method == "grad-cam"


def test_captum_on_the_layer_that_we_find_is_captum_on_the_layer_that_is_it() -> None:
    from captum.attr import LayerGradCam  # here, since every process that collects imports this file

    network = calibrated("efficientnet_b0")
    assert activation_maps.feature_layer(network, IMAGES) is network.head
    target = torch.tensor(CLASSES)
    there = LayerGradCam(network, network.head).attribute(IMAGES, target=target, relu_attributions=True)
    assert torch.equal(activation_maps.grad_cam(network, IMAGES, CLASSES), there.detach()[:, 0])


def test_features_that_no_layer_puts_out_are_refused_in_one_line() -> None:
    network = Given(Greatest(), linear())
    network.features = lambda x: network.blocks(x) + 1  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match="no layer that outputs the last feature map"):
        activation_maps.explain(network, FEATURES, [0])


def test_an_explained_network_is_left_without_hooks_or_gradients() -> None:
    network = calibrated("squeezenet1_1")
    activation_maps.explain(network, IMAGES, CLASSES)
    assert all(p.grad is None for p in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


def test_maps_are_upsampled_bilinearly_between_the_centres_of_their_positions() -> None:
    # 1 x 2 positions on 4 pixels: centres at 1/4 and 3/4, so 0, 1/4, 3/4, 1 in each row
    upsampled = activation_maps.upsample(torch.tensor([[[-2.0, 6.0], [-2.0, 6.0]]]), 4)
    np.testing.assert_allclose(upsampled, np.tile([0.0, 0.25, 0.75, 1.0], (1, 4, 1)))


def test_a_map_without_differences_says_nothing() -> None:
    upsampled = activation_maps.upsample(torch.tensor([[[5.0, 5.0], [5.0, 5.0]], [[0.0, 0.0], [0.0, 0.0]]]), 4)
    assert not upsampled.any()


def lightness(rgb: np.ndarray) -> np.ndarray:
    """CIE L* of sRGB 0..255; source: IEC 61966-2-1, CIE 1976."""
    c = rgb / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    y = linear @ np.array([0.2126, 0.7152, 0.0722])
    return np.where(y > (6 / 29) ** 3, 116 * np.cbrt(y) - 16, (29 / 3) ** 3 * y)


def test_more_heat_is_lighter_in_even_steps() -> None:
    steps = np.diff(lightness(activation_maps.colorize(np.linspace(0, 1, 41, dtype=np.float32))))
    assert (steps > 0).all()
    assert steps.max() < 2 * 98 / 40  # no step over twice the even one


def test_an_overlay_is_half_grey_image_and_half_colour() -> None:
    image = np.zeros((1, 2, 3), np.uint8)
    image[0, 0] = (255, 0, 0)  # grey 76.245
    heat = np.array([[1.0, 0.0]], np.float32)
    assert activation_maps.overlay(image, heat).tolist() == [[[164, 166, 120], [0, 0, 2]]]
