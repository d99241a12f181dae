"""A writable stream that becomes one S3 object: parts go up while the writer goes on, in bounded memory."""

from __future__ import annotations

import io
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

PARTS_IN_FLIGHT = 3


class MultipartStream(io.RawIOBase):
    """Holds at most ``part_bytes`` in hand and three parts on the way.

    The object appears at ``finish`` and not before; ``close`` neither finishes nor aborts, because tar and
    zip writers close what they are given even while an exception passes.
    """

    def __init__(self, client: Any, place: dict[str, str], part_bytes: int) -> None:
        self._client = client
        self._place = place
        self._part_bytes = part_bytes
        self._hand = bytearray()
        self._position = 0
        self._pool: ThreadPoolExecutor | None = None
        self._upload: dict[str, str] = {}
        self._on_the_way: set[Future[None]] = set()
        self._etags: list[str] = []  # by part number

    def writable(self) -> bool:
        """Always true."""
        return True

    def tell(self) -> int:
        """Bytes written so far."""
        return self._position

    def write(self, data: ReadableBuffer, /) -> int:
        """Takes all of ``data``; waits while three parts are on the way. Raises what an earlier part met."""
        view = memoryview(data).cast("B")
        for start in range(0, len(view), self._part_bytes):
            self._take(view[start : start + self._part_bytes])
        self._position += len(view)
        return len(view)

    def _take(self, piece: memoryview) -> None:
        room = self._part_bytes - len(self._hand)
        self._hand += piece[:room]
        if len(self._hand) == self._part_bytes:
            self._send()
            self._hand += piece[room:]

    def _send(self) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(PARTS_IN_FLIGHT, thread_name_prefix="part")
            created = self._client.create_multipart_upload(**self._place)
            self._upload = {**self._place, "UploadId": created["UploadId"]}
        body, self._hand = self._hand, bytearray()
        if len(self._on_the_way) >= PARTS_IN_FLIGHT:
            self._collect(FIRST_COMPLETED)
        self._etags.append("")
        self._on_the_way.add(self._pool.submit(self._put, len(self._etags), body))

    def _put(self, number: int, body: bytearray) -> None:
        answer = self._client.upload_part(**self._upload, PartNumber=number, Body=body)
        self._etags[number - 1] = answer["ETag"]

    def _collect(self, until: str) -> None:
        done, self._on_the_way = wait(self._on_the_way, return_when=until)
        for part in done:
            part.result()  # raises here what the upload of that part raised

    def finish(self) -> None:
        """Makes the object appear: one PUT when it is smaller than a part."""
        if self._pool is None:
            self._client.put_object(**self._place, Body=bytes(self._hand))
            return
        if self._hand:
            self._send()
        self._collect(ALL_COMPLETED)
        self._pool.shutdown()
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(self._etags, 1)]
        self._client.complete_multipart_upload(**self._upload, MultipartUpload={"Parts": parts})

    def abort(self) -> None:
        """Takes back every part; nothing was visible yet. May raise: the store can be gone by now."""
        if self._pool is None:
            return
        # A part that arrives after the abort would stay for ever, so the ones on the way come first.
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._upload:
            self._client.abort_multipart_upload(**self._upload)
