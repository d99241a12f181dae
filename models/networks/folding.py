"""Batch norm folded into the convolutions before it: the same function with fewer passes over memory.

For inference alone: a folded network cannot be trained as the other one could. Source: Jacob et al., arXiv 1712.05877,
section 3.2; ``torch.nn.utils.fusion``.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norm(network: nn.Module, images: Tensor) -> nn.Module:
    """A copy in evaluation mode without the batch norms that directly follow a convolution.

    What follows what is seen on ``images``, not guessed from names; a batch norm that follows something else (in
    networks with pre-activation) stays. Logits differ by rounding only.

    Args:
        network: is left as it is.
        images: any ``[N, 3, R, R]`` that it takes.
    """
    copied = copy.deepcopy(network).eval()
    for conv, norm in _pairs(copied, images):
        fused = fuse_conv_bn_eval(_module(copied, conv), _module(copied, norm))
        _replace(copied, conv, fused)
        _replace(copied, norm, nn.Identity())
    return copied.requires_grad_(False)


def _pairs(network: nn.Module, images: Tensor) -> list[tuple[str, str]]:
    """Names of the convolutions whose output a batch norm, and no other module, was given."""
    made: dict[int, tuple[str, Tensor]] = {}  # the tensors are kept, so that no address is used twice
    takers: dict[str, list[str]] = {}

    def made_by(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            made[id(output)] = (name, output)

        return hook

    def taken_by(name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
            if inputs and (found := made.get(id(inputs[0]))) is not None:
                takers.setdefault(found[0], []).append(name)

        return hook

    leaves = [(name, module) for name, module in network.named_modules() if not list(module.children())]
    handles = [module.register_forward_pre_hook(taken_by(name)) for name, module in leaves]
    handles += [m.register_forward_hook(made_by(name)) for name, m in leaves if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        network(images)
    for handle in handles:
        handle.remove()
    first = ((conv, names[0]) for conv, names in takers.items() if len(names) == 1)
    return [(conv, norm) for conv, norm in first if isinstance(_module(network, norm), nn.BatchNorm2d)]


def _module(network: nn.Module, name: str) -> Any:
    return network.get_submodule(name)


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)
