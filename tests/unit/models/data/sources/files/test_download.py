"""Downloads from a real server on this machine that supports ranges and breaks connections on demand."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from made_archives import data_settings
from serving import serving

from infra.errors import ConfigError, DataError, NotFoundError, TransientError
from models.data.sources import catalog
from models.data.sources.files import download
from models.data.sources.files.download import Download, fetch

CONTENT = os.urandom(5_000_000)
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


@dataclass
class Site:
    """The files of the server, and its behaviour."""

    url: str
    files: dict[str, bytes]
    ranges: bool = True
    break_after: list[int] = field(default_factory=list)  # bytes after which the next responses end
    codes: list[int] = field(default_factory=list)  # status codes of the next responses
    requests: list[str | None] = field(default_factory=list)  # Range of each request


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site("", {"/set.tgz": CONTENT})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requested = self.headers.get("Range")
            site.requests.append(requested)
            if site.codes:
                self.respond(site.codes.pop(0))
            elif self.path.startswith("/to/"):
                self.respond(302, [("Location", self.path.removeprefix("/to/"))])
            elif self.path not in site.files:
                self.respond(404)
            else:
                self.send(site.files[self.path], requested if site.ranges else None)

        def send(self, content: bytes, requested: str | None) -> None:
            start = int(requested.removeprefix("bytes=").rstrip("-")) if requested else 0
            if start >= len(content):
                self.respond(416, [("Content-Range", f"bytes */{len(content)}")])
                return
            self.send_response(206 if requested else 200)
            if requested:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            rest = content[start:]
            self.wfile.write(rest[: site.break_after.pop(0)] if site.break_after else rest)
            self.close_connection = True

        def respond(self, code: int, headers: list[tuple[str, str]] | None = None) -> None:
            self.send_response(code)
            for name, value in headers or []:
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.url = f"http://127.0.0.1:{server.server_port}"
    with serving(server):
        yield site


def fetch_file(site: Site, folder: Path, md5: str | None = MD5, path: str = "/set.tgz") -> tuple[Path, list[float]]:
    waits: list[float] = []
    return fetch(Download(f"{site.url}{path}", md5), folder, print, waits.append), waits


def test_a_file_is_downloaded_and_its_md5_verified(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, waits = fetch_file(site, tmp_path)
    assert path.read_bytes() == CONTENT
    assert waits == []
    assert list(tmp_path.iterdir()) == [path]
    assert "5,000,000 bytes, md5 as published" in capsys.readouterr().out


def test_an_existing_file_is_not_requested_again(site: Site, tmp_path: Path) -> None:
    fetch_file(site, tmp_path)
    fetch_file(site, tmp_path)
    assert len(site.requests) == 1


def test_another_file_of_that_name_is_refused_and_kept(site: Site, tmp_path: Path) -> None:
    (tmp_path / "set.tgz").write_bytes(b"mine")
    with pytest.raises(DataError, match="delete it and start again"):
        fetch_file(site, tmp_path)
    assert (tmp_path / "set.tgz").read_bytes() == b"mine"
    assert site.requests == []


def test_a_broken_download_resumes_at_the_last_byte(site: Site, tmp_path: Path) -> None:
    site.break_after = [1_000_000, 2_000_000]
    path, waits = fetch_file(site, tmp_path)
    assert path.read_bytes() == CONTENT
    assert site.requests == [None, "bytes=1000000-", "bytes=3000000-"]
    assert waits == [2.0, 2.0]  # delays do not grow while there is progress


def test_a_later_command_resumes_the_partial_file(site: Site, tmp_path: Path) -> None:
    site.break_after, site.codes = [3_000_000], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download, "TRIES", 1)
        with pytest.raises(TransientError, match=r"after 3,000,000 of 5,000,000 bytes.*3,000,000 bytes are kept"):
            fetch_file(site, tmp_path)
    assert (tmp_path / "set.tgz.part").stat().st_size == 3_000_000
    assert fetch_file(site, tmp_path)[0].read_bytes() == CONTENT
    assert site.requests[-1] == "bytes=3000000-"


def test_a_complete_partial_file_is_only_verified(site: Site, tmp_path: Path) -> None:
    (tmp_path / "set.tgz.part").write_bytes(CONTENT)
    assert fetch_file(site, tmp_path)[0].read_bytes() == CONTENT


def test_a_partial_file_longer_than_the_remote_one_is_discarded(site: Site, tmp_path: Path) -> None:
    (tmp_path / "set.tgz.part").write_bytes(CONTENT + b"more")
    assert fetch_file(site, tmp_path)[0].read_bytes() == CONTENT


def test_without_range_support_the_download_restarts(site: Site, tmp_path: Path) -> None:
    site.ranges, site.break_after = False, [1_000_000]
    assert fetch_file(site, tmp_path)[0].read_bytes() == CONTENT


def test_wrong_bytes_are_not_kept(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"has md5 {MD5}, the published md5 of .*/set.tgz is {'0' * 32}; start again"):
        fetch_file(site, tmp_path, "0" * 32)
    assert list(tmp_path.iterdir()) == []


def test_a_partial_file_of_other_content_fails_the_md5_check(site: Site, tmp_path: Path) -> None:
    (tmp_path / "set.tgz.part").write_bytes(bytes(1000))
    with pytest.raises(DataError, match="start again"):
        fetch_file(site, tmp_path)
    assert fetch_file(site, tmp_path)[0].read_bytes() == CONTENT


def test_a_file_without_a_published_md5_is_checked_by_its_length(site: Site, tmp_path: Path) -> None:
    site.break_after = [100]
    assert fetch_file(site, tmp_path, md5=None)[0].read_bytes() == CONTENT


def test_a_busy_server_is_retried_with_growing_delays(site: Site, tmp_path: Path) -> None:
    site.codes = [503, 429, 500]
    _, waits = fetch_file(site, tmp_path)
    assert waits == [2.0, 4.0, 8.0]


def test_a_server_that_stays_busy_is_a_transient_error(site: Site, tmp_path: Path) -> None:
    site.codes = [503] * 20
    with pytest.raises(TransientError, match=f"503 Service Unavailable after {download.TRIES} attempts") as caught:
        fetch_file(site, tmp_path)
    assert caught.value.exit_code == 75
    assert len(site.requests) == download.TRIES


def test_an_unreachable_server_is_a_transient_error(tmp_path: Path) -> None:
    with pytest.raises(TransientError, match="Connection refused"):
        fetch(Download("http://127.0.0.1:9/set.tgz"), tmp_path, print, lambda _: None)


@pytest.mark.parametrize(("code", "error"), [(404, NotFoundError), (410, NotFoundError), (403, ConfigError)])
def test_a_refusal_is_not_retried(code: int, error: type[Exception], site: Site, tmp_path: Path) -> None:
    site.codes = [code] * 3
    with pytest.raises(error, match=f"the server responds {code}"):
        fetch_file(site, tmp_path)
    assert len(site.requests) == 1


def test_redirects_are_followed_to_http_only(site: Site, tmp_path: Path) -> None:
    site.files["/to//set.tgz"] = b""
    assert fetch_file(site, tmp_path, path="/to//set.tgz")[0].read_bytes() == CONTENT
    secret = tmp_path / "secret"
    secret.write_text("not yours")
    for target in (f"file://{secret}", "ftp://127.0.0.1/x", "data:text/plain,x"):
        with pytest.raises((ConfigError, TransientError)):
            fetch(Download(f"{site.url}/to/{target}"), tmp_path / "new", print, lambda _: None)
    assert not list((tmp_path / "new").glob("*")) if (tmp_path / "new").exists() else True


def test_a_folder_that_cannot_be_written_is_a_config_error(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match=r"set\.tgz"):
        fetch_file(site, tmp_path / "file")


def test_all_files_of_a_set_are_downloaded(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.files |= {"/a.mat": b"a", "/b.mat": b"b"}
    files = (Download(f"{site.url}/set.tgz", MD5), Download(f"{site.url}/a.mat"), Download(f"{site.url}/b.mat"))
    monkeypatch.setitem(catalog.DATA_SETS, "flowers102", replace(catalog.DATA_SETS["flowers102"], downloads=files))
    paths = catalog.download(data_settings("flowers102", tmp_path / "new"), print)
    assert [path.name for path in paths] == ["set.tgz", "a.mat", "b.mat"]


@pytest.mark.parametrize("source", [name for name, row in catalog.DATA_SETS.items() if not row.downloads])
def test_a_set_without_a_public_address_prints_its_note(source: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        catalog.download(data_settings(source, tmp_path), print)
    assert caught.value.exit_code == 2
    assert str(caught.value) == catalog.DATA_SETS[source].note


@pytest.mark.parametrize("path", [None, Path("s3:/bucket/x")])
def test_a_download_needs_a_local_folder(path: Path | None) -> None:
    data = data_settings("cifar10", path)
    data.path = "s3://bucket/x" if path else None
    with pytest.raises(ConfigError, match=r"needs data\.path=FOLDER, a local folder"):
        catalog.download(data, print)


def test_an_unknown_source_is_refused_with_the_choices(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'cifar' is unknown; choices: .*cifar10"):
        catalog.download(data_settings("cifar", tmp_path), print)


def test_every_source_has_an_address_or_a_note() -> None:
    assert all(row.downloads or row.note for row in catalog.DATA_SETS.values())
    addresses = [file.url for row in catalog.DATA_SETS.values() for file in row.downloads]
    assert all(url.startswith(("https://", "http://")) for url in addresses)
