"""Made-up shards that are no tars: a cache does not look into them."""

from __future__ import annotations

from pathlib import Path

from blake3 import blake3

from models.data.shards.manifest import Shard

CONTENT = bytes(range(256)) * 40
PLENTY = 10**9


def shard_of(data: bytes, name: str = "train-0.tar") -> Shard:
    return Shard(name, "train", 1, len(data), blake3(data).hexdigest())


def numbered(number: int) -> bytes:
    return number.to_bytes(2, "big") * 5000


def left(folder: Path) -> list[str]:
    """What lies in the cache folder beside its lock."""
    return sorted(path.name for path in folder.iterdir() if path.name != "cache.lock")


def many(root: Path, count: int) -> list[Shard]:
    """Shards of 10,000 bytes each."""
    for number in range(count):
        (root / f"train-{number}.tar").write_bytes(numbered(number))
    return [shard_of(numbered(number), f"train-{number}.tar") for number in range(count)]
