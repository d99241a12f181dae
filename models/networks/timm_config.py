"""The ``config.json`` beside weights that timm saved: the network, the pixels that it expects, and their preparation.

Source: timm 1.0 models/_hub.py, ``save_config_for_hf`` and ``_parse_model_cfg``; data/config.py,
``resolve_data_config`` with the sizes for tests; data/transforms_factory.py for the size of the resize.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conf import schema
from conf.data_set import CROP_MODES, INTERPOLATIONS
from conf.text import logger
from infra import store
from infra.errors import ConfigError, NotFoundError
from models.networks.efficientnet.variants import LITE

log = logger()
FILE = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # files that it describes, by their names on the Hub
_ARCHITECTURE = re.compile(r"(?P<tf>tf_)?(?P<network>efficientnet_(?:b\d|l2|lite\d))(?![0-9a-z])")
_PIXELS = {((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)): "imagenet", ((0.5,) * 3, (0.5,) * 3): "advprop"}
_CHANNELS = 3
# Arguments of timm's networks that change no answer of the network in evaluation, or none that its tensors do not show.
_HARMLESS = frozenset(
    (
        *("num_classes", "in_chans", "drop_rate", "drop_path_rate", "pretrained", "img_size", "checkpoint_path"),
        *("scriptable", "exportable", "cache_dir"),
    )
)


@dataclass(frozen=True)
class TimmConfig:
    """What a ``config.json`` of timm states.

    Attributes:
        path: The file, for messages.
        architecture: Name of the network in timm, as ``tf_efficientnet_b0``.
        classes: Number of classes; None if it is not stated.
        preparation: Image side, crop, interpolation and normalization in timm's terms (``pretrained_cfg``).
        has_names: Whether it has the names of the classes.
    """

    path: str
    architecture: str
    classes: int | None
    preparation: Mapping[str, Any]
    has_names: bool

    @property
    def network(self) -> str:
        """Name of the network here; empty for one that is no EfficientNet of the paper."""
        match = _ARCHITECTURE.match(self.architecture)
        return match["network"] if match else ""


def read_beside(weights: str) -> TimmConfig | None:
    """Returns what the ``config.json`` beside a file of the Hub states; None without one of timm.

    Args:
        weights: Path of the weights, local or ``s3://``. A link is not followed: the cache of Hugging Face has links.
            Files of other names may lie beside the configuration of another network.

    Raises:
        ConfigError: The network was made with arguments that change what it computes.
    """
    if weights.rpartition("/")[2] not in WEIGHTS:
        return None
    path = f"{weights.rpartition('/')[0]}/{FILE}" if "/" in weights else FILE
    uri = path if "://" in path else f"file://{Path(path).absolute()}"
    try:
        content = json.loads(store.read(uri))
    except (NotFoundError, ConfigError):  # Amazon also answers that a missing object is forbidden
        return None
    except (ValueError, RecursionError) as error:
        log.warning("%s is no JSON, and is not used: %s", path, error)
        return None
    if not isinstance(content, dict) or not isinstance(content.get("architecture"), str):
        return None  # of Transformers, or of effnet
    arguments = content.get("model_args")
    unusual = sorted(set(arguments) - _HARMLESS) if isinstance(arguments, dict) else []
    if content.get("global_pool", "avg") not in ("", "avg"):
        unusual.append("global_pool")
    if unusual:
        raise ConfigError(
            f"{path}: the network was made with {', '.join(unusual)}, with which it computes other things than "
            "effnet's; weights of timm's networks as they are can be read"
        )
    preparation = content.get("pretrained_cfg", content)  # timm's older files have all at the top
    classes = content.get("num_classes")
    return TimmConfig(
        path,
        content["architecture"],
        classes if isinstance(classes, int) else None,
        preparation if isinstance(preparation, dict) else {},
        bool(content.get("label_names")),
    )


def complete(request: schema.Published, stated: TimmConfig, network: str) -> schema.Published:
    """Returns a request whose missing facts are those that a configuration states; the user's settings stay.

    Args:
        request: The user's settings.
        stated: The configuration beside the weights.
        network: Network that the tensors are of; another one in the configuration is no description of them.

    Raises:
        ConfigError: It states a preparation that effnet does not have, and no setting replaces it.
    """
    match = _ARCHITECTURE.match(stated.architecture)
    if match is None or match["network"] != network:
        log.warning("%s is of %s, the tensors are of %s: it is not used", stated.path, stated.architecture, network)
        return request
    facts: dict[str, Any] = {"origin": "timm_tf" if match["tf"] else "timm"}
    if request.preprocessing is None:
        facts["preprocessing"] = _read_pixels(stated, network)
    if request.resolution is None:
        facts["resolution"] = _read_side(stated)
    side = request.resolution or facts["resolution"]
    share = _first(stated.preparation, "test_crop_pct", "crop_pct")
    if side and isinstance(share, int | float) and 0 < share <= 1:
        facts["crop_pad"] = math.floor(side / share) - side
    facts["interpolation"] = _read_choice(stated, "interpolation", INTERPOLATIONS, request.interpolation)
    facts["crop_mode"] = _read_choice(stated, "crop_mode", CROP_MODES, request.crop_mode)
    facts = {key: value for key, value in facts.items() if value is not None and getattr(request, key) is None}
    if facts:
        stating = ", ".join(f"{key} {value}" for key, value in facts.items())
        log.info("%s states %s", stated.path, stating)
    return replace(request, **facts)


def _read_pixels(stated: TimmConfig, network: str) -> str | None:
    """Returns the normalization by its name; None if none is stated, or if the network has its own, as Lite."""
    values = [stated.preparation.get(key) for key in ("mean", "std")]
    if None in values or network in LITE:
        return None
    for known, name in _PIXELS.items():
        if all(_is_close(value, numbers) for value, numbers in zip(values, known, strict=True)):
            return name
    raise ConfigError(
        f"{stated.path}: pixels of the mean {values[0]} and the deviation {values[1]} are not what any network of "
        "effnet expects; published.preprocessing=imagenet or advprop takes one of its own"
    )


def _is_close(value: Any, numbers: tuple[float, ...]) -> bool:
    return (
        isinstance(value, list)
        and len(value) == len(numbers)
        and all(
            isinstance(one, int | float) and abs(one - number) < 1e-3
            for one, number in zip(value, numbers, strict=True)
        )
    )


def _read_side(stated: TimmConfig) -> int | None:
    size = _first(stated.preparation, "test_input_size", "input_size")
    if size is None:
        return None
    if not isinstance(size, list) or len(size) != _CHANNELS or size[1] != size[2] or not isinstance(size[1], int):
        raise ConfigError(
            f"{stated.path}: images of {size} (channels, height, width) are no squares: set published.resolution"
        )
    return size[1]


def _read_choice(stated: TimmConfig, key: str, choices: tuple[str, ...], given: str | None) -> str | None:
    value = stated.preparation.get(key)
    if value is None or given is not None or value in choices:
        return value
    raise ConfigError(f"{stated.path}: effnet has no {key} {value}: set published.{key} to {' or '.join(choices)}")


def _first(values: Mapping[str, Any], *keys: str) -> Any:
    return next((values[key] for key in keys if values.get(key) is not None), None)
