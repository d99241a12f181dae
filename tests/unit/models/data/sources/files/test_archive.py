"""Index of tars compared with ``tarfile``; compressed archives; rejected and ignored members."""

import bz2
import gzip
import io
import lzma
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checkout import REAL_DATA, ROOT
from matrix import with_slow_rest

from infra.errors import ConfigError, DataError, NotFoundError
from models.data.sources.files import archive, decompress, tar
from models.data.sources.files.container import Container
from models.data.sources.files.tar import read_members

REAL = REAL_DATA
real_images = pytest.mark.skipif(not REAL.is_dir(), reason="no real images: ../shared/data is absent")


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "archives"


def tar_of(files: dict[str, bytes], format: int = tarfile.USTAR_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as writer:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            writer.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def one_member(**changes: object) -> bytes:
    """Returns a tar of one empty member with the given header fields."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as writer:
        info = tarfile.TarInfo("a/b.jpg")
        for key, value in changes.items():
            setattr(info, key, value)
        writer.addfile(info)
    return buffer.getvalue()


def index_of(data: bytes) -> list[tar.Member]:
    return read_members(lambda position, length: data[position : position + length], "x.tar", 0, len(data))


LONG = "a/" + "long-name/" * 15 + "image.jpg"


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_and_bytes_equal_those_of_tarfile(format: int) -> None:
    data = tar_of({"a/1.jpg": b"x" * 700, "./a/2.jpg": b"", LONG: b"y" * 512, "b/3.png": os.urandom(1025)}, format)
    with tarfile.open(fileobj=io.BytesIO(data)) as reader:
        expected = [(i.name.removeprefix("./"), reader.extractfile(i).read()) for i in reader]  # type: ignore[union-attr]
    assert [(name, data[offset : offset + size]) for name, offset, size in index_of(data)] == expected


@real_images
@pytest.mark.parametrize("name", ["imagenet/ILSVRC2012_img_val.tar", "transfer/food-101-10x40.tar"])
def test_the_index_of_real_archives_equals_that_of_tarfile(name: str) -> None:
    container = Container(str(REAL / name))
    with tarfile.open(REAL / name) as reader:
        expected = [(i.name, i.offset_data, i.size) for i in reader if i.isfile()]
    assert read_members(container.read, name, 0, container.size) == expected


def test_binary_sizes_and_pax_sizes_are_supported() -> None:
    size = 10 * 2**30
    info = tarfile.TarInfo("big.jpg")
    info.size = size
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        header = info.tobuf(format)
        end = len(header) + size + 1024

        def read_at(position: int, length: int, header: bytes = header) -> bytes:
            return (header + bytes(length))[position : position + length] if position < len(header) else bytes(length)

        assert read_members(read_at, "x", 0, end) == [("big.jpg", len(header), size)]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: one_member(type=tarfile.SYMTYPE, linkname="/etc/passwd"), "is a symbolic link"),
        (lambda: one_member(type=tarfile.LNKTYPE, linkname="a"), "is a hard link"),
        (lambda: one_member(type=tarfile.CHRTYPE), "is a device"),
        (lambda: one_member(type=tarfile.BLKTYPE), "is a device"),
        (lambda: one_member(type=tarfile.FIFOTYPE), "is a pipe"),
        (lambda: one_member(type=tarfile.GNUTYPE_SPARSE), "is sparse"),
        (lambda: one_member(name="/etc/passwd"), "is outside the archive"),
        (lambda: one_member(name="a/../../b.jpg"), "is outside the archive"),
        (lambda: one_member(name="../b.jpg"), "is outside the archive"),
        (lambda: one_member(name="a/\x1b[2J.jpg"), "no official archive has a name like"),
        (lambda: one_member(name="a\\b.jpg"), "no official archive has a name like"),
        (lambda: one_member(name="x" * 2000), "no official archive has a name like"),
        (lambda: tar_of({"a": b"1"})[:1024] + tar_of({"a": b"2"}), "contains a twice"),
        (lambda: tar_of({"a": b"x" * 2000})[:1500], "truncated: a member extends to byte 2512 of 1500"),
        (lambda: tar_of({"a": b"x" * 512})[:1024], "truncated: no end marker"),
        (lambda: tar_of({"a": b"x" * 512})[:1200], "truncated: no end marker"),
        (lambda: b"\xff\xd8\xff" + bytes(2000), "no tar header at byte 0"),
        (lambda: tar_of({"a": b"x"}).replace(b"a\0", b"b\0", 1), "no tar header at byte 0"),
        (lambda: b"", "truncated: no end marker"),
    ],
)
def test_members_that_official_archives_do_not_have_are_refused(made: Callable[[], bytes], message: str) -> None:
    with pytest.raises(DataError, match=message.replace("(", r"\(")):
        index_of(made())


def test_a_global_path_is_refused() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"path": "../../x"}) as writer:
        writer.addfile(tarfile.TarInfo("a"))
    with pytest.raises(DataError, match="a global path or size"):
        index_of(buffer.getvalue())


def test_a_pax_path_outside_the_archive_is_refused() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as writer:
        info = tarfile.TarInfo("a")
        info.pax_headers = {"path": "../../x"}
        writer.addfile(info)
    with pytest.raises(DataError, match="is outside the archive"):
        index_of(buffer.getvalue())


def test_too_many_members_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar, "MAX_MEMBERS", 3)
    with pytest.raises(DataError, match="more than 3 files"):
        index_of(tar_of({f"{i}.jpg": b"" for i in range(4)}))


def test_resource_forks_and_hidden_files_are_ignored() -> None:
    files = {"a/._1.jpg": b"", "a/.DS_Store": b"", "__MACOSX/1.jpg": b"", ".hidden": b"", "a/1.jpg": b"x"}
    assert [member.name for member in index_of(tar_of(files))] == ["a/1.jpg"]


def tar_of_tars(classes: dict[str, dict[str, bytes]]) -> bytes:
    return tar_of({f"{name}.tar": tar_of(files) for name, files in classes.items()})


def test_files_of_inner_tars_are_read_in_place(tmp_path: Path) -> None:
    classes = {f"n{c}": {f"n{c}_{i}.JPEG": os.urandom(100 + 700 * i) for i in range(4)} for c in range(20)}
    (tmp_path / "train.tar").write_bytes(tar_of_tars(classes))
    files = archive.archive_of_archives(str(tmp_path), "train.tar", "train/")
    expected = {f"train/{name}/{file}": data for name, inner in classes.items() for file, data in inner.items()}
    assert files.names == list(expected)
    reader = files.reader(range(len(files.names)))
    assert [reader(row) for row in range(len(files.names))] == list(expected.values())
    assert not (tmp_path / "cache").exists()  # nothing was copied


def test_a_member_that_extends_beyond_its_inner_tar_is_refused(tmp_path: Path) -> None:
    inner = tar_of({"1.JPEG": b"x" * 2000})[:1536]  # its header states 2,000 bytes, but the inner tar ends before
    (tmp_path / "train.tar").write_bytes(tar_of({"a.tar": inner, "b.tar": tar_of({"2.JPEG": b"y"})}))
    with pytest.raises(DataError, match=r"train.tar:a.tar is truncated"):
        archive.archive_of_archives(str(tmp_path), "train.tar")


def test_a_tar_of_tars_with_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.tar").write_bytes(tar_of({"a.jpg": b""}))
    with pytest.raises(DataError, match="must contain tars only"):
        archive.archive_of_archives(str(tmp_path), "train.tar")


def zip_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as writer:
        for name, content in files.items():
            writer.writestr(name, content)
    return buffer.getvalue()


CONTENT = {"a/1.jpg": os.urandom(3000), "a/2.jpg": b"", "b/3.jpg": os.urandom(512)}
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "x.tgz": gzip.compress,
    "x.tar.gz": gzip.compress,
    "x.tar.xz": lzma.compress,
    "x.tar.bz2": bz2.compress,
    "x.zip": lambda _: zip_of(CONTENT),
}


@pytest.mark.parametrize("name", PACKED)
def test_a_compressed_archive_has_the_files_of_the_plain_one(name: str, tmp_path: Path, scratch: Path) -> None:
    (tmp_path / name).write_bytes(PACKED[name](tar_of(CONTENT)))
    files = archive.open_files(str(tmp_path / name), ())
    assert {path: files.read(row) for row, path in enumerate(files.names)} == CONTENT
    assert len(list(scratch.glob("*.tar"))) == 1


@pytest.mark.parametrize("name", PACKED)
def test_a_truncated_compressed_archive_is_refused_and_leaves_no_file(name: str, tmp_path: Path, scratch: Path) -> None:
    whole = PACKED[name](tar_of(CONTENT))
    (tmp_path / name).write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(DataError, match="damaged or truncated"):
        archive.open_files(str(tmp_path / name), ())
    assert list(scratch.glob("*.tar")) == []
    assert list(scratch.glob(".*")) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "a.tgz is empty"), (gzip.compress(gzip.compress(tar_of({"a": b"x"}))), "is a gzip file within a gzip file")],
)
def test_an_empty_archive_and_one_that_is_compressed_twice_are_named(
    content: bytes, said: str, tmp_path: Path, scratch: Path
) -> None:
    (tmp_path / "a.tgz").write_bytes(content)
    with pytest.raises(DataError, match=said):
        archive.open_own(str(tmp_path / "a.tgz"))


def test_an_empty_name_of_the_cache_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFNET_CACHE", "")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.tgz").write_bytes(gzip.compress(tar_of({"a": b"x"})))
    archive.open_own("a.tgz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tgz", "runs"]


def test_an_archive_is_decompressed_once_and_again_after_a_change(tmp_path: Path, scratch: Path) -> None:
    path = tmp_path / "x.tgz"
    path.write_bytes(gzip.compress(tar_of({"1.jpg": b"one"})))
    archive.open_files(str(path), ())
    before = {file: file.stat().st_mtime_ns for file in scratch.glob("*.tar")}
    archive.open_files(str(path), ())
    assert {file: file.stat().st_mtime_ns for file in scratch.glob("*.tar")} == before
    path.write_bytes(gzip.compress(tar_of({"1.jpg": b"two!"})))
    assert archive.open_files(str(path), ()).read(0) == b"two!"


@pytest.mark.slow
def test_only_one_of_several_processes_decompresses(tmp_path: Path, scratch: Path) -> None:
    path = tmp_path / "x.tgz"
    path.write_bytes(gzip.compress(tar_of({"1.jpg": os.urandom(3_000_000)})))
    code = (
        "import logging, sys; logging.basicConfig(level=20)\nfrom models.data.sources.files import archive\n"
        f"print(len(archive.open_files({str(path)!r}, ()).read(0)))"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    outputs = [process.communicate(timeout=60) for process in started]
    assert [out.strip() for out, _ in outputs] == [b"3000000"] * 3
    assert sum(log.count(b"decompressing") for _, log in outputs) == 1
    assert len(list(scratch.glob("*.tar"))) == 1


@pytest.mark.parametrize("pack", with_slow_rest([gzip.compress, lzma.compress]))
def test_a_decompression_bomb_is_stopped_at_the_limit(
    pack: Callable[[bytes], bytes], tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decompress, "SMALL_BYTES", 2**20)
    path = tmp_path / ("x.tar.xz" if pack is lzma.compress else "x.tgz")
    path.write_bytes(pack(bytes(50 * 2**20)))
    with pytest.raises(DataError, match="decompress to more than"):
        archive.open_files(str(path), ())
    assert list(scratch.glob("*.tar")) == []


def test_a_zip_bomb_is_refused_by_its_stated_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decompress, "SMALL_BYTES", 2**20)
    (tmp_path / "x.zip").write_bytes(zip_of({"a.jpg": bytes(50 * 2**20)}))
    with pytest.raises(DataError, match="decompress to more than"):
        archive.open_files(str(tmp_path / "x.zip"), ())


def test_a_zip_whose_names_are_not_as_it_states_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(zip_of({"\u00e9.jpg": b"x"}).replace("\u00e9".encode(), b"\xff\xfe"))
    with pytest.raises(DataError, match=r"x\.zip"):
        archive.open_files(str(tmp_path / "x.zip"), ())


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as writer:
        info = zipfile.ZipInfo("a.jpg")
        info.external_attr = 0o120777 << 16
        writer.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match="is a symbolic link"):
        archive.open_files(str(tmp_path / "x.zip"), ())


def test_a_zip_path_outside_the_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(zip_of({"../a.jpg": b"x"}))
    with pytest.raises(DataError, match="is outside the archive"):
        archive.open_files(str(tmp_path / "x.zip"), ())


def test_archives_and_loose_files_form_one_tree(tmp_path: Path) -> None:
    (tmp_path / "images.tar.gz").write_bytes(gzip.compress(tar_of({"images/1.jpg": b"packed"})))
    (tmp_path / "set" / "images").mkdir(parents=True)
    (tmp_path / "set" / "images" / "1.jpg").write_bytes(b"loose")
    (tmp_path / "set" / "list.txt").write_bytes(b"1")
    (tmp_path / ".hidden").write_bytes(b"")
    files = archive.open_files(str(tmp_path), ("images.tar.gz",))
    assert sorted(files.names) == ["images/1.jpg", "set/images/1.jpg", "set/list.txt"]
    assert files.read(files.folder("images")["1.jpg"]) == b"packed"  # the nearest to the root
    row = files.find("list.txt")
    assert row is not None
    assert files.read(row) == b"1"
    assert files.find("other.txt") is None


def test_a_file_that_shrank_after_listing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"x" * 100)
    files = archive.walk_folder(str(tmp_path))
    (tmp_path / "1.jpg").write_bytes(b"x" * 10)
    with pytest.raises(DataError, match=r"1.jpg: 100 bytes expected at byte 0, 10 read"):
        files.read(0)
    (tmp_path / "1.jpg").unlink()
    with pytest.raises(DataError, match=r"1.jpg cannot be read: No such file"):
        files.read(0)


def test_many_threads_read_concurrently(tmp_path: Path) -> None:
    content = {f"{i}.jpg": os.urandom(5000) for i in range(50)}
    (tmp_path / "x.tar").write_bytes(tar_of(content))
    files = archive.open_files(str(tmp_path / "x.tar"), ())
    reader = files.reader(range(50))
    wrong: list[int] = []

    def work(seed: int) -> None:
        for row in np.random.default_rng(seed).integers(0, 50, 200).tolist():
            if reader(row) != content[files.names[row]]:
                wrong.append(row)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("empty", "contains nothing of the data set; looked for a.tar"),
        ("http://x/y", "neither a local path nor s3://"),
        ("file.txt", "neither a folder nor an archive"),
        ("missing", "missing' does not exist; of its folders, "),
    ],
)
def test_a_path_without_files_of_the_set_is_a_config_error(path: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(ConfigError, match=message):
        archive.open_files(path if "://" in path else str(tmp_path / path), ("a.tar",))


def test_a_missing_archive_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no file at .*x\.tar"):
        archive.archive(str(tmp_path), "x.tar")


def test_a_scanner_returns_the_same_bytes_with_few_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.tar").write_bytes(tar_of({f"{i}.jpg": os.urandom(900) for i in range(100)}))
    container = Container(str(tmp_path / "x.tar"))
    expected = read_members(container.read, "x", 0, container.size)
    content = (tmp_path / "x.tar").read_bytes()
    requests: list[int] = []

    def counted(position: int, length: int) -> bytes:
        requests.append(length)
        return content[position : position + length]

    monkeypatch.setattr(container, "read", counted)
    container.remote = True
    assert read_members(container.scanner(10_000), "x", 0, container.size) == expected
    assert len(requests) < 30


@pytest.mark.parametrize("path", ["'{}'", '"{}"', "{}\\"])
def test_quotes_and_backslashes_around_a_path_are_named(path: str, tmp_path: Path) -> None:
    given = path.format(tmp_path)
    with pytest.raises(ConfigError, match=rf"does not exist; .*; {tmp_path} does: quotes and backslashes count"):
        archive.open_own(given)


def test_a_zip_behind_a_program_that_unpacks_it_is_read(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as writer:
        writer.writestr("a/1.jpg", b"x")
    (tmp_path / "x.exe").write_bytes(b"MZ" + bytes(2_000) + packed.getvalue())
    assert archive.open_own(str(tmp_path / "x.exe")).names == ["a/1.jpg"]
    (tmp_path / "y.exe").write_bytes(b"MZ" + bytes(2_000))
    with pytest.raises(ConfigError, match="if it is a self-extracting archive, unpack it and give the folder"):
        archive.open_own(str(tmp_path / "y.exe"))
