"""What others put around the tensors of a network: prefixes, layers and counts beside it, another classifier."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from conf.text import list_some, logger
from infra.errors import ArtifactError
from models.networks.checkpoint_file import is_averaged
from models.networks.key_maps import KEY_MAPS, KeyMap

log = logger()
# Beside a network: what thop counts in every module, and the batch norm that timm's --split-bn trains with in addition
# and that no evaluation uses (timm's clean_checkpoint.py removes it).
_BESIDE = {
    "counts of thop": re.compile(r"(^|\.)total_(ops|params)$"),
    "batch norms of splits": re.compile(r"\.aux_bn\."),
}


def strip_wrappers(tensors: Mapping[str, Tensor], file: str, weights: str | None = None) -> Mapping[str, Tensor]:
    """Removes the prefix of the network's names, and tensors outside the network; logs both.

    Wrappers add prefixes: DistributedDataParallel, torch.compile, timm's EMA, Lightning and detection toolboxes.
    Outside are also the counts that thop leaves in every module that it has measured.

    Args:
        tensors: Tensors that ``checkpoint_file.read`` returned.
        file: Source file, for messages.
        weights: ``model`` or ``ema``, of a file with both under prefixes; None for ``ema`` where there is one.

    Raises:
        ArtifactError: Networks are under several prefixes.
    """
    for what, pattern in _BESIDE.items():
        if skipped := [key for key in tensors if pattern.search(key)]:
            log.info("%s: %d %s are skipped, as %s", base_name(file), len(skipped), what, skipped[0])
            tensors = {key: tensor for key, tensor in tensors.items() if not pattern.search(key)}
    stems = tuple(f"{key_map.outside['stem.0']}.weight" for key_map in KEY_MAPS)
    begun = {key.removesuffix(stem) for key in tensors for stem in stems if key.endswith(stem)}
    prefixes = sorted(prefix for prefix in begun if not prefix or prefix.endswith("."))
    if not prefixes or prefixes[0] == "":
        return tensors
    averaged = [prefix for prefix in prefixes if is_averaged(prefix)]
    plain = [prefix for prefix in prefixes if prefix not in averaged]
    chosen = plain if weights == "model" or not averaged else averaged
    if len(chosen) != 1:
        raise ArtifactError(f"{file} holds several networks, under {', '.join(prefixes)}: save one of them")
    prefix = chosen[0]
    others = [key for key in tensors if not key.startswith(prefix)]
    head = _find_head(tensors, prefix, others, file)
    others = [key for key in others if key not in head]
    if head:
        named = f"the network is under {prefix}, and its classifier beside it"
    elif others:
        named = f"the network is under {prefix}; {len(others)} other tensors are skipped, as {others[0]}"
    else:
        named = f"every name begins with {prefix}, which a wrapper has added; it is removed"
    if averaged and plain:
        kind, other = ("model", plain[0]) if chosen is averaged else ("ema", averaged[0])
        named += f"; published.weights={kind} takes {other}"
    log.info("%s: %s", base_name(file), named)
    return {
        key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix) or key in head
    }


def _find_head(tensors: Mapping[str, Tensor], prefix: str, others: Sequence[str], file: str) -> list[str]:
    """Returns the tensors of a classifier beside the network, as ``head.weight`` beside ``backbone.``; mostly none.

    Raises:
        ArtifactError: The network has no classifier, and beside it are several layers.
    """

    def is_matrix(key: str) -> bool:
        return key.endswith(".weight") and tensors[key].ndim == 2

    layers = [key.removesuffix(".weight") for key in others if is_matrix(key)]
    if not layers or any(is_matrix(key) for key in tensors if key.startswith(prefix)):
        return []
    block = layers[0].partition(".")[0]
    head = [f"{layers[0]}.{leaf}" for leaf in ("weight", "bias")]
    beside = [key for key in others if key not in head and (key.partition(".")[0] == block or "running_" in key)]
    if len(layers) > 1 or beside:
        names = list_some(dict.fromkeys(key.rpartition(".")[0] for key in others))
        raise ArtifactError(
            f"{file}: the network under {prefix} has no classifier, and beside it are {names}: only a single linear "
            "layer is read"
        )
    return [key for key in head if key in tensors]


def rename_classifier(tensors: Mapping[str, Tensor], key_map: KeyMap, file: str) -> Mapping[str, Tensor]:
    """Gives a classifier that a user has replaced its usual name, which is logged: the only linear layer.

    As ``fc.weight``, or ``classifier.1.weight`` of ``Sequential(Dropout, Linear)`` in a network of timm.

    Raises:
        ArtifactError: There is no linear layer, or there are several.
    """
    usual = key_map.outside["classifier"]
    matrices = [key for key, tensor in tensors.items() if key.endswith(".weight") and tensor.ndim == 2]
    layers = [key.removesuffix(".weight") for key in matrices]
    is_named = usual in layers
    if is_named:  # the others may be parts of another network, which its refusal names
        layers = [layer for layer in layers if layer.partition(".")[0] == usual.partition(".")[0]]
    if len(layers) > 1:
        raise ArtifactError(f"{file}: its classifier has the layers {', '.join(layers)}, and not a single one")
    if is_named:
        return tensors
    if not layers:
        raise ArtifactError(
            f"{file} has no classifier ({usual}.weight), only the layers before it: save the state dict of the whole "
            "network"
        )
    log.info("%s: the classifier is %s, which is renamed to %s", base_name(file), layers[0], usual)
    renamed = {f"{layers[0]}.{leaf}": f"{usual}.{leaf}" for leaf in ("weight", "bias")}
    return {renamed.get(key, key): tensor for key, tensor in tensors.items()}


def base_name(file: str) -> str:
    """Returns the name of a file without its folders."""
    return file.rpartition("/")[2]
