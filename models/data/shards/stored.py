"""The result of a complete data set, as it stands in the object store."""

from __future__ import annotations

from conf import schema
from infra import store
from models.data.shards import layout, manifest, states
from models.data.shards.layout import ShardLayout
from models.data.shards.manifest import Manifest
from models.data.sources import catalog
from models.results import ShardResult


def find_result(data: schema.Data, storage: str) -> ShardResult | None:
    """Returns the result of ``effnet shard`` if the store has it, None otherwise; writes nothing.

    The source is opened, unless it grows: then the files must be as they were when a command sharded them, and no image
    is read.

    Raises:
        ConfigError: The source does not exist, or the store refuses the credentials.
        DataError: The source has no images for a split.
        TransientError: The store does not answer.
    """
    if not catalog.find(data.source).grows:
        return load_result(data, layout.plan(data, storage))
    uri = states.find(data, store.join(storage, "data", data.name))
    return None if uri is None else _load(data, uri)


def find_last_result(data: schema.Data, storage: str) -> ShardResult | None:
    """As ``find_result``, but of a set that grows as it was sharded last, whatever its files are now."""
    if not catalog.find(data.source).grows:
        return find_result(data, storage)
    uri = states.find_last(data, store.join(storage, "data", data.name))
    return None if uri is None else _load(data, uri)


def load_result(data: schema.Data, planned: ShardLayout) -> ShardResult | None:
    """As ``find_result``, of a layout that is known."""
    return _load(data, planned.manifest_uri) if store.exists(planned.manifest_uri) else None


def _load(data: schema.Data, uri: str) -> ShardResult:
    sha256, complete = manifest.load(uri)
    return build_result(data, uri, sha256, complete, reused=True)


def build_result(data: schema.Data, uri: str, sha256: str, complete: Manifest, *, reused: bool) -> ShardResult:
    """Counts a complete data set, without the shards that ``data.leave_out`` excludes."""
    kept = manifest.exclude_shards(complete, data.leave_out)
    counts = {split: kept.samples(split) for split in ("train", "minival", "val")}
    return ShardResult(
        kept.name,
        uri,
        sha256,
        len(kept.classes),
        **counts,
        shards=len(kept.shards),
        reused=reused,
        quarantined=len(kept.quarantine),
        missing=kept.missing,
        left_out=tuple(sorted(set(data.leave_out))),
        unused=kept.unused,
        class_differences=kept.class_differences,
        duplicates=kept.duplicates,
    )
