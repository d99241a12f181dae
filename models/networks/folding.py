"""Folds batch norm into the preceding convolution: the same function with fewer passes over memory.

For inference only: a folded network no longer trains as the original would. Source: Jacob et al., arXiv 1712.05877,
section 3.2; ``torch.nn.utils.fusion``.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norm(network: nn.Module, images: Tensor) -> nn.Module:
    """Returns a copy in evaluation mode without the batch norms that directly follow a convolution.

    Pairs are observed in a forward pass on ``images``, not inferred from names; a batch norm that follows another layer
    (as in pre-activation networks) stays. Logits differ by rounding only.

    Args:
        network: Network to copy; it is not modified.
        images: Any images ``[N, 3, R, R]`` that the network accepts.
    """
    copied = copy.deepcopy(network).eval()
    for conv, norm in _find_pairs(copied, images):
        fused = fuse_conv_bn_eval(_get_module(copied, conv), _get_module(copied, norm))
        _replace(copied, conv, fused)
        _replace(copied, norm, nn.Identity())
    return copied.requires_grad_(False)


def _find_pairs(network: nn.Module, images: Tensor) -> list[tuple[str, str]]:
    """Returns (convolution, batch norm) names where the norm is the only consumer of the convolution's output."""
    producers: dict[int, tuple[str, Tensor]] = {}  # holds the tensors, so that no id is reused
    consumers: dict[str, list[str]] = {}

    def record_output(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            producers[id(output)] = (name, output)

        return hook

    def record_input(name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
            if inputs and (producer := producers.get(id(inputs[0]))) is not None:
                consumers.setdefault(producer[0], []).append(name)

        return hook

    leaves = [(name, module) for name, module in network.named_modules() if not list(module.children())]
    handles = [module.register_forward_pre_hook(record_input(name)) for name, module in leaves]
    handles += [m.register_forward_hook(record_output(name)) for name, m in leaves if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        network(images)
    for handle in handles:
        handle.remove()
    only = ((conv, names[0]) for conv, names in consumers.items() if len(names) == 1)
    return [(conv, norm) for conv, norm in only if isinstance(_get_module(network, norm), nn.BatchNorm2d)]


def _get_module(network: nn.Module, name: str) -> Any:
    return network.get_submodule(name)


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)
