"""Format of checkpoints in the object store: atomic, in safetensors and JSON, never pickle.

A checkpoint after step 124 consists of these objects in ``checkpoints/`` of the run folder::

    step-00000124-1f0c9a2b.safetensors    weights, BN statistics, average, optimizer: flat tensors
    best-00000100-77ab3d10.safetensors    the average with the best minival accuracy, written when it changes
    step-00000124-1f0c9a2b.json           the manifest, written last and only if absent: size and sha256 of both
                                          objects, the position, and the digests of configuration, data and code

Names end with the first digits of the content's sha256, so no existing object is ever overwritten. Objects that no
manifest references are not part of a checkpoint. A resume uses the newest manifest whose objects verify.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import safetensors.torch
from torch import Tensor

from infra import store
from infra.errors import ArtifactError, DataError, NotFoundError, ResumeError
from models.training.supervision.faults import Faults

log = logging.getLogger("effnet")
FORMAT = 2
_CHUNK_BYTES = 4 * 2**20


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A verified checkpoint."""

    uri: str
    manifest: dict[str, Any]
    tensors: dict[str, Tensor]
    best: Tensor

    @property
    def step(self) -> int:
        """Number of finished steps."""
        return int(self.manifest["step"])


def write_object(job_uri: str, name: str, tensors: dict[str, Tensor], site: str, step: int, faults: Faults) -> Any:
    """Writes tensors as one safetensors object, streamed, and verifies the stored size.

    Args:
        job_uri: The run folder.
        name: Name of the object without the digest, such as ``step-00000124``.
        tensors: Flat tensors on the CPU.
        site: Prefix of the fault-injection sites in this call.
        step: Step of the checkpoint, for fault injection.
        faults: Injected faults, for tests.

    Returns:
        The object's entry in a manifest: name, bytes, sha256.

    Raises:
        TransientError, ConfigError: As in ``infra/store/__init__.py``.
        ArtifactError: The stored size differs from the number of bytes written.
    """
    parts = [_header(tensors), *(memoryview(t.numpy()).cast("B") for t in tensors.values())]  # type: ignore[arg-type]
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(part)
    total, sha256 = sum(map(len, parts)), hasher.hexdigest()
    entry: dict[str, Any] = {"name": f"{name}-{sha256[:8]}.safetensors", "bytes": total, "sha256": sha256}
    uri = _uri(job_uri, entry["name"])
    faults.at(f"{site}-open", step)
    with store.open_write(uri) as stream:
        for number, chunk in enumerate(_chunks(parts)):
            stream.write(chunk)
            if number == 0:
                faults.at(f"{site}-half", step)
    faults.at(f"{site}-done", step)
    if (stored := store.size(uri)) != total:
        raise ArtifactError(f"{uri}: wrote {total} bytes, but the store holds {stored}")
    return entry


def _header(tensors: dict[str, Tensor]) -> memoryview:
    """Builds the header of a safetensors file.

    The library's writer needs a second copy of all tensors in memory.

    Source: github.com/huggingface/safetensors, README, "Format".
    """
    entries, offset = {}, 0
    for name, tensor in tensors.items():
        if str(tensor.dtype) != "torch.float32":
            raise AssertionError(f"{name} is {tensor.dtype}")
        size = tensor.numel() * 4
        entries[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return memoryview(len(text).to_bytes(8, "little") + text)


def _chunks(parts: list[memoryview]) -> Iterator[memoryview]:
    for part in parts:
        for offset in range(0, len(part), _CHUNK_BYTES):
            yield part[offset : offset + _CHUNK_BYTES]


def write_manifest(job_uri: str, manifest: dict[str, Any], faults: Faults) -> str:
    """Writes the manifest, which completes a checkpoint; returns its URI.

    Args:
        job_uri: The run folder.
        manifest: ``step``, ``state`` and ``best`` (entries returned by ``write_object``), ``position``, ``identity``
            and ``layout``.
        faults: Injected faults, for tests.
    """
    step = manifest["step"]
    manifest = {"format": FORMAT, **manifest}
    manifest["sha256"] = _digest(manifest)
    uri = _uri(job_uri, manifest["state"]["name"].removesuffix(".safetensors") + ".json")
    faults.at("save-manifest", step)
    data = (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()
    if not store.write(uri, data, if_absent=True) and _read_manifest(uri) is None:
        store.write(uri, data)  # the existing one is damaged
    store.write(_uri(job_uri, "started.json"), b"{}\n", if_absent=True)
    faults.at("save-written", step)
    return uri


def prune(job_uri: str, keep: int, step: int, faults: Faults) -> None:
    """Deletes all but the newest ``keep`` checkpoints, and unreferenced objects up to ``step``."""
    # Later ones are damaged, or training would have resumed from them: they must not displace the newest valid one.
    manifests = [uri for uri in _newest_first(job_uri) if _step_of(uri) <= step]
    for uri in manifests[keep:]:
        faults.at("save-prune", step)
        store.delete(uri)  # the manifest first: without it the objects no longer form a checkpoint
    kept = [manifest for uri in manifests[:keep] if (manifest := _read_manifest(uri)) is not None]
    referenced = {_uri(job_uri, manifest[key]["name"]) for manifest in kept for key in ("state", "best")}
    for uri in _list_objects(job_uri):
        if uri.endswith(".safetensors") and uri not in referenced and _step_of(uri) <= step:
            faults.at("save-prune-object", step)
            store.delete(uri)
    faults.at("save-end", step)


def delete_after(job_uri: str, step: int) -> None:
    """Deletes checkpoints of steps after ``step``, because training rewinds and will write other ones."""
    for uri in _newest_first(job_uri):
        if _step_of(uri) > step:
            store.delete(uri)


def load_newest(job_uri: str, before: int | None = None) -> LoadedCheckpoint | None:
    """Loads the newest checkpoint that verifies; None if the job has never had one.

    Args:
        job_uri: The run folder.
        before: Maximum number of finished steps; None for no limit.

    Raises:
        ResumeError: There are or were checkpoints, but none verifies; training never starts over silently.
    """
    manifests = _newest_first(job_uri)
    for uri in manifests:
        if before is None or _step_of(uri) <= before:
            checkpoint = _load_verified(job_uri, uri)
            if checkpoint is not None:
                return checkpoint
    if before is None and (manifests or store.exists(_uri(job_uri, "started.json"))):
        raise ResumeError(
            f"none of the {len(manifests)} checkpoints in {job_uri}/checkpoints verifies; "
            "delete that folder to start over"
        )
    return None


def _uri(job_uri: str, name: str) -> str:
    return store.join(job_uri, "checkpoints", name)


def _list_objects(job_uri: str) -> list[str]:
    return store.list_uris(store.join(job_uri, "checkpoints"))


def _newest_first(job_uri: str) -> list[str]:
    return [u for u in reversed(_list_objects(job_uri)) if u.endswith(".json") and "/step-" in u]


def _step_of(uri: str) -> int:
    return int(uri.rpartition("/")[2].split("-")[1])


def _digest(manifest: dict[str, Any]) -> str:
    """Returns the sha256 of all other manifest keys; otherwise a corrupted step could go unnoticed."""
    text = json.dumps({k: v for k, v in manifest.items() if k != "sha256"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _read_manifest(uri: str) -> dict[str, Any] | None:
    """Reads a manifest; returns None and logs a warning if it is damaged."""
    try:
        manifest: dict[str, Any] = store.read_json(uri)
        if manifest["sha256"] == _digest(manifest) and manifest["format"] == FORMAT:
            return manifest
        problem = "its sha256 or format does not match"
    except (NotFoundError, DataError, KeyError, TypeError) as error:
        problem = str(error)
    log.warning("checkpoint %s is damaged (%s): falling back to an older one", uri, problem)
    return None


def _load_verified(job_uri: str, uri: str) -> LoadedCheckpoint | None:
    manifest = _read_manifest(uri)
    if manifest is None:
        return None
    loaded = []
    for key in ("state", "best"):
        entry = manifest[key]
        try:
            data = store.read(_uri(job_uri, entry["name"]))
        except NotFoundError:
            log.warning("checkpoint %s lacks %s: falling back to an older one", uri, entry["name"])
            return None
        if len(data) != entry["bytes"] or hashlib.sha256(data).hexdigest() != entry["sha256"]:
            log.warning("checkpoint %s: %s does not match its sha256: falling back to an older one", uri, entry["name"])
            return None
        loaded.append(safetensors.torch.load(data))
    return LoadedCheckpoint(uri, manifest, loaded[0], loaded[1]["best"])
