"""Reads the MATLAB files of the devkits of ImageNet, Cars and Flowers; reading one executes no code."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

from infra.errors import DataError
from models.data.sources.archive import Files


def load(files: Files, row: int, key: str) -> Any:
    """Returns the variable ``key`` of a ``.mat`` file, without dimensions of size one.

    Raises:
        DataError: The file is not a MATLAB file, is damaged, or has no such variable.
    """
    # Imported here because it takes half a second and few data sets need it. scipy has no type annotations.
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

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
