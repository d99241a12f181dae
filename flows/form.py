"""The fields that Prefect's form of a deployment has beside the free list of overrides.

A field is a parameter of the flow. It stands for one setting, whose choices and default are those of ``conf/``. What is
given in ``overrides`` counts more than a field; a field counts more than what the worker was started with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conf import compose

_TRAIN = {"profile": "profile", "model": "model", "data": "data", "epochs": "recipe.epochs"}
_KEYS: dict[str, dict[str, str]] = {  # settings of the fields by flow, where they are others than those of _TRAIN
    "evaluate": {"model": "model_ref"},
    "transfer": {"data": "data@transfer.data", "epochs": "transfer.recipe.epochs"},
    "nightly": {"model": "nightly.model", "data": "data@transfer.data", "epochs": "transfer.recipe.epochs"},
}
_MEANINGS = {
    "profile": "Size of everything",
    "model": "Network",
    "model_ref": "Registered version, NAME@ALIAS or NAME/VERSION",
    "nightly.model": "Registered model whose champion is fine-tuned",
    "data": "Data set",
    "data@transfer.data": "Data set to fine-tune on",
    "recipe.epochs": "Epochs",
    "transfer.recipe.epochs": "Epochs of the fine-tuning",
}
_NAMES = {"model": "model.name", "data": "data.name", "data@transfer.data": "transfer.data.name"}
_OVERRIDES = "Any other settings, one KEY=VALUE a line, as behind `effnet` on the command line."


def to_overrides(flow: str, fields: Mapping[str, object]) -> list[str]:
    """Returns the settings of the fields that are given, as overrides; other parameters are ignored."""
    keys = _keys(flow)
    words = [f"{keys[name]}={fields[name]}" for name in keys if fields.get(name) is not None]
    # A list of sets, as that of profile=paper, would count more than the field.
    return [*words, "transfer.sets=[]"] if flow == "transfer" and fields.get("data") is not None else words


def describe_parameters(flow: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the JSON schema of a flow's parameters with titles, choices and defaults of its fields.

    A field has no default that the form would fill in: it would replace a setting of the worker. Its description states
    the default instead.

    Args:
        flow: Name of the flow.
        parameters: JSON schema as Prefect derives it from the flow's signature.
    """
    keys, properties = _keys(flow), dict(parameters["properties"])
    for name, present in properties.items():
        place = {"position": present["position"]} if "position" in present else {}
        if name in keys:
            properties[name] = _describe_field(name, keys[name]) | place
        elif name == "overrides":
            last = {"position": len(properties)}
            properties[name] = {**present, **last, "title": "Overrides", "default": [], "description": _OVERRIDES}
    required = [name for name in parameters.get("required", []) if name != "overrides"]
    return {**parameters, "properties": properties, "required": required}


def _keys(flow: str) -> dict[str, str]:
    return _TRAIN | _KEYS.get(flow, {})


def _describe_field(name: str, key: str) -> dict[str, Any]:
    kind: dict[str, Any] = {"type": "string"}
    if key in compose.GROUPS:
        kind["enum"] = list(compose.options(key.partition("@")[0]))
    elif name == "epochs":
        kind = {"type": "integer", "minimum": 1}
    return kind | {"title": name.capitalize(), "description": f"{_MEANINGS[key]} (`{key}`; default {_default(key)})."}


def _default(key: str) -> str:
    if key == "profile":
        return "that of `effnet up`, else laptop"
    config = compose.compose([])
    value = compose.read_setting(config, _NAMES.get(key, key))
    return "none" if value is None else f"that of `effnet up` or of the profile, else {value}"
