"""Checkpoints in the object store: complete or absent, safetensors and JSON, never pickle.

Below ``checkpoints/`` of a run folder lie, for a checkpoint after step 124::

    step-00000124-1f0c9a2b.safetensors    weights, BN statistics, average, optimizer: flat tensors
    best-00000100-77ab3d10.safetensors    the average with the best minival accuracy, written when there is a new one
    step-00000124-1f0c9a2b.json           the manifest, written last and only where there is none: size and sha256 of
                                          both, the position, and the digests of configuration, data and code

Names end with the beginning of the content's sha256, so nothing that is there is ever written over. What no manifest
names is no checkpoint. A resume takes the newest manifest whose objects verify.
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
    """A checkpoint that verified."""

    uri: str
    manifest: dict[str, Any]
    tensors: dict[str, Tensor]
    best: Tensor

    @property
    def step(self) -> int:
        """Finished steps."""
        return int(self.manifest["step"])


def write_object(job_uri: str, name: str, tensors: dict[str, Tensor], site: str, step: int, faults: Faults) -> Any:
    """Writes tensors as one safetensors object, streamed, and looks that all of it arrived.

    Args:
        job_uri: the run folder.
        name: of the object without the digest, e.g. ``step-00000124``.
        tensors: flat, on the CPU.
        site: name of this point for fault tests.
        step: of the checkpoint, for fault tests.
        faults: for tests.

    Returns:
        its entry for a manifest: name, bytes, sha256.

    Raises:
        TransientError, ConfigError: as ``infra/store/__init__.py``.
        ArtifactError: the store holds another number of bytes than it was given.
    """
    pieces = [_header(tensors), *(memoryview(t.numpy()).cast("B") for t in tensors.values())]  # type: ignore[arg-type]
    whole = hashlib.sha256()
    for piece in pieces:
        whole.update(piece)
    total, sha256 = sum(map(len, pieces)), whole.hexdigest()
    entry: dict[str, Any] = {"name": f"{name}-{sha256[:8]}.safetensors", "bytes": total, "sha256": sha256}
    uri = _uri(job_uri, entry["name"])
    faults.at(f"{site}-open", step)
    with store.open_write(uri) as stream:
        for number, chunk in enumerate(_chunks(pieces)):
            stream.write(chunk)
            if number == 0:
                faults.at(f"{site}-half", step)
    faults.at(f"{site}-done", step)
    if (found := store.size(uri)) != total:
        raise ArtifactError(f"{uri}: {total} bytes were written, {found} are there")
    return entry


def _header(tensors: dict[str, Tensor]) -> memoryview:
    """The head of a safetensors file. Source: github.com/huggingface/safetensors, README, "Format".

    Their own writer wants a second copy of all tensors in memory.
    """
    entries, at = {}, 0
    for name, tensor in tensors.items():
        if str(tensor.dtype) != "torch.float32":
            raise AssertionError(f"{name} is {tensor.dtype}")
        size = tensor.numel() * 4
        entries[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return memoryview(len(text).to_bytes(8, "little") + text)


def _chunks(pieces: list[memoryview]) -> Iterator[memoryview]:
    for piece in pieces:
        for at in range(0, len(piece), _CHUNK_BYTES):
            yield piece[at : at + _CHUNK_BYTES]


def write_manifest(job_uri: str, manifest: dict[str, Any], faults: Faults) -> str:
    """Makes the objects a checkpoint; returns the manifest's uri.

    Args:
        job_uri: the run folder.
        manifest: ``step``, ``state`` and ``best`` (entries of ``write_object``), ``position``, ``identity`` and
            ``layout``.
        faults: for tests.
    """
    step = manifest["step"]
    manifest = {"format": FORMAT, **manifest}
    manifest["sha256"] = _digest(manifest)
    uri = _uri(job_uri, manifest["state"]["name"].removesuffix(".safetensors") + ".json")
    faults.at("save-manifest", step)
    data = (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()
    if not store.write(uri, data, if_absent=True) and _manifest(uri) is None:
        store.write(uri, data)  # what was there was damaged
    store.write(_uri(job_uri, "started.json"), b"{}\n", if_absent=True)
    faults.at("save-written", step)
    return uri


def prune(job_uri: str, keep: int, step: int, faults: Faults) -> None:
    """Deletes all but the newest ``keep`` checkpoints, and objects up to ``step`` that none of those names."""
    # Later ones are damaged, else training had gone on from them: they must not crowd out what was just written.
    manifests = [uri for uri in _newest_first(job_uri) if _step_of(uri) <= step]
    for uri in manifests[keep:]:
        faults.at("save-prune", step)
        store.delete(uri)  # the manifest first: without it the objects are no checkpoint any more
    kept = [found for uri in manifests[:keep] if (found := _manifest(uri)) is not None]
    named = {_uri(job_uri, each[key]["name"]) for each in kept for key in ("state", "best")}
    for uri in _objects(job_uri):
        if uri.endswith(".safetensors") and uri not in named and _step_of(uri) <= step:
            faults.at("save-prune-object", step)
            store.delete(uri)
    faults.at("save-end", step)


def delete_after(job_uri: str, step: int) -> None:
    """Deletes the checkpoints of later steps: training goes back and will come here again another way."""
    for uri in _newest_first(job_uri):
        if _step_of(uri) > step:
            store.delete(uri)


def load_newest(job_uri: str, before: int | None = None) -> LoadedCheckpoint | None:
    """The newest checkpoint that verifies; None where a job has never had one.

    Args:
        job_uri: the run folder.
        before: only those of at most so many steps.

    Raises:
        ResumeError: there are or were checkpoints, but not one verifies; training never starts over in silence.
    """
    found = _newest_first(job_uri)
    for uri in found:
        if before is None or _step_of(uri) <= before:
            saved = _verified(job_uri, uri)
            if saved is not None:
                return saved
    if before is None and (found or store.exists(_uri(job_uri, "started.json"))):
        raise ResumeError(
            f"none of the {len(found)} checkpoints in {job_uri}/checkpoints verifies; delete that folder to start over"
        )
    return None


def _uri(job_uri: str, name: str) -> str:
    return store.join(job_uri, "checkpoints", name)


def _objects(job_uri: str) -> list[str]:
    return store.list_uris(store.join(job_uri, "checkpoints"))


def _newest_first(job_uri: str) -> list[str]:
    return [u for u in reversed(_objects(job_uri)) if u.endswith(".json") and "/step-" in u]


def _step_of(uri: str) -> int:
    return int(uri.rpartition("/")[2].split("-")[1])


def _digest(manifest: dict[str, Any]) -> str:
    """Of all else in the manifest: a flipped digit of the step would resume elsewhere in silence."""
    text = json.dumps({k: v for k, v in manifest.items() if k != "sha256"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _manifest(uri: str) -> dict[str, Any] | None:
    """None where it is damaged."""
    try:
        manifest: dict[str, Any] = store.read_json(uri)
        if manifest["sha256"] == _digest(manifest) and manifest["format"] == FORMAT:
            return manifest
        problem = "its sha256 or format is another"
    except (NotFoundError, DataError, KeyError, TypeError) as error:
        problem = str(error)
    log.warning("checkpoint %s is damaged (%s): an older one is used", uri, problem)
    return None


def _verified(job_uri: str, uri: str) -> LoadedCheckpoint | None:
    manifest = _manifest(uri)
    if manifest is None:
        return None
    loaded = []
    for key in ("state", "best"):
        entry = manifest[key]
        try:
            data = store.read(_uri(job_uri, entry["name"]))
        except NotFoundError:
            log.warning("checkpoint %s lacks %s: an older one is used", uri, entry["name"])
            return None
        if len(data) != entry["bytes"] or hashlib.sha256(data).hexdigest() != entry["sha256"]:
            log.warning("checkpoint %s: %s does not match its sha256: an older one is used", uri, entry["name"])
            return None
        loaded.append(safetensors.torch.load(data))
    return LoadedCheckpoint(uri, manifest, loaded[0], loaded[1]["best"])
