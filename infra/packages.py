"""Files that installed Python packages carry, read without importing the package."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from infra.errors import NotFoundError


def locate(package: str, file: str) -> Path:
    """Returns the path of a package's file.

    Raises:
        NotFoundError: The package is not installed, or lacks the file.
    """
    spec = find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    path = Path(next(iter(folders or ()), "")) / file
    if not folders or not path.is_file():
        raise NotFoundError(f"{file} of the Python package {package} is not installed; run `make setup`")
    return path
