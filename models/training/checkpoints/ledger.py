"""The ledger: the sample ids of each training step. Optional; proves that no sample is lost or read twice.

A line is ``{"step": 7, "ids": [[...], [...]]}``: ids of the training split, one list per batch slice. Parts are
stored in the run folder's ``ledger/``, one per checkpoint; a checkpoint references the parts that lead to it, so
steps that were rolled back are in no ledger. At the end all parts are joined into ``ledger.jsonl``, after a first line
with the sha256 of the final weights, average and optimizer.
"""

from __future__ import annotations

import json

from infra import store
from models.data.loading.loader import Batch
from models.training.distributed import gather_objects


class Ledger:
    """The samples that this rank has read since the last part."""

    def __init__(self, slices: int, stages: int = 1) -> None:
        self.slices, self.stages = slices, stages  # batch slices of this rank; ranks that read the same slices
        self._steps: list[tuple[int, list[list[int]]]] = []

    def note(self, step: int, batch: Batch) -> None:
        """Adds a finished step."""
        self._steps.append((step, batch.ids.reshape(self.slices, -1).tolist()))

    def forget(self) -> None:
        """Drops the recorded steps, because training rewinds to the last checkpoint."""
        self._steps.clear()

    def part(self) -> str:
        """Returns the lines of all ranks since the last part on rank 0, and an empty string elsewhere."""
        lines = []
        for ranks in zip(*gather_objects(self._steps)[:: self.stages], strict=True):
            steps, ids = zip(*ranks, strict=True)
            assert len(set(steps)) == 1  # noqa: S101 - internal invariant: ranks step together
            lines.append(json.dumps({"step": steps[0], "ids": [part for rank in ids for part in rank]}) + "\n")
        self._steps.clear()
        return "".join(lines)


def finish(job_uri: str, parts: list[str], rest: str, sha256: str) -> str:
    """Writes ``ledger.jsonl``; returns its URI.

    Args:
        job_uri: The run folder.
        parts: Names of the parts in ``ledger/``.
        rest: Lines after the last part.
        sha256: Digest of the final state.
    """
    uri = store.join(job_uri, "ledger.jsonl")
    texts = [store.read(store.join(job_uri, "ledger", name)).decode() for name in parts]
    store.write(uri, (json.dumps({"state_sha256": sha256}) + "\n" + "".join(texts) + rest).encode())
    return uri
