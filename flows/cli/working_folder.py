"""Keeps Prefect from settings in the folder that a command is run in, or refuses wrong ones in one line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conf.text import list_some
from infra.errors import ConfigError

_HARMLESS = ("PREFECT_API_URL", "PREFECT_API_KEY", "PREFECT_API_AUTH_STRING")  # texts that Prefect does not judge
# Prints one line: what is wrong with the settings that Prefect reads when it is imported.
_LOAD = """
from pydantic import ValidationError
try:
    import prefect
    from prefect.settings import get_current_settings
    get_current_settings()
except ValidationError as error:
    first = error.errors()[0]
    section = error.title.removesuffix("Settings").upper()
    name = "_".join(["PREFECT", *filter(None, [section]), *(str(part).upper() for part in first["loc"])])
    secret = any(word in name for word in ("KEY", "PASSWORD", "SECRET", "AUTH", "TOKEN", "URL"))
    shown = "" if secret else f" is {first['input']!r}"
    print(f"{name}{shown}: {first['msg']}")
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""


def check_prefect_settings(environment: Mapping[str, str]) -> None:
    """Refuses settings of the user's for a server of the user's with which Prefect cannot be used.

    It would print errors of its libraries, and fail later. Takes a second, where there are settings at all.

    Raises:
        ConfigError: A variable ``PREFECT_*``, a file of the working folder or the profile is wrong.
    """
    home = Path(environment.get("PREFECT_HOME") or Path.home() / ".prefect")
    profiles = Path(environment.get("PREFECT_PROFILES_PATH") or home / "profiles.toml")
    places = [name for name in sorted(environment) if name.startswith("PREFECT_") and name not in _HARMLESS]
    places += [name for name in (".env", "prefect.toml", "pyproject.toml") if _mentions_prefect(Path(name))]
    places += [str(profiles)] if profiles.is_file() else []
    if not places:
        return
    loaded = subprocess.run([sys.executable, "-c", _LOAD], env=dict(environment), capture_output=True, text=True)
    if wrong := " ".join(loaded.stdout.split()):
        if wrong.partition(" ")[0].rstrip(":") in places:  # a variable
            raise ConfigError(f"{wrong}; correct or unset it")
        files = [place for place in places if place not in environment]
        raise ConfigError(f"settings of Prefect in {list_some(files or places)} are wrong: {wrong}; correct them")


def _mentions_prefect(path: Path) -> bool:
    try:
        return "prefect" in path.read_text(encoding="utf-8", errors="replace").lower() or path.name == "prefect.toml"
    except OSError:
        return False


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
