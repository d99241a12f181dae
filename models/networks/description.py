"""The config.json beside registered weights, from which ``export.load_network`` rebuilds the network.

It is written without torch, so that a repeated registration does not import it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from conf import compose, schema
from conf.data_set import EvalTransform

# Per channel, of pixels 0..255. Source: official preprocessing.py, MEAN_RGB and STDDEV_RGB.
MEAN_RGB = (123.675, 116.28, 103.53)
STDDEV_RGB = (58.395, 57.12, 57.375)
FORMAT = 1  # of config.json; incremented when older readers could no longer parse it


def config_json(
    model: schema.Model,
    *,
    resolution: int,
    class_names: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    transform: EvalTransform,
) -> str:
    """Describes a network and its input completely enough to rebuild it and run it.

    Args:
        model: Network name and its multipliers.
        resolution: Side of its input images in pixels.
        class_names: Names in the order of the logits; a class without a name is given by its number.
        mean: Mean per channel of pixels in 0..1, which is subtracted.
        std: Standard deviation per channel, by which the difference is divided.
        transform: Transform of evaluation; its interpolation and its crop mode are stated if they are not the usual.
    """
    description: dict[str, Any] = {
        "format": FORMAT,
        "model": compose.to_request(model),
        "classes": len(class_names),
        "class_names": list(class_names),
        "input": {"resolution": resolution, "mean": list(mean), "std": list(std)},
    }
    usual = EvalTransform()
    for key, value in asdict(transform).items():
        if key == "crop_pad" or value != getattr(usual, key):
            description["input"][key] = value
    return json.dumps(description, indent=1, ensure_ascii=False)


def read_transform(description: Mapping[str, Any]) -> EvalTransform:
    """Returns the transform of evaluation that a description states.

    Raises:
        KeyError: It states none.
        TypeError, ValueError: It is damaged.
    """
    given, usual = description["input"], EvalTransform()
    return EvalTransform(
        int(given["crop_pad"]),
        str(given.get("interpolation", usual.interpolation)),
        str(given.get("crop_mode", usual.crop_mode)),
    )
