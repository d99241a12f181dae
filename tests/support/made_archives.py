"""Small synthetic data sets for the tests of sources: settings, trees and archives."""

import io
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conf.schema import Data
from models.data.sources import catalog
from models.data.sources.listing import Source


def data_settings(source: str, path: Path | None = None, **changes: Any) -> Data:
    return Data(name=source, source=source, path=None if path is None else str(path), **changes)


def set_counts(monkeypatch: pytest.MonkeyPatch, source: str, images: dict[int, int]) -> None:
    """Replaces the official numbers of images per part."""
    monkeypatch.setitem(catalog.DATA_SETS, source, replace(catalog.DATA_SETS[source], images=images))


@lru_cache(maxsize=4096)  # the same few images in most tests
def photo(seed: int, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def small_tree() -> dict[str, bytes]:
    """Twelve images in ``{train,val}/{a,b}/``."""
    names = [f"{part}/{label}/{i}.jpg" for part in ("train", "val") for label in "ab" for i in range(3)]
    return {name: photo(number) for number, name in enumerate(names)}


def write_tree(root: Path, files: dict[str, bytes]) -> Path:
    for folder in {(root / name).parent for name in files}:
        folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (root / name).write_bytes(content)
    return root


def write_archive(path: Path, files: Mapping[str, bytes] | Iterable[tuple[str, bytes]]) -> Path:
    """Writes a tar, compressed according to the suffix of its name; pairs may repeat a name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {".tgz": "w:gz", ".gz": "w:gz", ".xz": "w:xz"}.get(path.suffix, "w")
    quick = {"w:gz": {"compresslevel": 1}, "w:xz": {"preset": 0}}.get(kind, {})
    with tarfile.open(path, kind, **quick) as writer:  # type: ignore[call-overload]
        for name, content in files.items() if isinstance(files, Mapping) else files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            writer.addfile(info, io.BytesIO(content))
    return path


def tree(folders: dict[str, int]) -> dict[str, bytes]:
    """Numbered images in each of the folders."""
    return {f"{folder}/{i:03d}.jpg": photo(i) for folder, count in folders.items() for i in range(count)}


def open_tree(tmp_path: Path, files: dict[str, bytes], **changes: object) -> Source:
    """Opens the files, and those of earlier calls, as a user's folder."""
    return catalog.open_source(data_settings("folder", write_tree(tmp_path / "set", files), **changes))


def counts(source: Source) -> list[int]:
    """Numbers of images of train, minival and val."""
    return np.bincount(source.split, minlength=3).tolist()


def flat(folder: str, count: int = 12) -> dict[str, bytes]:
    """Numbered images whose paths begin with the text."""
    return {f"{folder}{i}.jpg": photo(500 + i) for i in range(count)}


def matlab_file(**variables: Any) -> bytes:
    """A compressed MATLAB file; lists of texts become cells, as in the devkits."""
    from scipy.io import savemat  # here, since every process that collects imports this file

    cells = {
        name: np.array([[text] for text in value], object)
        for name, value in variables.items()
        if isinstance(value, list) and all(isinstance(text, str) for text in value)
    }
    buffer = io.BytesIO()
    savemat(buffer, variables | cells, do_compression=True)
    return buffer.getvalue()
