"""Checkpoints in the object store: complete or absent, safetensors and JSON, never pickle.

``checkpoints/step-00000124.safetensors`` holds the tensors; ``step-00000124.json``, written after it, their
size, everything that is no tensor, and the sha256 of both. A resume takes the newest pair that verifies.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass, field
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from infra import store
from infra.errors import ArtifactError, DataError, NotFoundError
from models.training.average import WeightAverage
from models.training.optim import TFRMSProp

log = logging.getLogger("effnet")


@dataclass
class Position:
    """All of the training state that is no tensor."""

    step: int = 0  # finished global steps
    best_minival_top1: float = -1.0
    train_seconds: float = 0.0  # over all attempts, evaluation left out
    rows: list[dict[str, float]] = field(default_factory=list)  # one per evaluation


@dataclass
class TrainState:
    """Everything that a resume needs: the random numbers of a step follow from (seed, step, rank)."""

    network: nn.Module
    optimizer: TFRMSProp
    average: WeightAverage
    best: dict[str, Tensor]  # the average at the best minival accuracy so far
    position: Position

    def tensors(self) -> dict[str, Tensor]:
        """All tensors under one naming, as live views."""
        named = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        named |= {f"average.{k}": v for k, v in self.average.tensors.items()}
        named |= {f"best.{k}": v for k, v in self.best.items()}
        for name, parameter in self.network.named_parameters():
            for slot, value in self.optimizer.state[parameter].items():
                named[f"optimizer.{slot}.{name}"] = value
        return named


def save(state: TrainState, job_uri: str, keep: int) -> None:
    """Writes one checkpoint, then deletes all but the newest ``keep``."""
    data = safetensors.torch.save({k: v.contiguous() for k, v in state.tensors().items()})
    base = store.join(job_uri, "checkpoints", f"step-{state.position.step:08d}")
    store.write(f"{base}.safetensors", data)
    position = asdict(state.position)
    meta = {"bytes": len(data), "sha256": _digest(data, position), "position": position}
    store.write_json(f"{base}.json", meta)
    for old in _newest_first(job_uri)[keep:]:
        store.delete(old)  # the .json first: without it the tensors are not a checkpoint any more
        store.delete(old.removesuffix(".json") + ".safetensors")


def resume(state: TrainState, job_uri: str) -> bool:
    """Loads the newest checkpoint that verifies into ``state``; False where there is none at all.

    Raises:
        ArtifactError: there are checkpoints, but not one verifies; training never starts over in silence.
    """
    found = _newest_first(job_uri)
    for uri in found:
        loaded = _verified(uri)
        if loaded is not None:
            _restore(state, *loaded, uri)
            return True
    if found:
        raise ArtifactError(f"none of the {len(found)} checkpoints in {job_uri}/checkpoints verifies; "
                            "delete that folder to start over")  # fmt: skip
    return False


def _newest_first(job_uri: str) -> list[str]:
    return [u for u in reversed(store.list_uris(store.join(job_uri, "checkpoints/"))) if u.endswith(".json")]


def _digest(tensors: bytes, position: dict[str, Any]) -> str:
    """Covers the position too: a flipped digit of the step would resume elsewhere in silence."""
    digest = hashlib.sha256(tensors)
    digest.update(json.dumps(position, sort_keys=True).encode())
    return digest.hexdigest()


def _verified(uri: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    tensors_uri = uri.removesuffix(".json") + ".safetensors"
    try:
        meta = store.read_json(uri)
        data = store.read(tensors_uri)
        if len(data) == meta["bytes"] and _digest(data, meta["position"]) == meta["sha256"]:
            return safetensors.torch.load(data), meta["position"]
        log.warning("checkpoint %s does not match its sha256: an older one is used", tensors_uri)
    except (NotFoundError, DataError, KeyError) as error:
        log.warning("checkpoint %s is damaged (%s): an older one is used", uri, error)
    return None


@torch.no_grad()
def _restore(state: TrainState, tensors: dict[str, Tensor], position: dict[str, Any], uri: str) -> None:
    targets = state.tensors()
    if targets.keys() != tensors.keys() or any(targets[k].shape != tensors[k].shape for k in targets):
        raise ArtifactError(f"checkpoint {uri} belongs to another network; delete it or give another run")
    for name, target in targets.items():
        target.copy_(tensors[name])
    state.position = Position(**position)


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
    fitting = {k: v for k, v in weights.items() if k in own and k not in fresh and own[k].shape == v.shape}
    wrong = [k for k, v in own.items() if k not in fitting and k not in fresh and v.is_floating_point()]
    if wrong:
        raise ArtifactError(f"weights {uri} do not fit the network: {', '.join(wrong[:3])} … ({len(wrong)} tensors)")
    network.load_state_dict(fitting, strict=False)
