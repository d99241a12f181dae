"""All parameters and BN statistics of a network as views of one flat tensor.

A flat tensor is updated, averaged over ranks, copied and saved in one kernel or one message, regardless of how many
tensors the network has::

    values = [ decayed parameters | other parameters | BN running statistics ]

Each tensor starts at a multiple of 64 bytes and keeps its memory format in the network (channels_last).
The padding between them is zero and stays zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.networks.efficientnet.blocks import BATCH_NORMS

_ALIGN = 16  # floats


@dataclass(frozen=True)
class Field:
    """One tensor of the network: elements ``[start, start + prod(shape))`` of the flat tensor."""

    name: str
    shape: tuple[int, ...]
    start: int
    channels_last: bool

    def view(self, flat: Tensor) -> Tensor:
        """Returns this tensor's part of ``flat`` in its original shape; shares memory."""
        size = 1
        for length in self.shape:
            size *= length
        part = flat[self.start : self.start + size]
        if not self.channels_last:
            return part.view(self.shape)
        out, channels, height, width = self.shape
        return part.view(out, height, width, channels).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Layout:
    """Positions of a network's floating-point tensors in a flat tensor; the same on every rank."""

    fields: tuple[Field, ...]
    decayed: int  # [0, decayed): parameters with weight decay
    parameters: int  # [0, parameters): all parameters
    size: int  # [parameters, size): BN statistics

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Returns all tensors by name, as views of ``flat [size]``."""
        return {field.name: field.view(flat) for field in self.fields}

    def described(self) -> list[list[object]]:
        """Returns ``[[name, shape], ...]``, the description stored in a checkpoint."""
        return [[field.name, list(field.shape)] for field in self.fields]


def layout_of(network: nn.Module) -> Layout:
    """Computes the layout of a network: weight decay applies to all parameters but batch norm's gamma and beta.

    Biases of squeeze-and-excitation and of the classifier ARE decayed. Source: official main.py, L2 over every
    variable whose name lacks ``batch_normalization``.
    """
    norm = {id(p) for m in network.modules() if isinstance(m, BATCH_NORMS) for p in m.parameters()}
    named = list(network.named_parameters())
    groups = (
        [(name, p) for name, p in named if id(p) not in norm],
        [(name, p) for name, p in named if id(p) in norm],
        [(name, b) for name, b in network.named_buffers() if b.is_floating_point()],
    )
    fields: list[Field] = []
    ends: list[int] = []
    at = 0
    for group in groups:
        for name, tensor in group:
            channels_last = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
            fields.append(Field(name, tuple(tensor.shape), at, channels_last))
            at += -(-tensor.numel() // _ALIGN) * _ALIGN
        ends.append(at)
    return Layout(tuple(fields), *ends)


@torch.no_grad()
def flatten(network: nn.Module, layout: Layout) -> Tensor:
    """Copies the network's values into a new flat tensor and makes the network's tensors views of it."""
    device = next(network.parameters()).device
    flat = torch.zeros(layout.size, device=device)
    views, tensors = layout.views(flat), _floating_tensors(network)
    for name, view in views.items():
        view.copy_(tensors[name])
    bind(network, layout, flat)
    return flat


def bind(network: nn.Module, layout: Layout, flat: Tensor) -> None:
    """Makes the network's parameters and BN statistics views of ``flat`` and thereby takes over its values."""
    tensors = _floating_tensors(network)
    for name, view in layout.views(flat).items():
        tensors[name].data = view


def bind_gradients(network: nn.Module, layout: Layout, flat: Tensor) -> None:
    """Makes every parameter's gradient a view of ``flat``, so that the backward pass accumulates into it."""
    views = layout.views(flat)
    for name, parameter in network.named_parameters():
        parameter.grad = views[name]


def _floating_tensors(network: nn.Module) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = dict(network.named_parameters())
    return tensors | {name: b for name, b in network.named_buffers() if b.is_floating_point()}
