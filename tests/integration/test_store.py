"""``infra/store/__init__.py`` against a real SeaweedFS and the real file system; most tests run on both."""

from __future__ import annotations

import dataclasses
import errno
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import IO, Any

import boto3
import fault_proxy
import pytest
from botocore.exceptions import ClientError

from infra import store
from infra.errors import ConfigError, DataError, NotFoundError, TransientError
from infra.store import client, s3_errors
from infra.store.multipart import MultipartStream

MIB = 2**20
both = pytest.mark.parametrize("kind", ["file", pytest.param("s3", marks=pytest.mark.services)])


@pytest.fixture
def root(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty place of the kind that the test is parametrised with."""
    if kind == "file":
        return f"file://{tmp_path}/store"
    return store.join(request.getfixturevalue("object_store"), tmp_path.name)


@both
def test_what_is_written_is_read_back(root: str) -> None:
    uri = store.join(root, "a", "b.bin")
    data = os.urandom(100_000)
    assert store.write(uri, data)
    assert store.read(uri) == data
    assert store.size(uri) == len(data)
    assert store.exists(uri)
    assert store.read_range(uri, 1000, 77) == data[1000:1077]


@both
def test_a_range_beyond_the_end_is_a_data_error(root: str) -> None:
    uri = store.join(root, "short")
    store.write(uri, b"12345")
    with pytest.raises(DataError, match="short"):
        store.read_range(uri, 3, 10)
    with pytest.raises(DataError, match="short"):
        store.read_range(uri, 50, 1)


@both
def test_a_missing_object_is_not_found_and_its_name_is_told(root: str, tmp_path: Path) -> None:
    uri = store.join(root, "nowhere", "thing")
    assert not store.exists(uri)
    for attempt in (store.read, store.size, store.read_json, lambda u: store.download(u, tmp_path / "copy")):
        with pytest.raises(NotFoundError, match="nowhere/thing"):
            attempt(uri)
    assert not (tmp_path / "copy").exists()
    store.delete(uri)  # fine


@both
def test_of_many_writers_at_once_exactly_one_creates_the_object(root: str) -> None:
    uri = store.join(root, "lock")
    gate = threading.Barrier(8)

    def attempt(writer: int) -> bool:
        gate.wait()
        return store.write(uri, b"writer %d" % writer, if_absent=True)

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(attempt, range(8)))
    assert won.count(True) == 1
    assert store.read(uri) == b"writer %d" % won.index(True)


@both
def test_a_folder_is_listed_sorted_and_without_its_namesakes(root: str) -> None:
    for name in ("run/b", "run/a/deep", "run2/x", "runner"):
        store.write(store.join(root, name), b"x")
    assert store.list_uris(store.join(root, "run")) == [f"{root}/run/a/deep", f"{root}/run/b"]
    assert store.list_uris(store.join(root, "none")) == []


@both
def test_deleting_a_folder_spares_its_namesakes(root: str) -> None:
    for name in ("run/b", "run/a/deep", "run2/x"):
        store.write(store.join(root, name), b"x")
    assert store.delete_prefix(store.join(root, "run")) == 2
    assert store.list_uris(root) == [f"{root}/run2/x"]
    store.delete(store.join(root, "run2/x"))
    assert store.list_uris(root) == []


@pytest.mark.parametrize("uri", ["s3://bucket", "s3://bucket/", "file:///"])
def test_a_whole_bucket_or_disk_is_never_deleted(uri: str) -> None:
    with pytest.raises(ConfigError, match="not deleted"):
        store.delete_prefix(uri)


@both
def test_equal_objects_become_equal_json_bytes(root: str) -> None:
    one, two = store.join(root, "1.json"), store.join(root, "2.json")
    store.write_json(one, {"b": [1, 2.5], "a": None})
    store.write_json(two, {"a": None, "b": [1, 2.5]})
    assert store.read(one) == store.read(two)
    assert store.read_json(one) == {"a": None, "b": [1, 2.5]}
    store.write(one, b"{half")
    with pytest.raises(DataError, match=r"1\.json: not JSON"):
        store.read_json(one)


@both
def test_a_file_of_several_parts_arrives_unchanged(root: str, tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(os.urandom(40 * MIB + 1))
    store.upload(source, store.join(root, "large"))
    store.download(store.join(root, "large"), copy)
    assert copy.read_bytes() == source.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["copy", "source"]


@both
def test_a_stream_that_breaks_off_leaves_nothing(root: str, kind: str) -> None:
    uri = store.join(root, "broken")

    def write_and_fail() -> None:
        with store.open_write(uri, part_bytes=5 * MIB) as stream:
            stream.write(os.urandom(12 * MIB))
            stream.close()  # as a tar writer does while an exception passes
            raise RuntimeError("decoder failed")

    with pytest.raises(RuntimeError, match="decoder failed"):
        write_and_fail()
    assert store.list_uris(root) == []
    if kind == "file":
        assert list(Path(root.removeprefix("file://")).iterdir()) == []
    else:
        client = boto3.client("s3")
        assert "Uploads" not in client.list_multipart_uploads(Bucket="effnet")


@pytest.mark.services
@pytest.mark.parametrize("mode", ["cut", "reset"])
def test_a_body_that_breaks_off_is_asked_for_again(
    mode: str, object_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, data = store.join(object_store, tmp_path.name, "body"), os.urandom(3 * MIB)
    store.write(uri, data)
    with closing(fault_proxy.through(monkeypatch)) as proxy:
        proxy.fail(mode, 2)
        assert store.read(uri) == data
        proxy.fail(mode, 2)
        assert store.read_range(uri, MIB, MIB) == data[MIB : 2 * MIB]
        proxy.fail(mode, 2)
        store.download(uri, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == data
        monkeypatch.setattr(client, "PATIENT", dataclasses.replace(client.PATIENT, tries=2))
        proxy.fail(mode)
        with pytest.raises(TransientError, match="does not answer"):
            store.read(uri)


@pytest.mark.services
def test_an_upload_whose_last_answer_is_lost_has_happened(
    object_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source := tmp_path / "large").write_bytes(os.urandom(11 * MIB))
    uri = store.join(object_store, tmp_path.name, "completed")
    with closing(fault_proxy.through(monkeypatch)) as proxy:
        proxy.lose_completions = 1
        store.upload(source, uri)
        completions = [path for method, path in proxy.written if method == "POST" and "uploadId=" in path]
        assert len(completions) == 2
        assert store.read(uri) == source.read_bytes()


class _SlowStore:
    """Stands in for the S3 client: counts how many parts are on the way."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.parts: dict[int, bytes] = {}
        self.done: list[Any] = []
        self._lock = threading.Lock()

    def create_multipart_upload(self, **_: Any) -> dict[str, str]:
        return {"UploadId": "u"}

    def upload_part(self, *, PartNumber: int, Body: IO[bytes], **_: Any) -> dict[str, str]:  # noqa: N803
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.01)
        with self._lock:
            self.now -= 1
        self.parts[PartNumber] = bytes(Body.read())
        return {"ETag": str(PartNumber)}

    def complete_multipart_upload(self, *, MultipartUpload: Any, **_: Any) -> None:  # noqa: N803
        self.done = MultipartUpload["Parts"]


def test_a_stream_takes_pieces_of_any_size_and_their_buffers_may_be_used_again() -> None:
    client, data = _SlowStore(), os.urandom(50_000)
    stream, buffer, taken = MultipartStream(client, {}, part_bytes=4096), bytearray(9000), 0
    for size in (9000, 1, 4096, 8999, 0, 5000, 22_904):
        for start in range(0, size, 9000):
            part = data[taken : taken + min(9000, size - start)]
            buffer[: len(part)] = part
            stream.write(memoryview(buffer)[: len(part)])
            taken += len(part)
    stream.finish()
    assert taken == stream.tell() == len(data)
    assert b"".join(client.parts[number] for number in sorted(client.parts)) == data


def test_a_stream_keeps_at_most_three_parts_on_the_way_and_their_order() -> None:
    client, data = _SlowStore(), os.urandom(10_007)
    stream = MultipartStream(client, {}, part_bytes=1000)
    for start in range(0, len(data), 333):
        assert stream.write(data[start : start + 333]) == len(data[start : start + 333])
    assert stream.tell() == len(data)
    stream.finish()
    assert client.most == 3
    assert [part["PartNumber"] for part in client.done] == list(range(1, 12))
    assert b"".join(client.parts[number] for number in range(1, 12)) == data


@pytest.mark.services
def test_more_than_one_page_of_objects_is_listed_and_deleted(object_store: str, tmp_path: Path) -> None:
    root = store.join(object_store, tmp_path.name)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda i: store.write(f"{root}/{i:04}", b""), range(1005)))
    assert store.list_uris(root) == [f"{root}/{i:04}" for i in range(1005)]
    assert store.delete_prefix(root) == 1005
    assert store.list_uris(root) == []


@pytest.mark.services
@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_keys_are_a_config_error_that_hides_them(
    object_store: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "wrong-and-private")
    for attempt in (store.read, store.exists, lambda u: store.write(u, b"x"), store.ensure_root):
        with pytest.raises(ConfigError, match="AWS_SECRET_ACCESS_KEY") as caught:
            attempt(f"{object_store}/thing")
        assert "private" not in str(caught.value)


def test_missing_keys_are_a_config_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="no usable credentials"):
        store.read("s3://effnet/thing")


@pytest.mark.services
def test_a_missing_bucket_is_a_config_error_and_can_be_made(object_store: str) -> None:
    with pytest.raises(ConfigError, match="no bucket 'another'"):
        store.write("s3://another/thing", b"x")
    for _ in range(2):
        store.ensure_root("s3://another/folder")
    store.write("s3://another/thing", b"x")


@pytest.mark.parametrize("uri", ["http://host/x", "relative/path", "file://relative", "s3://", ""])
def test_other_schemes_are_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match="neither s3"):
        store.read(uri)


def test_a_part_of_a_uri_may_not_leave_its_root() -> None:
    assert store.join("s3://b/", "x", "/y/", "z") == "s3://b/x/y/z"
    with pytest.raises(ConfigError, match="may not leave"):
        store.join("s3://b/data", "../secrets")


def test_a_dead_store_is_a_transient_error_in_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    before = time.monotonic()
    with pytest.raises(TransientError, match=r"http://127\.0\.0\.1:9 does not answer.*`effnet up`"):
        store.read("s3://effnet/thing")
    assert time.monotonic() - before < 15


@pytest.mark.parametrize("status", [500, 503])
def test_an_overloaded_store_is_a_transient_error(status: int) -> None:
    answer = {"Error": {"Code": "Any"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    assert isinstance(s3_errors.translate_error(ClientError(answer, "GetObject"), "s3://b/k"), TransientError)


def test_a_full_disk_is_a_config_error_and_leaves_no_partial_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match=r"disk full: .*thing"):
        store.write(f"file://{tmp_path}/thing", b"x")
    assert list(tmp_path.iterdir()) == []
