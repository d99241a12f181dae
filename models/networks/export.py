"""Exports a network: weights as safetensors, and a module for serving.

Loading these files executes no code: safetensors and JSON are data, and the description is validated by the same schema
as a user's configuration.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from conf import schema
from infra.errors import ArtifactError, ConfigError
from models.networks.build import build_model
from models.networks.description import FORMAT
from models.networks.efficientnet.network import Network
from models.networks.folding import fold_batch_norm

FOLDING_PX = 64  # image side of the forward pass that finds foldable layers; any side finds the same ones


def weights_bytes(state_dict: Mapping[str, Tensor]) -> bytes:
    """Serializes weights and BN statistics as safetensors; equal tensors give equal bytes."""
    # safetensors refuses views and shared storage, hence the clone.
    flat = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state_dict.items()
    }
    return save(flat, metadata={"format": "pt"})


def save_weights(state_dict: Mapping[str, Tensor], path: Path) -> str:
    """Writes ``weights_bytes`` to a file and returns its sha256 in hex."""
    data = weights_bytes(state_dict)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def load_network(weights: Path, config: Mapping[str, Any]) -> Network:
    """Rebuilds a registered network in evaluation mode, on the CPU.

    Args:
        weights: A file written by ``save_weights``.
        config: The object that ``description.config_json`` wrote.

    Raises:
        ArtifactError: the file is damaged, or the weights or the description do not match.
    """
    try:
        if config["format"] != FORMAT:
            raise ArtifactError(f"config.json has format {config['format']}, this effnet version reads {FORMAT}")
        network = build_model(schema.Model(**config["model"]), int(config["classes"]), device="meta")
        # Clones: tensors in the file may be unaligned, and kernels of some CPUs then sum in another order.
        network.load_state_dict({name: tensor.clone() for name, tensor in load_file(weights).items()}, assign=True)
    except SafetensorError as error:
        raise ArtifactError(f"{weights.name} is damaged: {error}") from error
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise ArtifactError(f"config.json does not describe an effnet network: {error!r}") from error
    except RuntimeError as error:  # load_state_dict: names or shapes
        summary = " ".join(str(error).split())[:300]
        raise ArtifactError(f"{weights.name} does not fit {config['model']}: {summary}") from error
    return network.eval()


def serving_module(network: nn.Module) -> nn.Module:
    """Returns an evaluation-mode copy on the CPU: normalized float images ``[N, 3, R, R]`` -> logits ``[N, C]``.

    Batch norms are folded into the convolutions, which is faster (benchmarks/README.md, latency) and changes the logits
    by rounding.
    """
    return fold_batch_norm(copy.deepcopy(network).cpu().float(), torch.from_numpy(example(FOLDING_PX)))


def example(resolution: int) -> NDArray[np.float32]:
    """Returns two random normalized images ``[2, 3, R, R]``; a single one would fix the exported batch size at 1."""
    return np.random.default_rng(0).standard_normal((2, 3, resolution, resolution), dtype=np.float32)


def logits(module: nn.Module, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Computes the module's logits ``[N, classes]``; a registered program must reproduce them."""
    with torch.inference_mode():
        outputs: NDArray[np.float32] = module(torch.from_numpy(images)).numpy()
    return outputs
