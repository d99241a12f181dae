"""The ledger: which samples each step was made of. Optional; for proving that none is lost or read twice.

A line is ``{"step": 7, "ids": [[...], [...]]}``: ids of the training split, one list for each logical shard. Parts
lie in the run folder's ``ledger/``, one for each checkpoint; a checkpoint names the parts that lead to it, so what
was rolled back is in no ledger. At the end all of them become ``ledger.jsonl``, after a first line with the sha256
of the final weights, average and optimizer.
"""

from __future__ import annotations

import json

from infra import store
from models.data.loading.loader import Batch
from models.training.distributed import gather_objects


class Ledger:
    """What this rank has read since the last part."""

    def __init__(self, shards: int, stages: int = 1) -> None:
        self.shards, self.stages = shards, stages  # logical shards of this rank; ranks that read the same ones
        self._steps: list[tuple[int, list[list[int]]]] = []

    def note(self, step: int, batch: Batch) -> None:
        """Adds a finished step."""
        self._steps.append((step, batch.ids.reshape(self.shards, -1).tolist()))

    def forget(self) -> None:
        """Training goes back to the last checkpoint."""
        self._steps.clear()

    def part(self) -> str:
        """Lines of all ranks since the last part, on rank 0."""
        lines = []
        for ranks in zip(*gather_objects(self._steps)[:: self.stages], strict=True):
            steps, ids = zip(*ranks, strict=True)
            assert len(set(steps)) == 1  # noqa: S101 - our own invariant: ranks step together
            lines.append(json.dumps({"step": steps[0], "ids": [shard for rank in ids for shard in rank]}) + "\n")
        self._steps.clear()
        return "".join(lines)


def finish(job_uri: str, parts: list[str], rest: str, sha256: str) -> str:
    """Writes ``ledger.jsonl``; returns its uri.

    Args:
        job_uri: the run folder.
        parts: names in its ``ledger/``.
        rest: lines after the last part.
        sha256: of the final state.
    """
    uri = store.join(job_uri, "ledger.jsonl")
    texts = [store.read(store.join(job_uri, "ledger", name)).decode() for name in parts]
    store.write(uri, (json.dumps({"state_sha256": sha256}) + "\n" + "".join(texts) + rest).encode())
    return uri
