"""Trained weights of a network, from one safetensors file; never pickle."""

from __future__ import annotations

import hashlib

import safetensors.torch
from torch import nn

from infra import store
from infra.errors import ArtifactError

CLASSIFIER = ("classifier.weight", "classifier.bias")


def load_weights(network: nn.Module, uri: str, sha256: str | None) -> None:
    """Fills ``network`` with trained weights, the classifier included.

    Args:
        network: whose tensors are filled.
        uri: of a safetensors file.
        sha256: what the file must be; None believes it.

    Raises:
        ArtifactError: the file is damaged, another one, or a tensor is missing or has another shape.
    """
    _load(network, uri, sha256, fresh=())


def load_features(network: nn.Module, uri: str, sha256: str | None) -> None:
    """Fills all but the classifier, which keeps its fresh values.

    Another data set has other classes, also where it has as many. Arguments and errors: ``load_weights``.
    """
    _load(network, uri, sha256, fresh=CLASSIFIER)


def _load(network: nn.Module, uri: str, sha256: str | None, fresh: tuple[str, ...]) -> None:
    data = store.read(uri)
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256:
        raise ArtifactError(f"weights {uri} have sha256 {found[:12]}…, the job was made for {sha256[:12]}…")
    try:
        weights = safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise ArtifactError(f"weights {uri} are damaged: {error}") from error
    own = network.state_dict()
    head = CLASSIFIER[0]
    if head not in fresh and head in own and head in weights and len(own[head]) != len(weights[head]):
        asked = f"{len(own[head])} were asked for"
        raise ArtifactError(f"weights {uri} are for {len(weights[head])} classes, {asked}")
    fitting = {k: v for k, v in weights.items() if k in own and k not in fresh and own[k].shape == v.shape}
    wrong = [k for k, v in own.items() if k not in fitting and k not in fresh and v.is_floating_point()]
    if wrong:
        raise ArtifactError(f"weights {uri} do not fit the network: {', '.join(wrong[:3])} … ({len(wrong)} tensors)")
    network.load_state_dict(fitting, strict=False)
