"""Loading trained weights: which files fit and which are refused."""

import hashlib
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from infra import store
from infra.errors import ArtifactError, NotFoundError
from models.networks import weights as weights_of


class Net(nn.Module):
    def __init__(self, classes: int = 3, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(self.norm(self.conv(x)).mean((2, 3)))
        return logits


@pytest.fixture
def weights(tmp_path: Path) -> tuple[str, Net]:
    torch.manual_seed(5)
    trained = Net(classes=3)
    trained.train()(torch.randn(8, 3, 2, 2))
    uri = f"file://{tmp_path}/weights.safetensors"
    store.write(uri, safetensors.torch.save(trained.state_dict()))
    return uri, trained


def same_tensors(first: nn.Module, second: nn.Module, prefix: str = "") -> bool:
    other = second.state_dict()
    return all(torch.equal(t, other[name]) for name, t in first.state_dict().items() if name.startswith(prefix))


def test_weights_fill_a_network_of_the_same_classes_whole(weights: tuple[str, Net]) -> None:
    uri, trained = weights
    network = Net(classes=3)
    weights_of.load_weights(network, uri, None)
    assert same_tensors(network, trained)


def test_features_leave_the_fresh_classifier_even_where_it_would_fit(weights: tuple[str, Net]) -> None:
    uri, trained = weights
    torch.manual_seed(9)
    network = Net(classes=3)
    torch.manual_seed(9)
    untouched = Net(classes=3)
    weights_of.load_features(network, uri, None)
    assert same_tensors(network, untouched, "classifier")
    assert same_tensors(network, trained, "conv")
    assert same_tensors(network, trained, "norm")


def test_another_number_of_classes_is_refused_where_the_classifier_must_fit(weights: tuple[str, Net]) -> None:
    uri, _ = weights
    network, untouched = Net(classes=7), Net(classes=7)
    untouched.load_state_dict(network.state_dict())
    with pytest.raises(ArtifactError, match=r"are for 3 classes, 7 were requested"):
        weights_of.load_weights(network, uri, None)
    assert same_tensors(network, untouched)


def test_weights_of_another_width_are_refused(weights: tuple[str, Net]) -> None:
    with pytest.raises(ArtifactError, match=r"do not fit the network: conv\.weight"):
        weights_of.load_features(Net(width=8), weights[0], None)


def test_damaged_weights_are_refused(weights: tuple[str, Net]) -> None:
    uri, _ = weights
    store.write(uri, store.read(uri)[:-100])
    with pytest.raises(ArtifactError, match="are damaged"):
        weights_of.load_weights(Net(), uri, None)


def test_weights_that_are_not_those_asked_for_are_refused(weights: tuple[str, Net]) -> None:
    uri, trained = weights
    digest = hashlib.sha256(store.read(uri)).hexdigest()
    weights_of.load_weights(Net(), uri, digest)
    with torch.no_grad():
        trained.conv.weight += 1
    store.write(uri, safetensors.torch.save(trained.state_dict()))
    with pytest.raises(ArtifactError, match="sha256"):
        weights_of.load_weights(Net(), uri, digest)


def test_missing_weights_are_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        weights_of.load_weights(Net(), f"file://{tmp_path}/none.safetensors", None)


def test_selected_classes_have_the_logits_of_the_whole_network(weights: tuple[str, Net], tmp_path: Path) -> None:
    uri, trained = weights
    store.write(selected := f"file://{tmp_path}/selected.safetensors", weights_of.select_classes(uri, None, [2, 0]))
    network = Net(classes=2).eval()
    weights_of.load_weights(network, selected, None)
    images = torch.randn(4, 3, 2, 2)
    assert torch.equal(network(images), trained.eval()(images)[:, [2, 0]])
    with pytest.raises(ArtifactError, match="of more than 3 classes"):
        weights_of.select_classes(uri, None, [3])
