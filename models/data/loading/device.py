"""Copies batches to the device, the next one while the current one is in use."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from models.data.loading.loader import Batch


def to_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Yields the same batches on ``device``; on a CPU they are unchanged.

    On a GPU batches are copied on a separate stream, one batch ahead. The consumer's stream waits for the copy, the
    host does not. The pinned source memory is kept until the copy is complete.
    """
    if device.type != "cuda":
        yield from batches
        return
    copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    pending: deque[_Copy] = deque()
    for batch in batches:
        pending.append(_start_copy(batch, device, copies))
        if len(pending) > 1:
            yield _finish_copy(pending.popleft(), device)
    while pending:
        yield _finish_copy(pending.popleft(), device)


@dataclass(frozen=True)
class _Copy:
    """A batch being copied."""

    source: Batch  # pinned memory, which must be kept until ``done``
    target: Batch
    done: torch.cuda.Event


def _start_copy(batch: Batch, device: torch.device, copies: torch.cuda.Stream) -> _Copy:
    with torch.cuda.stream(copies):
        images, labels = (t.to(device, non_blocking=True) for t in (batch.images, batch.labels))
        target = Batch(images, labels, batch.ids)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record(copies)
    return _Copy(batch, target, done)


def _finish_copy(copy: _Copy, device: torch.device) -> Batch:
    consumer = torch.cuda.current_stream(device)
    consumer.wait_event(copy.done)
    for tensor in (copy.target.images, copy.target.labels):
        tensor.record_stream(consumer)  # else its memory could be reused for the next copy while it is read
    copy.done.synchronize()  # the consumer computed a batch in the meantime, so this does not wait
    return copy.target
