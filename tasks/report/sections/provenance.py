"""Where each part comes from: command, commit, configuration, data, hardware, versions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from conf.compose import flatten
from models.results import Provenance

HARDWARE = ("cpu", "cores", "memory_gb", "gpu")
SERVICES = {"prefect": "PREFECT_API_URL", "mlflow": "MLFLOW_TRACKING_URI", "s3": "AWS_ENDPOINT_URL_S3"}


def origin(title: str, make: str, recorded: Provenance, command: str) -> dict[str, Any]:
    """Origin of a part.

    Args:
        title: Title of the part.
        make: The command that makes it.
        recorded: Its provenance.
        command: The command that made it; empty if it is not recorded.
    """
    return {
        "title": title,
        "command": command or make,
        "provenance": recorded,
        "hardware": {key: recorded.machine.get(key) for key in HARDWARE},
        "versions": {key: value for key, value in recorded.machine.items() if key not in HARDWARE},
        "config": [f"{key}={'null' if value is None else value}" for key, value in flatten(recorded.config).items()],
    }


def present_services() -> dict[str, str]:
    """Addresses of the services that this process uses, as a browser takes them; empty for one that it does not use."""
    return {name: os.environ.get(key, "").removesuffix("/api") for name, key in SERVICES.items()}


def services(addresses: Mapping[str, str]) -> dict[str, str | None]:
    """The expected services first, recorded or not, then any others."""
    return {name: addresses.get(name) for name in dict.fromkeys([*SERVICES, *addresses])}
