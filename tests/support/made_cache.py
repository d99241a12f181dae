"""Fixtures: caches on a store of files. A test module takes them by ``pytest_plugins = ("made_cache",)``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from made_shards import CONTENT, PLENTY

from infra import store
from models.data.loading.cache import ShardCache


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "train-0.tar").write_bytes(CONTENT)
    return folder


@pytest.fixture
def open_cache(root: Path, tmp_path: Path) -> Iterator[Callable[..., ShardCache]]:
    """Makes caches on one folder, as ranks do; closes them at the end."""
    made: list[ShardCache] = []

    def make(cap_bytes: int = PLENTY) -> ShardCache:
        made.append(ShardCache(f"file://{root}", tmp_path / "cache", cap_bytes))
        return made[-1]

    yield make
    for cache in made:
        cache.close()


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Every range that is asked from the store, as it happens: name and first byte."""
    seen: list[tuple[str, int]] = []
    real = store.stream_range

    def counted(uri: str, start: int, length: int, of: int) -> Iterator[bytes]:
        seen.append((uri.rpartition("/")[2], start))
        return real(uri, start, length, of)

    monkeypatch.setattr(store, "stream_range", counted)
    return seen
