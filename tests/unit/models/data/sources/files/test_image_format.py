"""What a file is whose name promises an image: raw images of cameras, pointers, failed downloads."""

from __future__ import annotations

import gzip
import io
import struct
from pathlib import Path

import pytest
from made_archives import counts, data_settings, open_tree, photo, tree, write_tree
from PIL import Image

from infra.errors import ConfigError, DataError
from models.data.shards.image_check import check_image
from models.data.shards.images import convert_to_png
from models.data.sources.catalog import open_source
from models.data.sources.files.image_format import identify_content, identify_format, identify_named
from models.data.sources.folders.tree import refuse_small_files

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
NO_IMAGES = {
    "Git LFS pointer": LFS,
    "web page": b"\xef\xbb\xbf\n<!-- 404 -->\n<HTML><body>Not found</body></HTML>",
    "error message of an object store": b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>NoSuchKey</Code>',
    "JSON": b'{"message": "rate limit exceeded"}',
    "XML": b"<annotation><folder>a</folder></annotation>",
    "text": b"Not found",
    "HTTP answer": b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 0\r\nServer: x\r\n\r\n",
    "git-annex pointer": b"/annex/objects/SHA256E-s12345--4d7a.jpg\n",
    "base64": b"data:image/jpeg;base64,/9j/4AAQSkZJRg",
    "re-encoded image": photo(0).decode("utf-8", "replace").encode(),
    "zero-filled": bytes(5000),
    "line-converted PNG": photo(0, "PNG").replace(b"\r\n", b"\n"),
    "empty": b"",
    "gzip": gzip.compress(photo(0)),
}
REMEDIES = {
    "Git LFS pointer": "git lfs pull fetches the images",
    "gzip": "decompress them",
    "git-annex pointer": "git annex get fetches the images",
    "base64": "decode them",
    "re-encoded image": "saved as text, which loses the pixels: copy them again",
    "zero-filled": "as a full disk or a crash leaves: copy them again",
    "line-converted PNG": "transferred as text, which converts line ends: copy them again as binary files",
}
DOWNLOAD = "as a failed download leaves: fetch them again"


def tiff(tags: dict[int, object]) -> bytes:
    """A TIFF of an image with further tags on its page; ``SubIFDs`` (330) is the place of one of a sensor."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(buffer, "TIFF", tiffinfo=tags)
    data, place = buffer.getvalue(), struct.pack("<I", 0xBEEF)
    return data.replace(place, struct.pack("<I", len(data))) + struct.pack("<HHHIII", 1, 262, 3, 1, 32803, 0)


RAWS = {
    "DNG": tiff({50706: b"\1\4\0\0"}),
    "a sensor on a page in the page": tiff({330: 0xBEEF}),
    "CR2": b"II*\0\x10\0\0\0CR\2\0",
    "CR3": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom",
    "CRW": b"II\x1a\0\0\0HEAPCCDR",
    "RW2": b"IIU\0\x18\0\0\0",
    "ORF": b"IIRO\x08\0\0\0",
    "RAF": b"FUJIFILMCCD-RAW 0201",
    "IIQ": b"II*\0\x08\0\0\0IIII",
    "PEF": b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 259, 3, 1, 65535, 0, 0),
}


@pytest.mark.parametrize("kind", RAWS)
def test_raw_images_are_named_and_never_converted_from_their_previews(kind: str) -> None:
    assert identify_content(RAWS[kind]) == "camera raw"
    assert convert_to_png(RAWS[kind]) is None
    with pytest.raises(DataError, match=r"but camera raw \(export their pixels as JPEG or PNG; the previews in them"):
        check_image(RAWS[kind], "x.jpg", decode=True)


def test_a_plain_tiff_is_no_raw_image() -> None:
    assert identify_content(tiff({270: "a description"})) == "TIFF"
    assert convert_to_png(tiff({})) is not None


@pytest.mark.parametrize("suffix", ["nef", "ARW", "dng", "pef", "srw"])
def test_a_tiff_with_the_suffix_of_raw_images_is_one(suffix: str, tmp_path: Path) -> None:
    files = {f"{word}/{i}.{suffix}": photo(i, "TIFF") for word in ("ant", "bee") for i in range(6)}
    with pytest.raises(ConfigError, match=rf"12 camera raw files \(export .* taken\), first ant/0\.{suffix}"):
        open_tree(tmp_path, files | tree({"ant": 6, "bee": 6}), convert=True)


@pytest.mark.parametrize("kind", NO_IMAGES)
def test_what_has_the_name_of_an_image_is_named_with_what_to_do(kind: str) -> None:
    assert identify_content(NO_IMAGES[kind]) == kind
    remedy = REMEDIES.get(kind, DOWNLOAD)
    expected = f"{kind} ({remedy})" if kind == "empty" else f"neither JPEG nor PNG, but {kind} ({remedy})"
    with pytest.raises(DataError) as raised:
        check_image(NO_IMAGES[kind], "x.jpg", decode=True)
    assert str(raised.value) == expected


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("Git LFS pointer", r"12 Git LFS pointer files \(git lfs pull fetches the images\)"),
        ("web page", r"12 misnamed web page files \(as a failed download leaves: fetch them again\)"),
        ("JSON", r"12 misnamed JSON files \(as a failed download leaves: fetch them again\)"),
        ("text", r"12 misnamed text files \(as a failed download leaves: fetch them again\)"),
        ("zero-filled", r"12 zero-filled files \(as a full disk or a crash leaves: copy them again\)"),
        ("empty", r"12 empty image files \(as a failed download leaves: fetch them again\)"),
        ("gzip", r"12 misnamed gzip files \(decompress them\)"),
    ],
)
def test_files_with_the_suffix_of_an_image_count_as_lost_images(kind: str, said: str, tmp_path: Path) -> None:
    files = {f"ant/{i}.webp": NO_IMAGES[kind] for i in range(12)}
    with pytest.raises(ConfigError, match=f"12 of 24 files would not be used: {said}, first ant/0.webp"):
        open_tree(tmp_path, files | tree({"ant": 6, "bee": 6}))


@pytest.mark.parametrize(
    ("suffix", "content", "kind"),
    [
        ("dcm", bytes(128) + b"DICM", "DICOM"),
        ("nii.gz", gzip.compress(bytes(400)), "NIfTI"),
        ("fits", b"SIMPLE  =                    T", "FITS"),
        ("nrrd", b"NRRD0004\ntype: short\n", "NRRD or MetaImage"),
    ],
)
def test_images_of_medicine_and_astronomy_are_named(suffix: str, content: bytes, kind: str, tmp_path: Path) -> None:
    files = {f"ant/{i}.{suffix}": content for i in range(12)}
    with pytest.raises(
        ConfigError, match=rf"12 of 24 files .*: 12 {kind} files \(convert them to JPEG or PNG\), first an"
    ):
        open_tree(tmp_path, files | tree({"ant": 6, "bee": 6}))


def test_compressed_images_count_as_lost_images_and_compressed_tables_do_not(tmp_path: Path) -> None:
    packed = {f"ant/{i}.jpg.gz": gzip.compress(photo(i)) for i in range(12)} | {"labels.csv.gz": gzip.compress(b"a,b")}
    with pytest.raises(
        ConfigError, match=r"12 of 24 files .*: 12 gzip image files \(decompress them\), first ant/0.jp"
    ):
        open_tree(tmp_path, packed | tree({"ant": 6, "bee": 6}))


@pytest.mark.parametrize(
    ("suffix", "said"),
    [
        ("lnk", r"12 shortcut files \(copy the images"),
        ("dvc", r"12 DVC pointer files \(dvc pull fetches the images\)"),
        ("url", r"12 shortcut files \(copy the images"),
    ],
)
def test_what_stands_for_an_image_elsewhere_counts_as_a_lost_image(suffix: str, said: str, tmp_path: Path) -> None:
    content = b"L\0\0\0" if suffix == "lnk" else b"outs:\n- path: x.jpg\n"
    files = {f"ant/{i}.jpg.{suffix}": content for i in range(12)}
    with pytest.raises(ConfigError, match=f"12 of 24 files would not be used: {said}"):
        open_tree(tmp_path, files | tree({"ant": 6, "bee": 6}))


def test_a_folder_with_pointers_of_dvc_alone_is_told_the_command_that_fetches_its_images(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"no usable images .*; images.dvc is a DVC pointer: dvc pull fetches the imag"
    ):
        open_tree(tmp_path, {"images.dvc": b"outs:\n- path: images\n", "readme.txt": b"text"})


def test_links_of_git_annex_without_their_images_are_named(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "set", tree({"ant": 6, "bee": 6}))
    for i in range(12):
        (root / "ant" / f"annex{i}.jpg").symlink_to(f"../.git/annex/objects/xx/{i}.jpg")
    with pytest.raises(ConfigError, match=r"12 links of git-annex to images that are not here \(git annex get fetches"):
        open_tree(tmp_path, {})


def test_a_table_that_is_a_pointer_is_named_and_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"labels.csv is a Git LFS pointer and not the table: git lfs pull fetches it"
    ):
        open_tree(tmp_path, {f"images/{i}.jpg": photo(i) for i in range(6)} | {"labels.csv": LFS})
    assert identify_format(LFS) != identify_named(LFS, "labels.csv") != identify_named(LFS, "a.webp")


def test_small_files_that_are_no_images_are_refused_before_the_others_are_read(tmp_path: Path) -> None:
    files = (
        tree({"ant": 20, "bee": 20}) | {f"ant/lfs{i}.jpg": LFS for i in range(8)} | {"bee/x.png": b"", "bee/y.png": b""}
    )
    data = data_settings("folder", write_tree(tmp_path / "set", files))
    source = open_source(data)
    refuse_small_files(data, source)  # ten are taken
    write_tree(tmp_path / "set", {"bee/page.jpg": NO_IMAGES["web page"]})
    said = (
        r"11 of 51 files would not be used: 8 Git LFS pointer files \(git lfs pull fetches the images\), first "
        r"ant/lfs0.jpg; 2 empty files \(.*\), first bee/x.png; 1 web page files \(as a failed.*first bee/page.jpg"
    )
    with pytest.raises(ConfigError, match=said):
        refuse_small_files(data, open_source(data))
    allowed = data_settings("folder", tmp_path / "set", allow_partial=True)
    refuse_small_files(allowed, open_source(allowed))
    assert counts(source) == [50, 0, 0]
