"""Progress of a training job, published as two objects in its run folder: status.json and metrics.jsonl.

The object store is the only channel that is available everywhere (laptop, Slurm, Kubernetes). The supervisor of the
job reads these objects, updates MLflow and the display from them, and gives them precedence over exit codes.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

from infra import store
from infra.errors import EffnetError

log = logging.getLogger("effnet")
PERIOD_S = 1.0


class Progress:
    """Writes the newest status about once a second from a thread, so that a slow store does not delay training."""

    def __init__(self, job_uri: str) -> None:
        self.job_uri = job_uri
        self._status: dict[str, Any] = {}
        self._dirty = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._thread.start()

    def report(self, **fields: Any) -> None:
        """Merges ``fields`` into the status; returns immediately."""
        self._status = {**self._status, **fields, "time": time.time()}
        self._dirty.set()

    def finish(self, **fields: Any) -> None:
        """Writes the final status and returns when it is stored."""
        self._closed.set()
        self._dirty.set()
        self._thread.join()
        self._status = {**self._status, **fields, "time": time.time()}
        store.write_json(store.join(self.job_uri, "status.json"), self._status)

    def _run(self) -> None:
        while not self._closed.is_set():
            self._dirty.wait()
            self._dirty.clear()
            try:
                store.write_json(store.join(self.job_uri, "status.json"), self._status)
            except EffnetError as error:  # the next status includes everything in this one
                log.warning("status not written: %s", error)
            self._closed.wait(PERIOD_S)


def write_rows(job_uri: str, rows: Sequence[dict[str, float]]) -> None:
    """Replaces metrics.jsonl with all rows so far, one per line, in order."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    store.write(store.join(job_uri, "metrics.jsonl"), text.encode())
