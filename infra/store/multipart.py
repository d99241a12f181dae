"""A writable stream to one S3 object: parts are uploaded while the caller writes, in bounded memory."""

from __future__ import annotations

import io
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

from infra.store import s3_errors

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

PARTS_IN_FLIGHT = 3


class _Body:
    """A part as a file-like object; avoids botocore's copy of bytes by sending slices of the buffer."""

    def __init__(self, data: bytearray) -> None:
        self._view = memoryview(data)
        self._at = 0

    def __len__(self) -> int:
        return len(self._view)

    def read(self, size: int = -1) -> memoryview:
        start = self._at
        self._at = len(self._view) if size < 0 else min(len(self._view), start + size)
        return self._view[start : self._at]

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._view)}[whence]
        return self._at

    def tell(self) -> int:
        return self._at


class MultipartStream(io.RawIOBase):
    """Buffers at most ``part_bytes`` and keeps at most three parts in flight.

    The object appears only at ``finish``; ``close`` neither finishes nor aborts, because tar and zip writers
    close their stream even while an exception propagates.
    """

    def __init__(self, client: Any, place: dict[str, str], part_bytes: int) -> None:
        self._client = client
        self._place = place
        self._part_bytes = part_bytes
        self._buffer = bytearray(part_bytes)
        self._filled = 0  # bytes of the buffer in use
        self._free: list[bytearray] = []  # buffers of uploaded parts; allocating one costs as much as filling it
        self._position = 0
        self._pool: ThreadPoolExecutor | None = None
        self._upload: dict[str, str] = {}
        self._in_flight: set[Future[None]] = set()
        self._etags: list[str] = []  # by part number

    def writable(self) -> bool:
        """Returns True."""
        return True

    def tell(self) -> int:
        """Returns the number of bytes written so far."""
        return self._position

    def write(self, data: ReadableBuffer, /) -> int:
        """Buffers all of ``data``; waits while three parts are in flight. Raises the error of an earlier part."""
        view = memoryview(data).cast("B")
        taken = 0
        while taken < len(view):
            piece = view[taken : taken + self._part_bytes - self._filled]
            self._buffer[self._filled : self._filled + len(piece)] = piece
            self._filled += len(piece)
            taken += len(piece)
            if self._filled == self._part_bytes:
                self._send(self._buffer)
                self._buffer = self._free.pop() if self._free else bytearray(self._part_bytes)
                self._filled = 0
        self._position += taken
        return taken

    def _send(self, body: bytearray) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(PARTS_IN_FLIGHT, thread_name_prefix="part")
            created = self._client.create_multipart_upload(**self._place)
            self._upload = {**self._place, "UploadId": created["UploadId"]}
        if len(self._in_flight) >= PARTS_IN_FLIGHT:
            self._collect(FIRST_COMPLETED)
        self._etags.append("")
        self._in_flight.add(self._pool.submit(self._put, len(self._etags), body))

    def _put(self, number: int, body: bytearray) -> None:
        answer = self._client.upload_part(**self._upload, PartNumber=number, Body=_Body(body))
        self._etags[number - 1] = answer["ETag"]
        self._free.append(body)

    def _collect(self, until: str) -> None:
        done, self._in_flight = wait(self._in_flight, return_when=until)
        for part in done:
            part.result()  # re-raises the error of that upload

    def finish(self) -> None:
        """Completes the object; one PUT if it is smaller than a part."""
        if self._pool is None:
            self._client.put_object(**self._place, Body=bytes(self._buffer[: self._filled]))
            return
        if self._filled:
            self._send(self._buffer[: self._filled])
        self._collect(ALL_COMPLETED)
        self._pool.shutdown()
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(self._etags, 1)]
        try:
            self._client.complete_multipart_upload(**self._upload, MultipartUpload={"Parts": parts})
        except self._client.exceptions.ClientError as error:
            if not self._was_completed(error):
                raise

    def _was_completed(self, error: Any) -> bool:
        """Whether botocore's retry met the object that its first try completed, if only the answer was lost."""
        if s3_errors.error_code(error) != "NoSuchUpload" or not error.response["ResponseMetadata"].get("RetryAttempts"):
            return False
        return bool(self._client.head_object(**self._place)["ContentLength"] == self._position)

    def abort(self) -> None:
        """Deletes all uploaded parts, none of which was visible. May raise if the store no longer answers."""
        if self._pool is None:
            return
        # A part that arrives after the abort would stay forever, so wait for those in flight first.
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._upload:
            self._client.abort_multipart_upload(**self._upload)
