"""Small data sets made for the tests of sources: settings, trees and archives."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from conf.schema import Data


def asked(source: str, path: Path | None = None, **changes: Any) -> Data:
    return Data(name=source, source=source, path=None if path is None else str(path), **changes)


def photo(seed: int, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def written(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def packed(path: Path, files: dict[str, bytes]) -> Path:
    """A tar, compressed as the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {".tgz": "w:gz", ".gz": "w:gz", ".xz": "w:xz"}.get(path.suffix, "w")
    with tarfile.open(path, kind) as writer:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            writer.addfile(info, io.BytesIO(content))
    return path
