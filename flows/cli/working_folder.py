"""Keeps Prefect from settings in the folder that a command is run in."""

from __future__ import annotations

from typing import Any


def ignore_prefect_files() -> None:
    """Makes Prefect read its settings from the environment and from ``PREFECT_HOME`` alone; before its import.

    It also reads ``.env``, ``prefect.toml`` and ``pyproject.toml`` of the working folder, which are about another
    server: one value that it does not know ended every flow with a page of errors, others change retries and results.
    It has no setting against that, and reads them while it is imported, by pydantic-settings, which nothing else here
    uses.
    """
    from pydantic_settings import DotEnvSettingsSource
    from pydantic_settings.sources import ConfigFileSourceMixin

    def read_nothing(*_: Any, **__: Any) -> dict[str, Any]:
        return {}

    DotEnvSettingsSource._read_env_files = read_nothing  # type: ignore[method-assign]
    ConfigFileSourceMixin._read_files = read_nothing  # type: ignore[method-assign]
