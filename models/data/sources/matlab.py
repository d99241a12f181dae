"""MATLAB files, as the devkits of ImageNet, Cars and Flowers have them; reading one runs no code."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

from infra.errors import DataError
from models.data.sources.archive import Files


def load(files: Files, row: int, key: str) -> Any:
    """The variable ``key`` of a ``.mat`` file, with dimensions of one removed.

    Raises:
        DataError: no MATLAB file, damaged, or without that variable.
    """
    # Here and not above: it takes half a second, and few sets need it. scipy ships no types.
    from scipy.io import loadmat  # type: ignore[import-untyped]
    from scipy.io.matlab import MatReadError  # type: ignore[import-untyped]

    try:
        return loadmat(io.BytesIO(files.read(row)), squeeze_me=True, variable_names=[key])[key]
    except (
        MatReadError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        NotImplementedError,
        OSError,
        struct.error,
        zlib.error,
    ) as error:
        raise DataError(f"{files.root}: {files.names[row]} cannot be read as MATLAB data: {error!r}") from error
