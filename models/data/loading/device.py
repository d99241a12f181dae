"""Batches on their way to the device: the next one is copied while the last one is computed with."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from models.data.loading.loader import Batch


def to_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """The same batches on ``device``; on a CPU they pass as they are.

    On a GPU each is copied on a stream of its own, one batch ahead. The consumer's stream waits for the copy, the
    host does not. The pinned memory that is copied from is kept until the copy is over.
    """
    if device.type != "cuda":
        yield from batches
        return
    copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    pending: deque[_Copy] = deque()
    for batch in batches:
        pending.append(_sent(batch, device, copies))
        if len(pending) > 1:
            yield _arrived(pending.popleft(), device)
    while pending:
        yield _arrived(pending.popleft(), device)


@dataclass(frozen=True)
class _Copy:
    """A batch on its way."""

    here: Batch  # pinned memory, which must stay until ``done``
    there: Batch
    done: torch.cuda.Event


def _sent(batch: Batch, device: torch.device, copies: torch.cuda.Stream) -> _Copy:
    with torch.cuda.stream(copies):
        images, labels = (t.to(device, non_blocking=True) for t in (batch.images, batch.labels))
        there = Batch(images, labels, batch.ids)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record(copies)
    return _Copy(batch, there, done)


def _arrived(copy: _Copy, device: torch.device) -> Batch:
    consumer = torch.cuda.current_stream(device)
    consumer.wait_event(copy.done)
    for tensor in (copy.there.images, copy.there.labels):
        tensor.record_stream(consumer)  # else its memory could be given to the next copy while it is read
    copy.done.synchronize()  # a batch was computed meanwhile, so this waits for nothing
    return copy.there
