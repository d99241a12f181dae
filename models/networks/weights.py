"""Loads trained weights from a safetensors file; never from pickle."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import safetensors.torch
from torch import Tensor, nn

from conf.schema import Model
from conf.text import list_some
from infra import store
from infra.errors import ArtifactError
from models.networks.build import build_model
from models.networks.efficientnet.network import Network

CLASSIFIER = ("classifier.weight", "classifier.bias")


def build_trained(model: Model, classes: int, uri: str, sha256: str | None) -> Network:
    """Builds a network with trained weights; the other arguments and the errors are those of ``load_weights``."""
    network = build_model(model, classes)
    load_weights(network, uri, sha256)
    return network


def load_weights(network: nn.Module, uri: str, sha256: str | None) -> None:
    """Loads trained weights into ``network``, including the classifier.

    Args:
        network: Network whose tensors are overwritten.
        uri: Address of a safetensors file.
        sha256: Expected digest of the file in hex; None skips the check.

    Raises:
        ArtifactError: the file is damaged or has another digest, or a tensor is missing or has another shape.
    """
    _load(network, uri, sha256, excluded=())


def load_features(network: nn.Module, uri: str, sha256: str | None) -> None:
    """Loads all weights except the classifier, which keeps its initial values.

    Classes of another data set differ even if their number is the same. Arguments and errors as in ``load_weights``.
    """
    _load(network, uri, sha256, excluded=CLASSIFIER)


def select_classes(uri: str, sha256: str | None, rows: Sequence[int]) -> bytes:
    """Returns the weights with some rows of the classifier, in the given order, as safetensors.

    Args:
        uri: Address of a safetensors file.
        sha256: Expected digest of the file in hex; None skips the check.
        rows: Index of the classes.

    Raises:
        ArtifactError: the file is damaged or has another digest, or has fewer classes.
    """
    weights = _read(uri, sha256)
    for name in CLASSIFIER:
        if name not in weights or len(weights[name]) <= max(rows):
            raise ArtifactError(f"weights {uri} have no {name} of more than {max(rows)} classes")
        weights[name] = weights[name][list(rows)].contiguous()
    return safetensors.torch.save(weights, metadata={"format": "pt"})


def _read(uri: str, sha256: str | None) -> dict[str, Tensor]:
    data = store.read(uri)
    digest = hashlib.sha256(data).hexdigest()
    if sha256 is not None and digest != sha256:
        raise ArtifactError(f"weights {uri} have sha256 {digest[:12]}…, the job expects {sha256[:12]}…")
    try:
        return safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise ArtifactError(f"weights {uri} are damaged: {error}") from error


def _load(network: nn.Module, uri: str, sha256: str | None, excluded: tuple[str, ...]) -> None:
    weights = _read(uri, sha256)
    current = network.state_dict()
    head = CLASSIFIER[0]
    if head not in excluded and head in current and head in weights and len(current[head]) != len(weights[head]):
        raise ArtifactError(f"weights {uri} are for {len(weights[head])} classes, {len(current[head])} were requested")
    matching = {k: v for k, v in weights.items() if k in current and k not in excluded and current[k].shape == v.shape}
    unmatched = [k for k, v in current.items() if k not in matching and k not in excluded and v.is_floating_point()]
    if unmatched:
        raise ArtifactError(f"weights {uri} do not fit the network: {list_some(unmatched, 3)} are missing or differ")
    network.load_state_dict(matching, strict=False)
