"""What leaves training: weights as safetensors, a description to rebuild the network, a module to serve.

A reader of these files runs no code of theirs: safetensors and JSON are data, and the description goes
through the same checked schema as a person's configuration.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from conf import compose, schema
from infra.errors import ArtifactError, ConfigError
from models.networks.build import build_model
from models.networks.efficientnet.network import Network
from models.networks.folding import fold_batch_norm

FOLDING_PX = 64  # side of the images on which is seen what follows what; any side shows the same
FORMAT = 1  # of config.json; raised when a reader of today could not understand it


def weights_bytes(state_dict: Mapping[str, Tensor]) -> bytes:
    """Weights and BN statistics as safetensors; equal tensors give equal bytes."""
    # safetensors refuses views and shared storage; a clone is neither.
    flat = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state_dict.items()
    }
    return save(flat, metadata={"format": "pt"})


def save_weights(state_dict: Mapping[str, Tensor], path: Path) -> str:
    """Writes ``weights_bytes`` to a file and returns their sha256 in hex."""
    data = weights_bytes(state_dict)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def config_json(
    model: schema.Model,
    *,
    resolution: int,
    class_names: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    crop_pad: int,
) -> str:
    """Describes a network and its input well enough to rebuild it and to feed it.

    Args:
        model: which network, with its multipliers.
        resolution: side of its images in pixels.
        class_names: in the order of the logits; a name that has none is its number.
        mean: per channel, of pixels in 0..1, subtracted.
        std: per channel, divides.
        crop_pad: evaluation cuts the central ``resolution / (resolution + crop_pad)`` of the short side.
    """
    described = {
        "format": FORMAT,
        "model": compose.to_request(model),
        "classes": len(class_names),
        "class_names": list(class_names),
        "input": {"resolution": resolution, "mean": list(mean), "std": list(std), "crop_pad": crop_pad},
    }
    return json.dumps(described, indent=1, ensure_ascii=False)


def load_network(weights: Path, config: Mapping[str, Any]) -> Network:
    """Rebuilds a registered network in evaluation mode, on the CPU.

    Args:
        weights: a file of ``save_weights``.
        config: what ``config_json`` said.

    Raises:
        ArtifactError: the file is damaged, or describes or holds something else.
    """
    try:
        if config["format"] != FORMAT:
            raise ArtifactError(f"config.json has format {config['format']}, this effnet reads {FORMAT}")
        network = build_model(schema.Model(**config["model"]), int(config["classes"]))
        # Copies: in the file weights lie at any byte, and some CPUs' kernels then sum in another order.
        network.load_state_dict({name: tensor.clone() for name, tensor in load_file(weights).items()}, assign=True)
    except SafetensorError as error:
        raise ArtifactError(f"{weights.name} is damaged: {error}") from error
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise ArtifactError(f"config.json does not describe a network of ours: {error!r}") from error
    except RuntimeError as error:  # load_state_dict: names or shapes
        first = " ".join(str(error).split())[:300]
        raise ArtifactError(f"{weights.name} does not fit {config['model']}: {first}") from error
    return network.eval()


def serving_module(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode on the CPU: normalised float images ``[N, 3, R, R]`` -> logits ``[N, C]``.

    Its batch norms are folded into the convolutions, which is faster (benchmarks/README.md, latency) and moves the
    logits by rounding.
    """
    return fold_batch_norm(copy.deepcopy(network).cpu().float(), torch.from_numpy(example(FOLDING_PX)))


def example(resolution: int) -> NDArray[np.float32]:
    """Two made-up normalised images ``[2, 3, R, R]``; one would fix the batch size of an export at 1."""
    return np.random.default_rng(0).standard_normal((2, 3, resolution, resolution), dtype=np.float32)


def logits(module: nn.Module, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the module answers, ``[N, classes]``; a registered program must give the same."""
    with torch.inference_mode():
        answer: NDArray[np.float32] = module(torch.from_numpy(images)).numpy()
    return answer
